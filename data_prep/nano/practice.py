"""Further ways of asking that are trained on alone: every phrase for a thing in every frame that asks for one.

Wordings picked one by one leave it to chance which phrase a model meets in which frame, and it learns them as wholes:
what it answers to "what is {a} less {b}" says little about "tell me {a} less {b}". Here the two vary apart. Where such
a wording is one that is kept for development or the test, it is left out (see dialogues.py); operands are held out as
those of the kind itself. Every word is one of the vocabulary already.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from ..text.spoken import LETTERS
from .facts import DAYS, MONTHS
from .kinds.basics import FIRST_KINDS, counted_on
from .kinds.everyday import EVERYDAY
from .kinds.follow_ups import FOLLOW_UPS
from .kinds.kind import Kind, Operands
from .table import table

_TABLE = table("wordings")
# Phrases by kind, and the frames that ask for them: things, and clauses. A phrase is asked for by itself, too.
_PHRASES = ((_TABLE["things"], _TABLE["frames_for_things"]), (_TABLE["clauses"], _TABLE["frames_for_clauses"]))


def _wordings(name: str) -> tuple[str, ...]:
    framed = [
        frame.format(phrase) for phrases, frames in _PHRASES for phrase in phrases.get(name, ()) for frame in frames
    ]
    return tuple(dict.fromkeys(framed))


_DAYS_AFTER = next(kind for kind in FIRST_KINDS if kind.name == "days_after")
_AGAIN = next(kind for kind in FOLLOW_UPS if kind.name == "follow_again")


def _counted(things: str, slot: str, cycle: Sequence[str], domain: tuple[Operands, ...], held_out: bool) -> Kind:
    """Counting on, asked for as it is of days. With days alone, 40 pairs that are not kept, it is easier to learn all
    by heart than to count; of months and letters there are 329 more."""
    change = {"days": things, "day": things.removesuffix("s"), "{d}": f"{{{slot}}}"}
    templates = tuple(
        " ".join(change.get(word, word) for word in wording.split()) for wording in _wordings(_DAYS_AFTER.name)
    )
    return replace(
        _DAYS_AFTER, name=f"{things}_after_practice", templates=templates, domain=domain, held_out=held_out,
        solve=counted_on(cycle, things, slot), held_as=_DAYS_AFTER.key if held_out else None, weight=2,
    )  # fmt: skip


def _pairs(most: int, names: Sequence[str]) -> tuple[Operands, ...]:
    return tuple((number, name) for number in range(2, most + 1) for name in names)


_IN_THE_ALPHABET = tuple(
    (number, letter) for at, letter in enumerate(LETTERS) for number in range(2, min(13, len(LETTERS) - at))
)
# What is seldom asked needs as much practice as what often is.
PRACTICE: tuple[Kind, ...] = (
    *(
        replace(kind, name=f"{kind.name}_practice", templates=wordings, held_as=kind.key, weight=1)
        for kind in (*FIRST_KINDS, *EVERYDAY)
        if (wordings := _wordings(kind.name)) and kind is not _DAYS_AFTER
    ),
    _counted("days", "d", DAYS, _pairs(14, DAYS), held_out=True),
    _counted("months", "m", MONTHS, _pairs(11, MONTHS), held_out=False),
    _counted("letters", "l", LETTERS, _IN_THE_ALPHABET, held_out=False),
    # To say again is to copy, not to answer once more: not learnt from a few.
    replace(_AGAIN, name="follow_again_practice", held_as=_AGAIN.key, weight=6),
)
