"""Answers and what they are worth as pairs: conversations whose last turn has the best as its reply, and worse ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ...data_prep.datasets.question_sets import Dialogue


@dataclass(frozen=True, kw_only=True)
class Scored:
    """An answer, each of its rewards by name, and the sum that counts."""

    text: str
    rewards: Mapping[str, float]
    total: float


def pair_of(
    name: str, question: Dialogue, answers: Sequence[Scored], margin: float, most: int
) -> dict[str, Any] | None:
    """A conversation whose last turn has a reply and ``rejected`` answers; None: no two differ enough.

    margin: how much less than the best one is worth must be, to be rejected. most: so many of them, the worst first.
    Where several are worth as much, the first of them counts: as often as it is drawn a model likes it.
    """
    spoken = [answer for answer in answers if answer.text]
    if not spoken:
        return None
    best = max(spoken, key=lambda answer: answer.total)
    worse = sorted({a.text: a.total for a in spoken if best.total - a.total >= margin and a.text != best.text}.items(),
                   key=lambda each: each[1])  # fmt: skip
    if not worse:
        return None
    turn = {"text": question.question, "reply": best.text, "rejected": [text for text, _ in worse[:most]]}
    turn |= {"slot": question.slot} if question.slot else {}
    before = [{"text": asked, "reply": said} for asked, said in question.history]
    system = {"system": question.system} if question.system else {}
    return {"id": name, **system, "turns": [*before, turn]}
