"""More ways of asking what the first kinds ask: the more of them a model has met, the better it takes a new one.

Every word of them is one of the vocabulary already. The operands held out are those of the kind itself.
"""

from __future__ import annotations

from dataclasses import replace

from .kinds.basics import FIRST_KINDS
from .kinds.everyday import EVERYDAY
from .kinds.kind import Category, Kind
from .table import table

_MORE: dict[str, tuple[str, ...]] = table("wordings")["more"]  # by kind


def _asked_otherwise(kind: Kind) -> Kind:
    fraction = 1 if kind.category is Category.SMALL_TALK else 0.5
    name, templates = f"{kind.name}_more", _MORE[kind.name]
    return replace(kind, name=name, templates=templates, weight=fraction * kind.weight, held_as=kind.key)


REWORDED = tuple(_asked_otherwise(kind) for kind in (*FIRST_KINDS, *EVERYDAY) if kind.name in _MORE)
