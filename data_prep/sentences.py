"""Sentences besides questions and answers: numbers, letters and words in turn, so that every word is heard often.

A question set mixes them in as drills for the ear; a reply set, to cover the vocabulary in the reply's voice.
"""

from __future__ import annotations

import numpy as np

from .facts import DAYS, MONTHS
from .spoken import LETTERS, number_in_words

FRAMES = (
    "{}", "the answer is {}", "it is {}", "that is {}", "the number is {}", "it makes {}", "there are {}", "i have {}",
    "the result is {}", "you get {}",
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
    """One number in a frame, or two to four numbers in a row."""
    if rng.random() < 0.5:
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
    """Three to six words, the first of which walks through the whole vocabulary as `index` grows."""
    picked = [words[index % len(words)]]
    picked += [words[int(at)] for at in rng.integers(len(words), size=int(rng.integers(2, 6)))]
    order = rng.permutation(len(picked))
    return " ".join(picked[int(at)] for at in order)


def drill(words: tuple[str, ...], index: int, rng: np.random.Generator) -> str:
    """Numbers (half), words (three in ten), letters, or names of days and months."""
    choice = rng.random()
    if choice < 0.5:
        return number_sentence(rng)
    if choice < 0.8:
        return word_sentence(words, index, rng)
    if choice < 0.9:
        return letter_sentence(rng)
    names = DAYS + MONTHS
    return " ".join(names[int(at)] for at in rng.integers(len(names), size=int(rng.integers(1, 4))))
