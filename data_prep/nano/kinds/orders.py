"""Drink orders, and the reply that says them back: sizes, shots, roasts, drinks, and what goes in.

The slots are those of Picovoice's speech-to-intent benchmark, of which people's recordings exist.
"""

from __future__ import annotations

import itertools

from .kind import Category, Operands, ScriptedAnswer, worded

SIZES = ("small", "medium", "large", "eight ounce", "twelve ounce", "sixteen ounce", "twenty ounce")
STRENGTHS = ("single shot", "double shot", "triple shot", "light roast", "medium roast", "dark roast")
DRINKS = (
    "coffee", "house coffee", "drip coffee", "iced coffee", "latte", "mocha", "iced mocha", "cappuccino", "americano",
    "espresso",
)  # fmt: skip
_AMOUNTS = ("", "some", "a lot of", "lots of", "a bit of", "a little bit of")
_ADDITIONS = (
    "sugar", "brown sugar", "sweetener", "milk", "whole milk", "skim milk", "soy milk", "almond milk", "cream",
)  # fmt: skip
ADDITIONS = tuple(f"{amount} {thing}".strip() for amount in _AMOUNTS for thing in _ADDITIONS)


def _order(operands: Operands) -> ScriptedAnswer:
    size, strength, drink, addition = map(str, operands)
    what = " ".join(part for part in (size, strength, drink) if part)
    whole = what + (f" with {addition}" if addition else "")
    article = "an" if what[0] in "aeiou" else "a"
    return ScriptedAnswer({"o": f"{article} {whole}"}, f"{article} {whole} coming up", whole)


_EVERY_ORDER = tuple(itertools.product(("", *SIZES), ("", *STRENGTHS), DRINKS, ("", *ADDITIONS)))
ORDERS = worded("orders", Category.ORDERS, _EVERY_ORDER, _order, 6, True)
