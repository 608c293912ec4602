"""Small facts of every day: the clock, doubles and halves, even and odd, legs, continents, first letters."""

from __future__ import annotations

from ...text.spoken import number_in_words
from ..facts import CAPITALS, CONTINENTS, LEGS, MONTHS, SPELLING_WORDS
from .kind import Category, Kind, Operands, ScriptedAnswer, single, worded

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
    worded("double", Category.ARITHMETIC, single(range(1, 100)), _double, 2.5, True),
    worded("half", Category.ARITHMETIC, single(range(2, 200, 2)), _half, 2.5, True),
    worded("parity", Category.SEQUENCE, single(range(100)), _parity, 2, True),
    worded("month_days", Category.CALENDAR, single(MONTHS), _month_days, 2),
    worded("legs", Category.KNOWLEDGE, single(tuple(LEGS)), _legs, 1.5),
    worded("continents", Category.KNOWLEDGE, single(tuple(CAPITALS)), _continent, 3.5),
    worded("first_letter", Category.SPELLING, single(SPELLING_WORDS), _first_letter, 2.5),
)
