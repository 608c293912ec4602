"""The card of a model that went on from another: what that one was trained on, and how, comes first.

Whoever trains a checkpoint further seldom has the data sets and runs that made it; its card has them.
"""

from __future__ import annotations

import re

from ...model.errors import DuologueError

SECTIONS = ("Data", "Training", "Licence")
NOTHING = "Not recorded."  # what a section without facts says
_HOURS = re.compile(r"Training took ([\d.]+) hours in all(?:, (\d+) of \d+ stages not counted)?\.")


def behind(before: str, card: str) -> str:
    """The card with the rows of ``before``, the card of the model that training began with, ahead of its own.

    Tables with the same columns and lists are joined, hours are summed; a row that both have stands there once.

    Raises:
        DuologueError: ``before`` has no such sections.
    """
    for name in SECTIONS:
        old, new = _section(before, name), _section(card, name)
        if old is None or new is None:
            raise DuologueError(f"the card of the model before has no section {name}: it must be a README.md of a card")
        card = card.replace(f"## {name}\n\n{new}", f"## {name}\n\n{_joined(old, new)}", 1)
    return card


def _section(card: str, name: str) -> str | None:
    found = re.search(rf"^## {name}\n\n(.*?)(?=\n\n## |\Z)", card, re.DOTALL | re.MULTILINE)
    return found and found[1]


def _joined(old: str, new: str) -> str:
    blocks = {_kind(block): block for block in old.split("\n\n")}
    for block in new.split("\n\n") if new != NOTHING else ():
        kind = _kind(block)
        earlier = blocks.get(kind, "")
        known = set(earlier.split("\n"))
        if kind == "hours":
            blocks[kind] = f"{earlier} {block}".strip()
        elif kind in ("synthesisers", "licence"):  # a sentence: that of whoever names more
            blocks[kind] = max(earlier, block, key=len)
        else:
            blocks[kind] = "\n".join([earlier, *(line for line in block.split("\n") if line not in known)]).strip()
    if "hours" in blocks and (took := _HOURS.findall(blocks["hours"])):
        stages = next(block for kind, block in blocks.items() if kind.startswith("| stage |")).count("\n") - 1
        missing = sum(int(count or 0) for _, count in took)
        total = f"Training took {sum(float(hours) for hours, _ in took):.1f} hours in all"
        blocks["hours"] = total + (f", {missing} of {stages} stages not counted." if missing else ".")
    return "\n\n".join(blocks.values())


def _kind(block: str) -> str:
    """By what a block of one card is known in another: a table by its columns."""
    beginnings = {"- ": "list", "Training took": "hours", "Synthetic speech": "synthesisers", "The weights": "licence"}
    for beginning, kind in beginnings.items():
        if block.startswith(beginning):
            return kind
    return block.partition("\n")[0]
