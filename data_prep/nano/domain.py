"""All kinds of questions. What is held out of each was decided when it came in: later kinds change nothing of it."""

from __future__ import annotations

from .kinds.basics import FIRST_KINDS, repeated, some_words
from .kinds.everyday import EVERYDAY
from .kinds.follow_ups import FOLLOW_UPS
from .kinds.kind import Category, Kind
from .kinds.orders import ORDERS
from .kinds.outside import OUTSIDE_KINDS
from .practice import PRACTICE
from .wordings import REWORDED

REPEAT_MORE = Kind(
    name="repeat_more", category=Category.REPEAT, domain=some_words, solve=repeated, weight=5, held_out=True,
    templates=(
        "say out loud {w}", "say the following {w}", "say once {w}", "say it after me {w}", "say aloud {w}",
        "could you say {w}", "could you please say {w}", "can you please say {w}", "can you now say {w}",
        "could you repeat {w}", "would you say {w}", "would you please say {w}", "would you repeat {w}",
        "can you say after me {w}", "can you say the words {w}", "i want you to say {w}", "i want to hear {w}",
        "let me hear {w}", "let me hear you say {w}", "after me {w}", "say for me {w}", "tell me back {w}",
        "repeat for me {w}", "repeat what i say {w}", "can you repeat after me {w}", "repeat back to me {w}",
    ),
)  # fmt: skip

LATER_KINDS: tuple[Kind, ...] = (*EVERYDAY, ORDERS, *FOLLOW_UPS, REPEAT_MORE, *OUTSIDE_KINDS)
KINDS: tuple[Kind, ...] = (*FIRST_KINDS, *LATER_KINDS, *REWORDED)
KIND_OF = {kind.name: kind for kind in (*KINDS, *PRACTICE)}

__all__ = ["FIRST_KINDS", "KINDS", "KIND_OF", "LATER_KINDS", "PRACTICE", "REWORDED", "Category", "Kind"]
