"""Questions that go on from the turn before: "and of italy", "add five to that", "what did you say"."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ...datasets.splits import Split, operand_split
from ...text.spoken import number_in_words
from ..small_talk import INTENTS
from ..table import WORDINGS
from .basics import FIRST_KINDS, some_words
from .kind import Category, Kind, Operands, ScriptedAnswer

_FIRST = {kind.name: kind for kind in FIRST_KINDS}
_SUMS = ("plus", "minus", "times")


def _trained(kind: Kind, rng: np.random.Generator) -> Operands:
    """Operands that a training question may have: what is tested is the turn after."""
    while True:
        operands = kind.draw(rng)
        if not kind.held_out or operand_split(kind.key(operands)) is Split.TRAIN:
            return operands


def _same_again(name: str) -> Kind:
    """The same question of something else."""
    kind = _FIRST[name]

    def draw(rng: np.random.Generator) -> Operands:
        return (*kind.draw(rng), *kind.draw(rng))

    return Kind(
        name=f"follow_{name}", category=Category.FOLLOW_UP, templates=WORDINGS[f"follow_{name}"], domain=draw,
        weight=2.5, solve=lambda operands: kind.solve(operands[1:]), before=lambda operands: (name, operands[:1]),
    )  # fmt: skip


def _result(name: str, a: int, b: int) -> int:
    return {"plus": a + b, "minus": a - b, "times": a * b}[name]


def _go_on(name: str, most: int, fits: Callable[[int, int], bool], weight: float) -> Kind:
    """A sum whose first term is the answer before: (first kind, a, b, c)."""
    kind = _FIRST[name]

    def before(operands: Operands) -> tuple[str, Operands]:
        return str(operands[0]), operands[1:3]

    def pair(operands: Operands) -> Operands:
        first, a, b, c = operands
        return (_result(str(first), int(a), int(b)), c)

    def draw(rng: np.random.Generator) -> Operands:
        while True:
            first = _SUMS[int(rng.integers(len(_SUMS)))]
            operands: Operands = (first, *_trained(_FIRST[first], rng), int(rng.integers(1, most)))
            if fits(*map(int, pair(operands))):
                return operands

    def solve(operands: Operands) -> ScriptedAnswer:
        answer = kind.solve(pair(operands))
        return ScriptedAnswer({"b": number_in_words(int(operands[3]))}, answer.reply, answer.slot)

    return Kind(
        name=f"follow_{name}", category=Category.FOLLOW_UP, templates=WORDINGS[f"follow_{name}"], domain=draw,
        solve=solve, weight=weight, held_out=True, before=before, held_as=lambda operands: kind.key(pair(operands)),
    )  # fmt: skip


def _again() -> Kind:
    """What was said, once more."""
    names = tuple(
        kind.name for kind in FIRST_KINDS if kind.category not in (Category.SMALL_TALK, Category.OUTSIDE)
    ) + tuple(intent.name for intent in INTENTS)

    def draw(rng: np.random.Generator) -> Operands:
        kind = _FIRST[names[int(rng.integers(len(names)))]]
        return (kind.name, *(some_words(rng) if kind.name == "repeat" else _trained(kind, rng)))

    def solve(operands: Operands) -> ScriptedAnswer:
        answer = _FIRST[str(operands[0])].solve(operands[1:])
        return ScriptedAnswer({}, answer.reply, answer.slot)

    return Kind(
        name="follow_again", category=Category.FOLLOW_UP, domain=draw, solve=solve, weight=3,
        before=lambda operands: (str(operands[0]), operands[1:]),
        templates=WORDINGS["follow_again"],
    )  # fmt: skip


FOLLOW_UPS = (
    _same_again("capitals"),
    _same_again("opposites"),
    _go_on("plus", 100, lambda a, b: True, 3),
    _go_on("minus", 100, lambda a, b: b <= a, 3),
    _go_on("times", 13, lambda a, b: a <= 12, 1.5),
    _again(),
)  # fmt: skip
