"""Where sentences end, in text that a model writes token by token."""

from __future__ import annotations

import re

# A full stop behind these ends no sentence: an initial, "U.S.", a title, the number of a list.
_SHORT = re.compile(r"(?:^\d+|(?:^|[\s(])(?:[A-Z]|[A-Za-z](?:\.[A-Za-z])+|Mrs?|Ms|Dr|Prof|St|Jr|Sr|vs|etc|approx))\.$")
_END = re.compile(r"[.!?…]+[\"'”’)]*(?=\s)|[。！？]+[”’」』）]*|\n")  # a space must follow a Latin mark
_CLOSED = re.compile(r"[.!?…。！？][\"'”’)」』）]*$")


def first_sentences(text: str, count: int) -> str | None:
    """The first ``count`` sentences of ``text``; None: more text may still belong to them.

    A sentence ends with its mark, where something follows, or with its line.
    """
    text, begin = text.lstrip(), 0
    for end in _END.finditer(text):
        sentence = text[begin : end.end()].strip()
        if not sentence or (end[0] != "\n" and _SHORT.search(sentence)):
            continue
        count, begin = count - 1, end.end()
        if count <= 0:
            return text[:begin].rstrip()
    return None


def is_closed(text: str) -> bool:
    """Whether a text ends as a sentence does."""
    return bool(_CLOSED.search(text))
