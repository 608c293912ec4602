"""What comes on a connection, handed on little by little, so that nothing that one client sends holds up the others.

The event loop hands over up to 256 KiB at a time. That may be 40,000 chunks of a body or frames of a WebSocket, each of
which is read in Python: all others would wait for half a second to two seconds.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

_PIECE = 2_048  # bytes: some hundred of the smallest chunks or frames, 10 ms
AT_ONCE_S = 0.005  # after which it is the others' turn


class Feeder:
    """The bytes of one connection, in pieces.

    Args:
        take: what they are handed to. paused: whether it wants nothing more to be read for now.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        transport: asyncio.Transport,
        take: Callable[[bytes], None],
        paused: Callable[[], bool],
    ) -> None:
        self._loop, self._transport, self._take, self._paused = loop, transport, take, paused
        self._rest, self._waits = b"", False

    def put(self, data: bytes) -> None:
        """More has come."""
        self._rest += data
        if not self._waits:
            self._go_on()

    def _go_on(self) -> None:
        self._waits, data, at, until = False, self._rest, 0, self._loop.time() + AT_ONCE_S
        while at < len(data) and not self._transport.is_closing():
            self._take(data[at : at + _PIECE])
            at += _PIECE
            if self._loop.time() >= until:
                break
        self._rest = b"" if self._transport.is_closing() else data[at:]
        if self._rest:
            self._waits = True
            self._transport.pause_reading()
            self._loop.call_soon(self._go_on)
        elif not self._paused():
            self._transport.resume_reading()
