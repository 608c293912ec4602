"""Small talk, and what nano says to a question outside its domain: intents, their wordings, one reply each."""

from __future__ import annotations

from dataclasses import dataclass

from .table import table


@dataclass(frozen=True)
class Intent:
    """`slot` is the part of `reply` that makes it right."""

    name: str
    wordings: tuple[str, ...]
    reply: str
    slot: str


_ALL = tuple(Intent(name, **intent) for name, intent in table("small_talk").items())
INTENTS, OUTSIDE = _ALL[:-1], _ALL[-1]
