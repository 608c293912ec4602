"""All kinds of questions. What is held out of each was decided when it came in: later kinds change nothing of it."""

from __future__ import annotations

from .kinds.basics import FIRST_KINDS, repeated, some_words
from .kinds.everyday import EVERYDAY
from .kinds.follow_ups import FOLLOW_UPS
from .kinds.kind import Category, Kind, worded
from .kinds.orders import ORDERS
from .kinds.outside import OUTSIDE_KINDS
from .practice import PRACTICE
from .wordings import REWORDED

REPEAT_MORE = worded("repeat_more", Category.REPEAT, some_words, repeated, 5, True)
LATER_KINDS: tuple[Kind, ...] = (*EVERYDAY, ORDERS, *FOLLOW_UPS, REPEAT_MORE, *OUTSIDE_KINDS)
KINDS: tuple[Kind, ...] = (*FIRST_KINDS, *LATER_KINDS, *REWORDED)
KIND_OF = {kind.name: kind for kind in (*KINDS, *PRACTICE)}

__all__ = ["FIRST_KINDS", "KINDS", "KIND_OF", "LATER_KINDS", "PRACTICE", "REWORDED", "Category", "Kind"]
