"""What a Realtime session needs of whatever carries its messages."""

from __future__ import annotations

from enum import Enum
from typing import Protocol


class End(Enum):
    """How a session ended."""

    LEFT = "left"  # the client is gone
    HUNG_UP = "hung_up"  # its server has ended it
    UNREAD = "unread"  # the client does not read what it is sent, or the session has failed
    IDLE = "idle"  # nothing has come for too long
    EXPIRED = "expired"  # it has lasted as long as it may
    TOO_FAST = "too_fast"  # messages come too fast
    TOO_LARGE = "too_large"  # a message is too large
    SHUTDOWN = "shutdown"  # the server shuts down


class Gone(Exception):
    """The client is gone."""


class TooFast(Exception):
    """The client sends more than can be taken in."""


class TooLarge(Exception):
    """A message of the client's is larger than can be taken in."""


class Transport(Protocol):
    """Carries messages both ways."""

    async def receive(self) -> str | bytes:
        """The client's next message. Raises Gone, TooFast, TooLarge."""

    async def send(self, text: str) -> None:
        """One event for the client, once there is room for it. Raises Gone."""

    async def close(self, end: End) -> None:
        """There is nothing more to come."""
