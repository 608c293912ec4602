"""Questions that nano cannot answer, put together from parts: the test asks in new wordings about new things."""

from __future__ import annotations

import itertools
from collections.abc import Iterable

from ..facts import CAPITALS
from ..small_talk import OUTSIDE
from .kind import Category, Kind, Operands, ScriptedAnswer, worded

_THINGS = (
    "a car", "a house", "a phone", "a pizza", "gold", "a train ticket", "a boat", "bread", "a piano", "coffee",
    "a bottle of milk", "a new window", "a horse", "a good book", "flowers", "a dress",
)  # fmt: skip
_MADE = (
    "the telephone", "this song", "that book", "the piano", "the first car", "this picture", "the radio", "the light",
    "the first computer", "that film", "the train", "this story",
)  # fmt: skip
_DID = ("wrote", "painted", "invented", "discovered", "built", "found")
_PEOPLE = ("my mother", "my father", "my sister", "my brother", "the doctor", "my teacher", "my friend", "the bank")
_ROOMS = ("kitchen", "garden", "bathroom", "bedroom", "car", "school")
_APPLIANCES = ("light", "television", "radio", "music", "heating", "oven")


def _outside(name: str, slots: dict[str, Iterable[str]]) -> Kind:
    names = tuple(slots)

    def solve(operands: Operands) -> ScriptedAnswer:
        return ScriptedAnswer(dict(zip(names, map(str, operands), strict=True)), OUTSIDE.reply, OUTSIDE.slot)

    domain = tuple(itertools.product(*slots.values()))
    # Of few, the test would have one or none.
    return worded(f"outside_{name}", Category.OUTSIDE, domain, solve, 1.2, held_out=len(domain) > 50)


OUTSIDE_KINDS = (
    _outside("weather", {"c": CAPITALS.values()}),
    _outside("who", {"v": _DID, "t": _MADE}),
    _outside("price", {"t": _THINGS}),
    _outside("far", {"c": CAPITALS.values(), "d": CAPITALS.values()}),
    _outside("home", {"a": _APPLIANCES, "r": _ROOMS}),
    _outside("call", {"p": _PEOPLE}),
)
