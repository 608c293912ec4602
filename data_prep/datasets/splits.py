"""Which wordings and operands are trained on, and which are kept for development and for the test.

Everything is decided by SHA-256 of the thing itself, so it holds on any machine, in any Python and in any order.
(Python's own hash() changes with every process.)
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from enum import StrEnum

DEV_OPERANDS, TEST_OPERANDS = 0.05, 0.20  # shares of the operands of a kind
TEST_TEMPLATES = 10  # one template in ten


class Split(StrEnum):
    TRAIN = "train"
    DEV = "dev"
    TEST = "test"


def stable_fraction(key: str) -> float:
    """A number in [0, 1) that depends on nothing but `key`, which may be a file's name that is no UTF-8."""
    return int.from_bytes(hashlib.sha256(key.encode("utf-8", "surrogatepass")).digest()[:8], "big") / 2**64


def operand_split(key: str) -> Split:
    """One key in five is for the test, one in twenty for development."""
    fraction = stable_fraction("operands " + key)
    if fraction < TEST_OPERANDS:
        return Split.TEST
    return Split.DEV if fraction < TEST_OPERANDS + DEV_OPERANDS else Split.TRAIN


def template_splits(
    pools: Mapping[str, Sequence[str]], single_out: Collection[str] = ()
) -> dict[str, dict[str, Split]]:
    """{kind: {template: split}} for {kind: templates}: one in ten of each kind for the test, half that for development.

    Kinds in `single_out` (the intents of small talk, each with a few wordings) share their quota: one in ten of all
    together, at most one of each. A template is held out only if every word of it also occurs in two others that are
    not, so that the test asks for new wordings, not for new words.
    """
    words = Counter(word for templates in pools.values() for template in templates for word in set(template.split()))
    splits = {kind: dict.fromkeys(templates, Split.TRAIN) for kind, templates in pools.items()}

    def hold_out(kinds: Sequence[str], split: Split, quota: int, most_each: int) -> None:
        candidates = [(kind, template) for kind in kinds for template in pools[kind]]
        taken: Counter[str] = Counter()
        for kind, template in sorted(candidates, key=lambda pair: stable_fraction("template {} {}".format(*pair))):
            parts = set(template.split())
            free = splits[kind][template] is Split.TRAIN and taken[kind] < most_each
            if sum(taken.values()) < quota and free and all(words[word] > 2 for word in parts):
                splits[kind][template] = split
                taken[kind] += 1
                words.subtract(parts)

    shared = [kind for kind in pools if kind in single_out]
    total = sum(len(pools[kind]) for kind in shared)
    for split, per in ((Split.TEST, TEST_TEMPLATES), (Split.DEV, 2 * TEST_TEMPLATES)):
        for kind in pools:
            if kind not in single_out:
                quota = max(1, round(len(pools[kind]) / per))
                hold_out([kind], split, quota, quota)
        hold_out(shared, split, round(total / per), 1)
    return splits
