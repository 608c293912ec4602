"""Anybody's text as words that can be said: lower case, a to z, single spaces. What cannot be said is refused.

Nothing is dropped that a reader would speak: a number too long for its words, a formula, a link, another script is an
error that names it, so that what is heard and what is written stay the same. Rewriting (see rewriting.py) helps there.

A clip of a data set has a `text`, which stays as it was written, and as `spoken` these words, where they differ and can
be told: CTC on letters and vocabularies of words learn from them.
"""

from __future__ import annotations

import re
import string
import unicodedata
from collections.abc import Mapping
from typing import Any

from ...model.errors import DuologueError
from .spoken import ALPHABET, WRITTEN_SIGNS, folded, normalise, thousands_joined

SPOKEN_SIGNS = {**WRITTEN_SIGNS, "+": "plus", "×": "times"}
CONTRACTIONS = (
    (r"\bwon't\b", "will not"), (r"\bcan't\b", "cannot"), (r"\blet's\b", "let us"), (r"n't\b", " not"),
    (r"'m\b", " am"), (r"'re\b", " are"), (r"'ll\b", " will"), (r"'ve\b", " have"), (r"'d\b", " would"),
    (r"\b(it|that|what|where|who|how|there|here|he|she|when|why)'s\b", r"\1 is"),
)  # fmt: skip
LIST_MARK = re.compile(r"^\s*(?:[-*•]|\d+[.)])\s+\S", re.MULTILINE)
_READ_IN_ENGLISH = frozenset(string.digits) | set(SPOKEN_SIGNS) | {"*"}
_LOUD = frozenset("#%&*@\\§¶†‡‰[]{}_")  # punctuation that a reader says something for, or marks something else


def plain(text: str) -> str:
    """`text` as words, "don't" as "do not". Raises DuologueError that names what cannot be said, or when nothing is."""
    if LIST_MARK.search(text):
        raise DuologueError("it is a list")
    text = _straight(text)
    for pattern, words in CONTRACTIONS:
        text = re.sub(pattern, words, text)
    return heard(text)


def heard(text: str) -> str:
    """The words of a transcript, which are those that are heard: "don't" stays one word, "dont". Raises as `plain`."""
    text = thousands_joined(_straight(text))
    text = re.sub(r"(?<!\w)-(?=\d)|(?<=\d) +- +(?=\d)", " minus ", text)
    text = re.sub(r"(?<=\d)\.(\d+)", lambda match: " point " + " ".join(match[1]), text)
    text = re.sub(r"(?<=\d) *\* *(?=\d)", " times ", text)
    for sign, word in SPOKEN_SIGNS.items():
        text = text.replace(sign, f" {word} ")
    for pattern, what in (
        (r"\d{5,}", "the number {}: write it in words"),
        (r"\d[a-z]+|[a-z]+\d+", "{}: write it in words"),
        (r"\d+/\d+", "{}: write it in words"),
        (r"\w*://\S*", "the link {}"),
    ):
        if found := re.search(pattern, text, re.ASCII):
            raise DuologueError(f"it has {what.format(found[0])}")
    if strange := next((letter for letter in text if not _is_said_or_silent(letter)), None):
        raise DuologueError(f"it has the character {strange!r}, which is not said")
    words = normalise(re.sub(r"[^a-z0-9']", " ", text))
    if not words:
        raise DuologueError("it has no words")
    return words


def words_or_text(text: str, *, english: bool = True) -> str:
    """`text` as words where it can be said in words, else as it is.

    english: whether numbers, signs and contractions in it are read in English; a text of another language that has
        numbers or signs stays as it is.
    """
    if set(text) <= ALPHABET:
        return text
    try:
        if english:
            return plain(text)
        return text if set(text) & _READ_IN_ENGLISH else heard(text)
    except DuologueError:
        return text


def spoken_field(text: str, *, english: bool = True) -> dict[str, str]:
    """The field `spoken` of a clip with this text: {} where the words are the text, or cannot be told."""
    words = words_or_text(text, english=english)
    return {} if words == text else {"spoken": words}


def spoken_words(meta: Mapping[str, Any]) -> str:
    """What is said in a clip as words, as far as they can be told; else its text."""
    return str(meta.get("spoken", meta["text"]))


def _straight(text: str) -> str:
    """Folded, with straight quotes and hyphens."""
    text = folded(text)
    return re.sub("[‘’]", "'", re.sub("[“”]", '"', re.sub("[‐-―−]", "-", text)))


def _is_said_or_silent(letter: str) -> bool:
    if letter in string.ascii_lowercase + string.digits + " ":
        return True
    return unicodedata.category(letter)[0] == "P" and letter not in _LOUD
