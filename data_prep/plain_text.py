"""Anybody's text as words that can be said: lower case, a to z, single spaces. What cannot be said is refused.

Nothing is dropped that a reader would speak: a number too long for its words, a formula, a link, another script is an
error that names it, so that what is heard and what is written stay the same. Rewriting (see rewriting.py) helps there.
"""

from __future__ import annotations

import re
import unicodedata

from ..model.errors import DuologueError
from .spoken import normalise

SPOKEN_SIGNS = {"%": "percent", "&": "and", "+": "plus", "=": "equals", "×": "times"}
CONTRACTIONS = (
    (r"\bwon't\b", "will not"), (r"\bcan't\b", "cannot"), (r"\blet's\b", "let us"), (r"n't\b", " not"),
    (r"'m\b", " am"), (r"'re\b", " are"), (r"'ll\b", " will"), (r"'ve\b", " have"), (r"'d\b", " would"),
    (r"\b(it|that|what|where|who|how|there|here|he|she|when|why)'s\b", r"\1 is"),
)  # fmt: skip
LIST_MARK = re.compile(r"^\s*(?:[-*•]|\d+[.)])\s+\S", re.MULTILINE)
_SILENT = "\"'.,;:!?()-/\n\t "


def plain(text: str) -> str:
    """`text` as words. Raises DuologueError that names what cannot be said, or when there is nothing to say."""
    if LIST_MARK.search(text):
        raise DuologueError("it is a list")
    text = unicodedata.normalize("NFKD", text).lower()
    text = "".join(letter for letter in text if not unicodedata.combining(letter))  # é: e
    text = re.sub("[‘’]", "'", re.sub("[“”]", '"', re.sub("[‐-―−]", "-", text)))
    for pattern, words in CONTRACTIONS:
        text = re.sub(pattern, words, text)
    text = re.sub(r"(?<=\d),(?=\d{3}(?!\d))", "", text)  # 1,000
    text = re.sub(r"(?<!\w)-(?=\d)", "minus ", text)
    text = re.sub(r"(?<=\d)\.(\d+)", lambda match: " point " + " ".join(match[1]), text)
    for sign, word in SPOKEN_SIGNS.items():
        text = text.replace(sign, f" {word} ")
    for pattern, what in (
        (r"\d{5,}", "the number {}: write it in words"),
        (r"\d[a-z]+|[a-z]+\d+", "{}: write it in words"),
        (r"\d+/\d+", "{}: write it in words"),
        (r"\w*://\S*", "the link {}"),
        (rf"[^a-z0-9{re.escape(_SILENT)}]", "the character {!r}, which is not said"),
    ):
        if found := re.search(pattern, text):
            raise DuologueError(f"it has {what.format(found[0])}")
    words = normalise(re.sub(r"[^a-z0-9']", " ", text))
    if not words:
        raise DuologueError("it has no words")
    return words
