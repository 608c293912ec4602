"""What nano knows: tables of facts and word lists (``tables/facts.toml``)."""

from __future__ import annotations

from .table import table

_FACTS = table("facts")
DAYS: tuple[str, ...] = _FACTS["days"]
MONTHS: tuple[str, ...] = _FACTS["months"]
UNIT_TABLE: tuple[tuple[str, str, str, int, int], ...] = _FACTS["units"]
SPELLING_WORDS: tuple[str, ...] = _FACTS["spelling_words"]
REPEAT_WORDS: tuple[str, ...] = (*SPELLING_WORDS, *_FACTS["repeat_words"])
CAPITALS: dict[str, str] = _FACTS["capitals"]
OPPOSITES: dict[str, str] = _FACTS["opposites"]
SOUNDS: dict[str, str] = _FACTS["sounds"]
YOUNG: dict[str, str] = _FACTS["young"]
COLOURS: dict[str, str] = _FACTS["colours"]
LEGS: dict[str, int] = _FACTS["legs"]
CONTINENTS: dict[str, tuple[str, ...]] = _FACTS["continents"]
