"""What the session remembers of a conversation, where the client changes its items."""

from __future__ import annotations

from ..protocol.items import Items, newest
from .common import Common


class Memory:
    """The items that were said, as the session knows them.

    Args:
        chars: that the session is told of, where it has to read them again.
    """

    def __init__(self, common: Common, chars: int) -> None:
        self._common, self._chars = common, chars
        self._stale = False  # the items and what the session remembers differ

    def outdate(self) -> None:
        """The session is to read the items anew before the next turn."""
        self._stale = True

    def changed(self) -> None:
        """The items are not what the session remembers."""
        self._stale = True
        self.sync()

    def sync(self) -> None:
        """Let the session read the items anew, if it has to. (A client may add hundreds: they are read once the last
        have been.)"""
        if self._common.turns.open_to_all and not self._common.port.reading:
            self.remember()

    def remember(self) -> None:
        """The same, now."""
        if self._stale and not self._common.turns.held:
            self._stale = False
            self._common.port.remember(newest(self._common.items.past(), self._chars), self.sync)

    def remember_others(self, given: Items) -> None:
        """Let the session know these items alone, for one response."""
        self._stale = True
        self._common.port.remember(newest(given.past(), self._chars))
