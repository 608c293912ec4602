"""The first kinds of questions: sums, comparison, calendar, units, facts, spelling, repeat-after-me, small talk."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from ...text.spoken import number_in_words, spelt
from ..facts import CAPITALS, COLOURS, DAYS, MONTHS, OPPOSITES, REPEAT_WORDS, SOUNDS, SPELLING_WORDS, UNIT_TABLE, YOUNG
from ..small_talk import INTENTS, OUTSIDE, Intent
from .kind import Category, Kind, Operands, ScriptedAnswer, single, worded

MAX_REPEAT = 5  # words


def _words(n: int | str) -> str:
    return number_in_words(int(n))


def _plus(ab: Operands) -> ScriptedAnswer:
    a, b, result = _words(ab[0]), _words(ab[1]), _words(int(ab[0]) + int(ab[1]))
    return ScriptedAnswer({"a": a, "b": b}, f"{a} plus {b} is {result}", result)


def _minus(ab: Operands) -> ScriptedAnswer:
    a, b, result = _words(ab[0]), _words(ab[1]), _words(int(ab[0]) - int(ab[1]))
    return ScriptedAnswer({"a": a, "b": b}, f"{a} minus {b} is {result}", result)


def _times(ab: Operands) -> ScriptedAnswer:
    a, b, result = _words(ab[0]), _words(ab[1]), _words(int(ab[0]) * int(ab[1]))
    return ScriptedAnswer({"a": a, "b": b}, f"{a} times {b} is {result}", result)


def _larger(ab: Operands) -> ScriptedAnswer:
    high, low = (_words(n) for n in sorted(map(int, ab), reverse=True))
    return ScriptedAnswer({"a": _words(ab[0]), "b": _words(ab[1])}, f"{high} is larger than {low}", f"{high} is larger")


def _smaller(ab: Operands) -> ScriptedAnswer:
    low, high = (_words(n) for n in sorted(map(int, ab)))
    return ScriptedAnswer(
        {"a": _words(ab[0]), "b": _words(ab[1])}, f"{low} is smaller than {high}", f"{low} is smaller"
    )


def _number_after(a: Operands) -> ScriptedAnswer:
    result = _words(int(a[0]) + 1)
    return ScriptedAnswer({"a": _words(a[0])}, f"{result} comes after {_words(a[0])}", f"{result} comes")


def _number_before(a: Operands) -> ScriptedAnswer:
    result = _words(int(a[0]) - 1)
    return ScriptedAnswer({"a": _words(a[0])}, f"{result} comes before {_words(a[0])}", f"{result} comes")


def _neighbour(cycle: Sequence[str], letter: str, step: int, noun: str) -> Callable[[Operands], ScriptedAnswer]:
    side = "after" if step > 0 else "before"

    def solve(operands: Operands) -> ScriptedAnswer:
        name = str(operands[0])
        result = cycle[(cycle.index(name) + step) % len(cycle)]
        return ScriptedAnswer({letter: name}, f"the {noun} {side} {name} is {result}", f"is {result}")

    return solve


def counted_on(cycle: Sequence[str], things: str, letter: str) -> Callable[[Operands], ScriptedAnswer]:
    """What comes so many things later, counted out one by one: whoever knows what follows each, and counts, can go on
    from there."""

    def solve(operands: Operands) -> ScriptedAnswer:
        number, start = int(operands[0]), str(operands[1])
        passed = [cycle[(cycle.index(start) + step) % len(cycle)] for step in range(1, number + 1)]
        counted = " ".join(f"{_words(step)} {name}" for step, name in enumerate(passed, start=1))
        reply = f"{_words(number)} {things} after {start} {counted} it is {passed[-1]}"
        return ScriptedAnswer({"a": _words(number), letter: start}, reply, f"is {passed[-1]}")

    return solve


def _units(operands: Operands) -> ScriptedAnswer:
    small, large, singular, each, _ = UNIT_TABLE[int(operands[0])]
    n, result = int(operands[1]), _words(int(operands[1]) * each)
    name = singular if n == 1 else large
    verb = "is" if n == 1 else "are"
    return ScriptedAnswer(
        {"small": small, "large": name, "n": _words(n)},
        f"{_words(n)} {name} {verb} {result} {small}",
        f"{result} {small}",
    )


def _capital(operands: Operands) -> ScriptedAnswer:
    country = str(operands[0])
    return ScriptedAnswer({"c": country}, f"the capital of {country} is {CAPITALS[country]}", CAPITALS[country])


_BOTH_WAYS = OPPOSITES | {right: left for left, right in OPPOSITES.items()}


def _opposite(operands: Operands) -> ScriptedAnswer:
    word = str(operands[0])
    return ScriptedAnswer({"w": word}, f"the opposite of {word} is {_BOTH_WAYS[word]}", f"is {_BOTH_WAYS[word]}")


def _sound(operands: Operands) -> ScriptedAnswer:
    animal = str(operands[0])
    return ScriptedAnswer({"w": animal}, f"a {animal} {SOUNDS[animal]}", SOUNDS[animal])


def _young(operands: Operands) -> ScriptedAnswer:
    animal = str(operands[0])
    return ScriptedAnswer({"w": animal}, f"a baby {animal} is called a {YOUNG[animal]}", YOUNG[animal])


def _colour(operands: Operands) -> ScriptedAnswer:
    thing = str(operands[0])
    return ScriptedAnswer({"w": thing}, f"{thing} is {COLOURS[thing]}", f"is {COLOURS[thing]}")


def _spelling(operands: Operands) -> ScriptedAnswer:
    word = str(operands[0])
    return ScriptedAnswer({"w": word}, f"{word} is spelled {spelt(word)}", spelt(word))


def some_words(rng: np.random.Generator) -> Operands:
    """Two to five words to say after somebody."""
    length = int(rng.integers(2, MAX_REPEAT + 1))
    return tuple(REPEAT_WORDS[int(at)] for at in rng.choice(len(REPEAT_WORDS), length, replace=False))


def repeated(operands: Operands) -> ScriptedAnswer:
    words = " ".join(map(str, operands))
    return ScriptedAnswer({"w": words}, words, words)


def _intent(intent: Intent) -> Callable[[Operands], ScriptedAnswer]:
    return lambda operands: ScriptedAnswer({}, intent.reply, intent.slot)


_PAIRS: tuple[Operands, ...] = tuple((a, b) for a in range(100) for b in range(100))
_UNEQUAL: tuple[Operands, ...] = tuple(pair for pair in _PAIRS if pair[0] != pair[1])


# Weights are shares of the questions in percent. A product's mirror image may be trained on (seven times eight, eight
# times seven): tables are learnt by heart. A sum's may not.
FIRST_KINDS: tuple[Kind, ...] = (
    worded("plus", Category.ARITHMETIC, _PAIRS, _plus, 14, True, True),
    worded("minus", Category.ARITHMETIC, tuple((a, b) for a in range(100) for b in range(a + 1)), _minus, 11, True),
    worded("times", Category.ARITHMETIC, tuple((a, b) for a in range(13) for b in range(13)), _times, 8, True),
    worded("larger", Category.COMPARISON, _UNEQUAL, _larger, 6, True, True),
    worded("smaller", Category.COMPARISON, _UNEQUAL, _smaller, 5, True, True),
    worded("number_after", Category.SEQUENCE, single(range(100)), _number_after, 4, True),
    worded("number_before", Category.SEQUENCE, single(range(1, 101)), _number_before, 4, True),
    worded("day_after", Category.CALENDAR, single(DAYS), _neighbour(DAYS, "d", 1, "day"), 2),
    worded("day_before", Category.CALENDAR, single(DAYS), _neighbour(DAYS, "d", -1, "day"), 2),
    worded("days_after", Category.CALENDAR, tuple((n, day) for n in range(2, 11) for day in DAYS),
          counted_on(DAYS, "days", "d"), 2, True),
    worded("month_after", Category.CALENDAR, single(MONTHS), _neighbour(MONTHS, "m", 1, "month"), 2),
    worded("month_before", Category.CALENDAR, single(MONTHS), _neighbour(MONTHS, "m", -1, "month"), 2),
    worded("units", Category.UNITS,
          tuple((row, n) for row, unit in enumerate(UNIT_TABLE) for n in range(1, unit[4] + 1)), _units, 7),
    worded("capitals", Category.CAPITALS, single(tuple(CAPITALS)), _capital, 7),
    worded("opposites", Category.KNOWLEDGE, single(tuple(_BOTH_WAYS)), _opposite, 5),
    worded("sounds", Category.KNOWLEDGE, single(tuple(SOUNDS)), _sound, 1),
    worded("young", Category.KNOWLEDGE, single(tuple(YOUNG)), _young, 1),
    worded("colours", Category.KNOWLEDGE, single(tuple(COLOURS)), _colour, 1),
    worded("spelling", Category.SPELLING, single(SPELLING_WORDS), _spelling, 5),
    worded("repeat", Category.REPEAT, some_words, repeated, 6, True),
    *(
        Kind(name=intent.name, category=Category.SMALL_TALK, templates=intent.wordings, domain=((),),
             solve=_intent(intent), weight=7 / len(INTENTS))
        for intent in INTENTS
    ),
    Kind(name="outside", category=Category.OUTSIDE, templates=OUTSIDE.wordings, domain=((),),
         solve=_intent(OUTSIDE), weight=2),
)  # fmt: skip
