"""Questions that nano cannot answer, put together from parts: the test asks in new wordings about new things."""

from __future__ import annotations

import itertools
from collections.abc import Iterable

from ..facts import CAPITALS
from ..small_talk import OUTSIDE
from .kind import Category, Kind, Operands, ScriptedAnswer

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


def _outside(name: str, slots: dict[str, Iterable[str]], templates: tuple[str, ...]) -> Kind:
    names = tuple(slots)

    def solve(operands: Operands) -> ScriptedAnswer:
        return ScriptedAnswer(dict(zip(names, map(str, operands), strict=True)), OUTSIDE.reply, OUTSIDE.slot)

    domain = tuple(itertools.product(*slots.values()))
    return Kind(
        name=f"outside_{name}", category=Category.OUTSIDE, templates=templates, domain=domain, solve=solve, weight=1.2,
        held_out=len(domain) > 50,  # of few, the test would have one or none
    )  # fmt: skip


OUTSIDE_KINDS = (
    _outside("weather", {"c": CAPITALS.values()}, (
        "what is the weather in {c}", "how is the weather in {c}", "is it cold in {c}", "is it warm in {c} today",
        "will it rain in {c} tomorrow", "does it rain in {c}", "how warm is it in {c}", "how cold is it in {c} now",
        "will it snow in {c}", "what will the weather be in {c} tomorrow", "is it sunny in {c}",
        "what time is it in {c}",
    )),
    _outside("who", {"v": _DID, "t": _MADE}, (
        "who {v} {t}", "do you know who {v} {t}", "when was it that somebody {v} {t}", "which person {v} {t}",
        "what is the name of the person who {v} {t}", "who was it that {v} {t}", "name the person who {v} {t}",
        "in which year was it that they {v} {t}", "how old was the person who {v} {t}",
        "where was it that they {v} {t}",
    )),
    _outside("price", {"t": _THINGS}, (
        "how much does {t} cost", "what is the price of {t}", "where can i buy {t}", "what does {t} cost",
        "how much money do i need for {t}", "how much do they want for {t}", "can you buy me {t}",
        "where do they sell {t}", "what is a good price for {t}", "how much did you pay for {t}",
        "order {t} from the shop", "where do i find {t}",
    )),
    _outside("far", {"c": CAPITALS.values(), "d": CAPITALS.values()}, (
        "how far is {c} from {d}", "how long does it take from {c} to {d}", "how do i get from {c} to {d}",
        "when does the train from {c} to {d} leave", "is there a train from {c} to {d}",
        "book me a flight from {c} to {d}", "how many people live in {c} and {d}", "is {c} nicer than {d}",
        "how much is a ticket from {c} to {d}", "what do people eat in {c} and {d}",
    )),
    _outside("home", {"a": _APPLIANCES, "r": _ROOMS}, (
        "turn on the {a} in the {r}", "turn off the {a} in the {r}", "switch on the {a} in the {r}",
        "switch off the {a} in the {r}", "is the {a} on in the {r}", "please turn on the {a} in the {r}",
        "can you turn off the {a} in the {r}", "where is the {a} in the {r}", "put the {a} on in the {r}",
        "is there a {a} in the {r}",
    )),
    _outside("call", {"p": _PEOPLE}, (
        "call {p}", "send a message to {p}", "what is the number of {p}", "tell {p} that i am late",
        "where does {p} live", "write a letter to {p}", "when did {p} call", "please call {p}", "can you call {p}",
        "remind me to call {p}", "what did {p} say", "send {p} a letter",
    )),
)  # fmt: skip
