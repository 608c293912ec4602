"""Drink orders, and the reply that says them back: sizes, shots, roasts, drinks, and what goes in.

The slots are those of Picovoice's speech-to-intent benchmark, of which people's recordings exist.
"""

from __future__ import annotations

from .kind import Category, Kind, Operands, ScriptedAnswer

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


ORDERS = Kind(
    name="orders",
    category=Category.ORDERS,
    domain=tuple(
        (size, strength, drink, addition)
        for size in ("", *SIZES)
        for strength in ("", *STRENGTHS)
        for drink in DRINKS
        for addition in ("", *ADDITIONS)
    ),
    solve=_order,
    weight=6,
    held_out=True,
    templates=(
        "can i have {o}", "could i have {o}", "can i get {o}", "could i get {o}", "may i have {o}", "i would like {o}",
        "i want {o}", "i will have {o}", "give me {o}", "get me {o}", "make me {o}", "can you make me {o}",
        "could you make me {o}", "please make me {o}", "i would like to order {o}", "can i order {o}",
        "let me have {o}", "i would like to have {o}", "can i please have {o}", "i will take {o}",
    ),
)  # fmt: skip
