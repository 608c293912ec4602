"""Sentences besides questions and answers: numbers, letters and words in turn, so that every word is heard often.

A question set mixes them in as drills for the audio encoder; a reply set, to cover the vocabulary in the reply's voice.
"""

from __future__ import annotations

import numpy as np

from ..text.spoken import LETTERS, number_in_words
from .dialogues import generate, is_held_out
from .facts import DAYS, MONTHS

FRAMES = (
    "{}", "the answer is {}", "it is {}", "that is {}", "the number is {}", "it makes {}", "there are {}", "i have {}",
    "the result is {}", "you get {}",
)  # fmt: skip
# What may stand between two numbers, so that "to" is not always heard as "two".
PAIRS = (
    "{} to {}", "from {} to {}", "it is {} to {}", "that is {} to {}", "i get from {} to {}", "{} or {}", "{} and {}",
)  # fmt: skip


def _number(rng: np.random.Generator) -> str:
    """Mostly 0 to 99, teens and tens more often than the rest, for they are easily confused."""
    choice = rng.random()
    if choice < 0.25:
        return number_in_words(int(rng.integers(13, 20)))
    if choice < 0.45:
        return number_in_words(int(rng.integers(1, 10)) * 10)
    if choice < 0.85:
        return number_in_words(int(rng.integers(100)))
    if choice < 0.97:
        return number_in_words(int(rng.integers(100, 1000)))
    return number_in_words(int(rng.integers(1, 10)) * 1000)


def number_sentence(rng: np.random.Generator) -> str:
    """Two numbers with a word between them (two in five), one in a frame, or up to four in a row."""
    choice = rng.random()
    if choice < 0.4:
        return PAIRS[int(rng.integers(len(PAIRS)))].format(_number(rng), _number(rng))
    if choice < 0.7:
        return FRAMES[int(rng.integers(len(FRAMES)))].format(_number(rng))
    return " ".join(_number(rng) for _ in range(int(rng.integers(1, 5))))


def letter_sentence(rng: np.random.Generator) -> str:
    """Three to eight letters by name. A lone "a" among them is always a letter, for its neighbours are."""
    letters = [LETTERS[int(at)] for at in rng.integers(len(LETTERS), size=int(rng.integers(3, 9)))]
    # "a" and "i" beside each other alone would be read as words
    return " ".join(
        letter for at, letter in enumerate(letters) if at == 0 or not {letter, letters[at - 1]} <= {"a", "i"}
    )


def word_sentence(words: tuple[str, ...], index: int, rng: np.random.Generator) -> str:
    """Three to seven words, the first of which walks through the whole vocabulary as `index` grows."""
    picked = [words[index % len(words)]]
    picked += [words[int(at)] for at in rng.integers(len(words), size=int(rng.integers(2, 7)))]
    order = rng.permutation(len(picked))
    return " ".join(picked[int(at)] for at in order)


def mixed_sentence(rng: np.random.Generator) -> str:
    """Pieces of one to three words from two or three training questions, in any order.

    Whoever hears only whole questions learns to guess the rest of one; in these nothing can be guessed. The rare
    mixture that says what only the test may ask is drawn again.
    """
    pieces = []
    for _ in range(int(rng.integers(2, 4))):
        words = generate(int(rng.integers(2**31)), 0).question.split()
        while words:
            size = int(rng.integers(1, 4))
            pieces.append(" ".join(words[:size]))
            words = words[size:]
    picked = rng.permutation(len(pieces))[: int(rng.integers(2, 6))]
    text = " ".join(pieces[int(at)] for at in picked)
    return mixed_sentence(rng) if is_held_out(text) else text


def drill(words: tuple[str, ...], index: int, rng: np.random.Generator, alone: float = 0.15) -> str:
    """A digit or a word alone (a fraction of `alone`); numbers, words, mixed pieces of questions, letters, days."""
    if rng.random() < alone:
        return number_in_words(int(rng.integers(10))) if rng.random() < 0.6 else words[int(rng.integers(len(words)))]
    choice = rng.random()
    if choice < 0.3:
        return number_sentence(rng)
    if choice < 0.6:
        return word_sentence(words, index, rng)
    if choice < 0.85:
        return mixed_sentence(rng)
    if choice < 0.95:
        return letter_sentence(rng)
    names = DAYS + MONTHS
    return " ".join(names[int(at)] for at in rng.integers(len(names), size=int(rng.integers(1, 4))))
