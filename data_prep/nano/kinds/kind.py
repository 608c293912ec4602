"""What a kind of question is: its wordings, the operands it may have, and how its answer is computed from them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from ..table import WORDINGS

Operands = tuple[int | str, ...]
Domain = tuple[Operands, ...] | Callable[[np.random.Generator], Operands]


class Category(StrEnum):
    ARITHMETIC = "arithmetic"
    COMPARISON = "comparison"
    SEQUENCE = "sequence"
    CALENDAR = "calendar"
    CLOCK = "clock"
    UNITS = "units"
    CAPITALS = "capitals"
    KNOWLEDGE = "knowledge"
    SPELLING = "spelling"
    REPEAT = "repeat"
    ORDERS = "orders"
    FOLLOW_UP = "follow_up"
    SMALL_TALK = "small_talk"
    OUTSIDE = "outside"


@dataclass(frozen=True)
class ScriptedAnswer:
    """`fields` fill the template's slots; `slot` is the part of `reply` that makes it right."""

    fields: dict[str, str]
    reply: str
    slot: str


@dataclass(frozen=True, kw_only=True)
class Kind:
    """One way of asking. `domain` lists all operands, or draws some where there are too many to list.

    held_out: whether some operands are kept for the test. Facts that can only be learnt by heart (capitals, tables of
        units, spelling, small talk) are all trained on; their test asks in new wordings.
    unordered: whether (a, b) and (b, a) are one pair, held out together.
    before: for a question that goes on from another: the kind and the operands of the turn before.
    held_as: what is hashed to hold operands out, where it is not the kind's name and operands.
    """

    name: str
    category: Category
    templates: tuple[str, ...]
    domain: Domain
    solve: Callable[[Operands], ScriptedAnswer]
    weight: float
    held_out: bool = False
    unordered: bool = False
    before: Callable[[Operands], tuple[str, Operands]] | None = None
    held_as: Callable[[Operands], str] | None = None

    def draw(self, rng: np.random.Generator) -> Operands:
        return self.domain[int(rng.integers(len(self.domain)))] if isinstance(self.domain, tuple) else self.domain(rng)

    def key(self, operands: Operands) -> str:
        """What is hashed to hold operands out. Larger and smaller share theirs, so the pair is new in either."""
        if self.held_as is not None:
            return self.held_as(operands)
        if self.unordered:
            operands = tuple(sorted(operands, key=lambda operand: (isinstance(operand, str), operand)))
        return f"{self.category if self.category is Category.COMPARISON else self.name} {' '.join(map(str, operands))}"


def single(values: Sequence[int | str]) -> tuple[Operands, ...]:
    """Operands of one value each."""
    return tuple((value,) for value in values)


def worded(name: str, category: Category, domain: Domain, solve: Callable[[Operands], ScriptedAnswer],
           weight: float, held_out: bool = False, unordered: bool = False) -> Kind:  # fmt: skip
    """A kind with the wordings that the table has for it."""
    return Kind(name=name, category=category, templates=WORDINGS[name], domain=domain, solve=solve, weight=weight,
                held_out=held_out, unordered=unordered)  # fmt: skip
