"""Foreign weights in our form: each importer is a pure ``convert(state_dict, config) -> (Config, state_dict)``.

An importer states how names correspond in a key table, a dictionary from regular expressions over whole foreign names
to our names (``\\1`` for groups), or to ``None`` for tensors that are knowingly dropped. Any other name is an error.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from ...model.errors import DuologueError
from ..cards.facts import Card
from ..settings import Catalogue

if TYPE_CHECKING:  # for --help, which finds the importers here
    from torch import Tensor

IMPORTERS = Catalogue("checkpoints/importers", "importer", dash=True)  # the kinds of ``duologue import``

KeyTable = dict[str, str | None]


def rename_keys(state_dict: dict[str, Tensor], table: KeyTable, source: str) -> dict[str, Tensor]:
    """The same tensors under our names; ``source`` names the foreign format in errors.

    Raises:
        DuologueError: a name that the table does not know, or two that become one.
    """
    patterns = [(re.compile(pattern), name) for pattern, name in table.items()]
    renamed: dict[str, Tensor] = {}
    for key, tensor in state_dict.items():
        found = ((match, name) for pattern, name in patterns if (match := pattern.fullmatch(key)))
        match, name = next(found, (None, None))
        if match is None:
            raise DuologueError(f"unknown tensor {key!r} {tuple(tensor.shape)}: not a part of a {source} checkpoint")
        if name is None:
            continue
        ours = match.expand(name)
        if ours in renamed:
            raise DuologueError(f"two tensors of this {source} checkpoint become {ours!r}, one of them {key!r}")
        renamed[ours] = tensor
    return renamed


def fold_weight_norm(state_dict: dict[str, Tensor]) -> dict[str, Tensor]:
    """Replace every pair ``x.weight_g``, ``x.weight_v`` by the plain ``x.weight`` = g * v / ||v||, norms over dims > 0.

    Raises:
        DuologueError: one of a pair is missing.
    """
    folded: dict[str, Tensor] = {}
    for key, tensor in state_dict.items():
        stem, _, kind = key.rpartition(".")
        if kind not in ("weight_g", "weight_v"):
            folded[key] = tensor
            continue
        other = f"{stem}.weight_{'v' if kind == 'weight_g' else 'g'}"
        if other not in state_dict:
            raise DuologueError(f"{key!r} has no {other!r} beside it: weight norm needs both")
        if kind == "weight_v":
            norm = tensor.flatten(1).norm(dim=1).view(-1, *[1] * (tensor.dim() - 1))
            folded[f"{stem}.weight"] = tensor * (state_dict[other] / norm)
    return folded


def imported_card(kind: str, source: Path) -> Card:
    """The card of a folder that an importer writes."""
    return Card(source=f"`{source.name}`, a {kind} checkpoint")
