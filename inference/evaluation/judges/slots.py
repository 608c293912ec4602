"""Whether a reply is right: exact, by rule, without a model's opinion.

A generated question brings its answer and the slot in it that makes a reply right: "fifty nine" in "forty seven plus
twelve is fifty nine". Texts are compared as lower-case words without punctuation, numbers in words.
"""

from __future__ import annotations

from ....data_prep.text.spoken import NUMBER_WORDS, normalise, slots_of
from ..metrics.words import separate

# A recogniser cannot tell words that sound alike: spelled letters and short numbers, as it writes them in English.
HOMOPHONES = {
    "won": "one", "to": "two", "too": "two", "for": "four", "fore": "four", "ate": "eight",
    "be": "b", "bee": "b", "see": "c", "sea": "c", "eye": "i", "jay": "j", "oh": "o", "owe": "o", "pea": "p",
    "pee": "p", "cue": "q", "queue": "q", "are": "r", "tea": "t", "tee": "t", "you": "u", "why": "y",
}  # fmt: skip


def is_right(reply: str, answer: str, slot: str, *, by_recogniser: bool = False) -> bool:
    """Whether ``reply`` holds ``slot``, or one of several ("Paris|in France"), as ``answer`` does.

    - An answer that is nothing but its slot ("repeat after me") must be the whole reply.
    - A slot that is a number must be the last number in the reply: an operand that is repeated is no answer.
    - Any other slot must occur, and not inside a longer number or a longer spelled word.

    Args:
        by_recogniser: the reply was transcribed from sound; words that sound alike count as the same.
    """
    return any(_holds(reply, answer, each, by_recogniser) for each in slots_of(slot) or [slot])


def _holds(reply: str, answer: str, slot: str, by_recogniser: bool) -> bool:
    said, whole, wanted = (_words(text, by_recogniser) for text in (reply, answer, slot))
    if wanted == whole:
        return said == whole
    if all(word in NUMBER_WORDS for word in wanted):
        return _numbers(said)[-1:] == [wanted]
    span = len(wanted)
    return any(
        said[at : at + span] == wanted
        and not (at > 0 and _extends(said[at - 1], wanted[0]))
        and not (at + span < len(said) and _extends(said[at + span], wanted[-1]))
        for at in range(len(said) - span + 1)
    )


def _words(text: str, by_recogniser: bool) -> list[str]:
    words = separate(normalise(text)).split()
    return [HOMOPHONES.get(word, word) for word in words] if by_recogniser else words


def _numbers(words: list[str]) -> list[list[str]]:
    """The runs of number words."""
    runs: list[list[str]] = []
    for at, word in enumerate(words):
        if word in NUMBER_WORDS:
            if at > 0 and words[at - 1] in NUMBER_WORDS:
                runs[-1].append(word)
            else:
                runs.append([word])
    return runs


def _extends(neighbour: str, edge: str) -> bool:
    """Whether a word beside a slot makes it part of something longer: number beside number, letter beside letter."""
    letters = len(neighbour) == 1 and len(edge) == 1 and neighbour.isascii() and edge.isascii()
    return letters or (neighbour in NUMBER_WORDS and edge in NUMBER_WORDS)
