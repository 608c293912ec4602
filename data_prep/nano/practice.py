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

# A frame for things and one for clauses; a phrase is asked for by itself, too.
_FOR_THINGS = (
    "{}", "what is {}", "tell me {}", "find {}", "give me {}", "say {}", "i need {}", "i want to know {}",
    "do you know {}", "can you tell me {}", "could you tell me {}", "what would {} be", "please find {}",
    "and what is {}",
    "can you say {}", "let me hear {}",
)  # fmt: skip
_FOR_CLAUSES = (
    "{}", "tell me {}", "i want to know {}", "do you know {}", "can you tell me {}", "could you tell me {}",
    "please tell me {}", "and {}",
)  # fmt: skip
_THINGS = {
    "plus": (
        "{a} plus {b}", "the sum of {a} and {b}", "the total of {a} and {b}", "{b} more than {a}",
        "the number that is {b} more than {a}", "{a} and {b} together", "{a} and {b} more", "{b} added to {a}",
        "the result of {a} plus {b}",
    ),
    "minus": (
        "{a} minus {b}", "the difference of {a} and {b}", "{b} less than {a}", "the number that is {b} less than {a}",
        "{a} less {b}", "{a} take away {b}", "the result of {a} minus {b}",
    ),
    "times": (
        "{a} times {b}", "{a} multiplied by {b}", "the product of {a} and {b}", "the result of {a} times {b}",
        "the product of the numbers {a} and {b}",
    ),
    "double": ("double {a}", "twice {a}", "the double of {a}", "twice the number {a}"),
    "half": ("half of {a}", "the half of {a}", "{a} divided by two", "half of the number {a}"),
    "larger": (
        "the larger of {a} and {b}", "the bigger of {a} and {b}", "the larger number {a} or {b}",
        "the bigger number {a} or {b}",
    ),
    "smaller": ("the smaller of {a} and {b}", "the smaller number {a} or {b}"),
    "number_after": (
        "the number after {a}", "the next number after {a}", "the number that comes after {a}",
        "the number that follows {a}", "the number just after {a}", "the number that comes right after {a}",
        "the number that comes next after {a}",
    ),
    "number_before": (
        "the number before {a}", "the number that comes before {a}", "the number just before {a}",
        "the number right before {a}", "the number that comes right before {a}",
        "the number that comes just before {a}", "the last number before {a}",
    ),
    "day_after": (
        "the day after {d}", "the next day after {d}", "the day that comes after {d}", "the day that follows {d}",
        "the name of the day after {d}",
    ),
    "day_before": (
        "the day before {d}", "the day that comes before {d}", "the day just before {d}",
        "the name of the day before {d}", "the last day before {d}",
    ),
    "days_after": (
        "the day {a} days after {d}", "the day that comes {a} days after {d}", "the day {a} days from {d}",
        "{a} days after {d}", "{a} days from {d}", "the name of the day {a} days after {d}",
        "the day that is {a} days after {d}",
    ),
    "month_after": (
        "the month after {m}", "the next month after {m}", "the month that comes after {m}",
        "the month that follows {m}", "the name of the month after {m}",
    ),
    "month_before": (
        "the month before {m}", "the month that comes before {m}", "the month just before {m}",
        "the name of the month before {m}", "the last month before {m}",
    ),
    "units": ("{n} {large} in {small}", "the number of {small} in {n} {large}"),
    "capitals": (
        "the capital of {c}", "the capital city of {c}", "the name of the capital of {c}",
        "the city that is the capital of {c}",
    ),
    "opposites": (
        "the opposite of {w}", "the opposite word of {w}", "the word that is the opposite of {w}",
        "a word that is the opposite of {w}",
    ),
    "sounds": ("the sound of a {w}", "the sound that a {w} makes", "the noise of a {w}", "the noise that a {w} makes"),
    "young": ("the name of a baby {w}", "the name of a young {w}", "the word for a baby {w}"),
    "colours": ("the colour of {w}", "the colour that {w} has"),
    "first_letter": ("the first letter of {w}", "the first letter of the word {w}", "the letter that {w} begins with"),
    "clock_after": (
        "the time {n} after {h} o clock", "the time that is {n} after {h} o clock",
        "the time {n} later than {h} o clock",
    ),
    "clock_before": (
        "the time {n} before {h} o clock", "the time that is {n} before {h} o clock",
        "the time {n} earlier than {h} o clock",
    ),
    "month_days": ("the number of days in {m}", "the days in {m}"),
    "legs": ("the number of legs of {w}", "the number of legs that {w} has"),
}  # fmt: skip
_CLAUSES = {
    "plus": ("what {a} plus {b} is", "how much {a} and {b} are together", "what is {b} more than {a}"),
    "minus": ("what {a} minus {b} is", "how much {a} minus {b} is", "what is left when you take {b} from {a}"),
    "times": ("what {a} times {b} is", "how much {a} times {b} is", "how many {a} times {b} are"),
    "double": ("what twice {a} is", "how much twice {a} is"),
    "half": ("what half of {a} is", "how much half of {a} is", "what {a} divided by two is"),
    "larger": ("which is larger {a} or {b}", "which is bigger {a} or {b}", "what is larger {a} or {b}"),
    "smaller": ("which is smaller {a} or {b}", "which is less {a} or {b}", "what is smaller {a} or {b}"),
    "number_after": (
        "what comes after {a}", "which number comes after {a}", "what follows {a}", "what number is after {a}",
    ),
    "number_before": (
        "what comes before {a}", "which number comes before {a}", "what number is before {a}",
        "which number is just before {a}", "what comes just before {a}",
    ),
    "parity": ("is {a} even or odd", "if {a} is even or odd", "if {a} is odd or even", "what {a} is even or odd"),
    "day_after": ("what day comes after {d}", "which day follows {d}", "what day it is after {d}"),
    "day_before": ("what day comes before {d}", "which day is before {d}", "what day it is before {d}"),
    "days_after": (
        "what day comes {a} days after {d}", "which day is {a} days after {d}", "what day it is {a} days after {d}",
        "which day it will be {a} days after {d}", "what day is {a} days from {d}",
    ),
    "month_after": ("what month comes after {m}", "which month follows {m}", "what month is next after {m}"),
    "month_before": ("what month comes before {m}", "which month is before {m}", "what month is just before {m}"),
    "units": (
        "how many {small} are in {n} {large}", "how many {small} {n} {large} are",
        "how many {small} {n} {large} have",
    ),
    "capitals": ("what the capital of {c} is", "which city is the capital of {c}"),
    "opposites": ("what the opposite of {w} is", "which word is the opposite of {w}"),
    "sounds": ("what sound a {w} makes", "what noise a {w} makes"),
    "young": ("what a baby {w} is called", "what you call a baby {w}", "how a young {w} is called"),
    "colours": ("what colour {w} is", "which colour {w} has", "what colour is {w}"),
    "first_letter": ("which letter {w} begins with", "what {w} begins with"),
    "clock_after": ("what time it is {n} after {h} o clock", "which time is {n} after {h} o clock"),
    "clock_before": ("what time it is {n} before {h} o clock", "which time is {n} before {h} o clock"),
    "month_days": ("how many days {m} has", "how many days are in {m}", "how many days there are in {m}"),
    "legs": ("how many legs {w} has", "how many legs there are on {w}"),
    "continents": ("where {c} is", "where in the world {c} is", "in which part of the world {c} is"),
}  # fmt: skip


def _wordings(name: str) -> tuple[str, ...]:
    framed = [
        frame.format(phrase)
        for phrases, frames in ((_THINGS, _FOR_THINGS), (_CLAUSES, _FOR_CLAUSES))
        for phrase in phrases.get(name, ())
        for frame in frames
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
