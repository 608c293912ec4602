"""Small facts of every day: the clock, doubles and halves, even and odd, legs, continents, first letters."""

from __future__ import annotations

from ...text.spoken import number_in_words
from ..facts import CAPITALS, MONTHS, SPELLING_WORDS
from .kind import Category, Kind, Operands, ScriptedAnswer, single

LEGS = {
    "spider": 8, "dog": 4, "cat": 4, "horse": 4, "cow": 4, "sheep": 4, "lion": 4, "frog": 4, "bear": 4, "goat": 4,
    "pig": 4, "bird": 2, "duck": 2, "owl": 2, "bee": 6, "ant": 6,
}  # fmt: skip
CONTINENTS = {
    "africa": ("egypt", "kenya", "morocco", "ghana", "nigeria"),
    "asia": ("turkey", "japan", "china", "india", "iran", "iraq"),
    "america": ("canada", "cuba", "peru", "chile"),
    "australia": ("australia",),
}
_CONTINENT = {country: name for name, countries in CONTINENTS.items() for country in countries}
_DAYS_IN = dict(zip(MONTHS, (31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31), strict=True))


def _word(n: int | str) -> str:
    return number_in_words(int(n))


def _hours(n: int) -> str:
    return f"{_word(n)} hour{'s' if n > 1 else ''}"


def _clock(step: int, side: str) -> Kind:
    def solve(operands: Operands) -> ScriptedAnswer:
        hours, start = int(operands[0]), int(operands[1])
        end = (start + step * hours - 1) % 12 + 1
        reply = f"{_hours(hours)} {side} {_word(start)} o clock it is {_word(end)} o clock"
        return ScriptedAnswer({"n": _hours(hours), "h": _word(start)}, reply, f"is {_word(end)} o clock")

    word = "later than" if step > 0 else "earlier than"
    return Kind(
        name=f"clock_{side}", category=Category.CLOCK, solve=solve, weight=3,
        domain=tuple((n, h) for n in range(1, 12) for h in range(1, 13)),
        templates=(
            f"what time is it {{n}} {side} {{h}} o clock", f"what is the time {{n}} {side} {{h}} o clock",
            f"what time is {{n}} {side} {{h}} o clock", f"{{n}} {side} {{h}} o clock is what time",
            f"what time will it be {{n}} {side} {{h}} o clock", f"tell me the time {{n}} {side} {{h}} o clock",
            f"which time is {{n}} {side} {{h}} o clock", f"what o clock is it {{n}} {side} {{h}}",
            f"{{n}} {side} {{h}} o clock what time is it", f"what hour is {{n}} {side} {{h}} o clock",
            f"what time is {{n}} {word} {{h}} o clock", f"which hour is it {{n}} {side} {{h}} o clock",
        ),
    )  # fmt: skip


def _double(operands: Operands) -> ScriptedAnswer:
    a, result = _word(operands[0]), _word(2 * int(operands[0]))
    return ScriptedAnswer({"a": a}, f"double {a} is {result}", result)


def _half(operands: Operands) -> ScriptedAnswer:
    a, result = _word(operands[0]), _word(int(operands[0]) // 2)
    return ScriptedAnswer({"a": a}, f"half of {a} is {result}", result)


def _parity(operands: Operands) -> ScriptedAnswer:
    a, result = _word(operands[0]), "odd" if int(operands[0]) % 2 else "even"
    return ScriptedAnswer({"a": a}, f"{a} is {result}", f"is {result}")


def _month_days(operands: Operands) -> ScriptedAnswer:
    month = str(operands[0])
    return ScriptedAnswer({"m": month}, f"{month} has {_word(_DAYS_IN[month])} days", f"{_word(_DAYS_IN[month])} days")


def _legs(operands: Operands) -> ScriptedAnswer:
    animal = str(operands[0])
    article = "an" if animal[0] in "aeiou" else "a"
    legs = f"{_word(LEGS[animal])} legs"
    return ScriptedAnswer({"w": f"{article} {animal}"}, f"{article} {animal} has {legs}", f"has {legs}")


def _continent(operands: Operands) -> ScriptedAnswer:
    country = str(operands[0])
    where = _CONTINENT.get(country, "europe")
    return ScriptedAnswer({"c": country}, f"{country} is in {where}", f"in {where}")


def _first_letter(operands: Operands) -> ScriptedAnswer:
    word = str(operands[0])
    return ScriptedAnswer({"w": word}, f"{word} begins with the letter {word[0]}", f"letter {word[0]}")


EVERYDAY = (
    _clock(1, "after"),
    _clock(-1, "before"),
    Kind(
        name="double", category=Category.ARITHMETIC, domain=single(range(1, 100)), solve=_double, weight=2.5,
        held_out=True,
        templates=(
            "what is double {a}", "what is twice {a}", "double {a}", "double the number {a}", "how much is twice {a}",
            "how much is double {a}", "what do you get when you double {a}", "please double {a}", "twice {a} is what",
            "calculate double {a}", "tell me double {a}", "what is the double of {a}",
        ),
    ),
    Kind(
        name="half", category=Category.ARITHMETIC, domain=single(range(2, 200, 2)), solve=_half, weight=2.5,
        held_out=True,
        templates=(
            "what is half of {a}", "how much is half of {a}", "half of {a}", "divide {a} by two",
            "what is {a} divided by two", "what is one half of {a}", "half of {a} is what", "calculate half of {a}",
            "tell me half of {a}", "what do you get when you halve {a}", "halve {a}", "please halve the number {a}",
        ),
    ),
    Kind(
        name="parity", category=Category.SEQUENCE, domain=single(range(100)), solve=_parity, weight=2, held_out=True,
        templates=(
            "is {a} even or odd", "is {a} odd or even", "is the number {a} even or odd", "is {a} an even or odd number",
            "is {a} an odd or even number", "tell me if {a} is even or odd", "{a} is it even or odd",
            "is {a} an even number or an odd one", "even or odd {a}", "odd or even {a}",
        ),
    ),
    Kind(
        name="month_days", category=Category.CALENDAR, domain=single(MONTHS), solve=_month_days, weight=2,
        templates=(
            "how many days does {m} have", "how many days are in {m}", "how many days are there in {m}",
            "how long is {m} in days", "how many days has {m}", "what number of days does {m} have",
            "how many days in {m}", "tell me how many days {m} has", "what number of days are in {m}",
            "tell me the days in {m}",
        ),
    ),
    Kind(
        name="legs", category=Category.KNOWLEDGE, domain=single(tuple(LEGS)), solve=_legs, weight=1.5,
        templates=(
            "how many legs does {w} have", "how many legs has {w}", "how many legs are there on {w}",
            "tell me how many legs {w} has", "on how many legs does {w} walk", "how many legs does {w} walk on",
            "what number of legs does {w} have", "how many legs do you see on {w}", "count the legs of {w}",
            "what number of legs are on {w}",
        ),
    ),
    Kind(
        name="continents", category=Category.KNOWLEDGE, domain=single(tuple(CAPITALS)), solve=_continent, weight=3.5,
        templates=(
            "where is {c}", "where in the world is {c}", "which continent is {c} in", "what continent is {c} in",
            "on which continent is {c}", "in which continent is {c}", "what is the continent of {c}",
            "tell me where {c} is", "tell me the continent of {c}", "name the continent of {c}",
            "which continent does {c} belong to", "what part of the world is {c} in",
        ),
    ),
    Kind(
        name="first_letter", category=Category.SPELLING, domain=single(SPELLING_WORDS), solve=_first_letter, weight=2.5,
        templates=(
            "what is the first letter of {w}", "which letter does {w} begin with", "what letter does {w} begin with",
            "with which letter does {w} begin", "what does {w} begin with", "which letter comes first in {w}",
            "what letter comes first in {w}", "what letter does {w} start with", "which letter does {w} start with",
            "tell me the first letter of {w}", "name the first letter of {w}", "give me the first letter of {w}",
        ),
    ),
)  # fmt: skip
