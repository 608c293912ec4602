"""What is said and needs no answer: statements, back-channels; and what is to be obeyed without one: "stop".

    aside(seed, index, split) -> (text, turn state)    the same one whenever it is asked for

The duplex monitor learns from these to tell them from questions. One statement in five belongs to the test and one in
twenty to development, by its words; the scenes of `duologue evaluate duplex` have other texts again (see scenes.py).
Their parts are in ``tables/asides.toml``.

Source: VITA (arXiv 2408.05211), section 3.3.1: noise audio is speech that needs no answer.
"""

from __future__ import annotations

import re

import numpy as np

from ..datasets.splits import Split, operand_split
from ..text.spoken import number_in_words
from .table import table

_TABLE = table("asides")
BACK_CHANNELS: tuple[str, ...] = _TABLE["back_channels"]
STOPS: tuple[str, ...] = _TABLE["stops"]
_SLOTS: dict[str, tuple[str, ...]] = {
    **_TABLE["slots"], "who": _TABLE["who"], "what": _TABLE["what"], "when": ("", *_TABLE["when"]),
    "hour": tuple(map(number_in_words, range(1, 13))),
}  # fmt: skip

_STATEMENTS, _BACK_CHANNELS = 0.7, 0.18  # shares; the rest is to be obeyed
_REMARK_FRACTION = 0.5  # of the statements


def _one(rng: np.random.Generator, among: tuple[str, ...]) -> str:
    return among[int(rng.integers(len(among)))]


def _of(rng: np.random.Generator, part: str) -> str:
    return _one(rng, _TABLE[part])


def _remark(rng: np.random.Generator) -> str:
    template = _of(rng, "remarks")
    if rng.random() < 0.2:
        template = "{who} {said} " + template
    if rng.random() < 0.2:
        template += " {then}"
    return re.sub(r"\{([^}]+)\}", lambda slot: _one(rng, _SLOTS[slot[1]]), template)


def _statement(rng: np.random.Generator) -> str:
    if rng.random() < _REMARK_FRACTION:
        return " ".join((_of(rng, "think") + _remark(rng)).split())
    choice = rng.random()
    when = "" if rng.random() < 0.1 else _of(rng, "when")
    if choice < 0.2:
        number = number_in_words(int(rng.integers(2, 13 if rng.random() < 0.5 else 100)))
        words = _of(rng, "number").format(number, when)
    elif choice < 0.6:
        words = f"{_of(rng, 'who')} {_of(rng, 'did')} {_of(rng, 'what')} {when}"
    elif choice < 0.7:
        words = f"{_of(rng, 'who')} {_of(rng, 'be')} {when}"
    elif choice < 0.8:
        words = f"{_of(rng, 'who')} {_of(rng, 'being')} {_of(rng, 'when')}"
    elif choice < 0.9:
        words = f"{_of(rng, 'what')} {_of(rng, 'being')} {_of(rng, 'how')}"
    else:
        words = _of(rng, "it").format(when)
    return " ".join((_of(rng, "think") + words).split())


def aside(seed: int, index: int, split: Split | str = Split.TRAIN) -> tuple[str, str]:
    """Words, and what a monitor should make of them once they are said: "noise", or "query" for a stop."""
    split = Split(split)
    rng = np.random.default_rng([seed, index, 11 + tuple(Split).index(split)])
    choice = rng.random()
    if choice >= _STATEMENTS:
        few = BACK_CHANNELS if choice < _STATEMENTS + _BACK_CHANNELS else STOPS
        return _one(rng, few), "noise" if few is BACK_CHANNELS else "query"
    text = _statement(rng)
    while operand_split(f"aside {text}") is not split:
        text = _statement(rng)
    return text, "noise"
