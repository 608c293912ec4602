"""Small talk, what nano says to a question outside its domain, and the little words people put around a question."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .table import table


@dataclass(frozen=True)
class Intent:
    """An intent: its wordings, and one reply. `slot` is the part of `reply` that makes it right."""

    name: str
    wordings: tuple[str, ...]
    reply: str
    slot: str


_ALL = tuple(Intent(name, **intent) for name, intent in table("small_talk").items())
INTENTS, OUTSIDE = _ALL[:-1], _ALL[-1]

INTERJECTIONS = ("um", "uh", "well", "so", "okay", "hey", "hey nano", "please", "hello", "um well", "okay so")
LEAD_INS = ("could you tell me", "can you tell me", "please tell me", "tell me", "i want to know", "do you know")
TRAILERS = ("please", "nano", "thank you")
QUESTION_WORDS = ("what", "which", "how", "who", "where")


def with_fillers(question: str, rng: np.random.Generator) -> str:
    """`question` as a person may begin and end it: four in ten get an interjection, a lead-in or a trailer."""
    words = question.split()
    parts = [question]
    if words[0] in QUESTION_WORDS and rng.random() < 0.15:
        parts.insert(0, str(rng.choice(LEAD_INS)))
    if rng.random() < 0.25:
        parts.insert(0, str(rng.choice(INTERJECTIONS)))
    if words[-1] not in ("nano", "please", "you") and rng.random() < 0.07:
        parts.append(str(rng.choice(TRAILERS)))
    return " ".join(parts)
