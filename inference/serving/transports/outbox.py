"""Events on their way to one client."""

from __future__ import annotations

import asyncio

# Events that may wait for a client that does not read, and characters of them; then it is taken for dead.
_OUTBOX, _OUTBOX_CHARS = 2_000, 64 << 20


class Outbox:
    """What is to be sent. A client that lets too much wait is cut off: there is nothing more to come.

    written: characters, so far.
    """

    def __init__(self) -> None:
        self._queue: asyncio.Queue[str] = asyncio.Queue()
        self._chars, self._full, self.written = 0, False, 0

    @property
    def empty(self) -> bool:
        """Whether all has been taken."""
        return self._queue.empty()

    def put(self, text: str) -> None:
        """One more event."""
        self.written += len(text)
        if self._full:
            return
        self._chars += len(text)
        if self._queue.qsize() >= _OUTBOX or self._chars > _OUTBOX_CHARS:
            self._full = True
            while not self._queue.empty():
                self._queue.get_nowait()
            text = ""
        self._queue.put_nowait(text)

    async def take(self) -> str:
        """The next one; "": there is none to come."""
        text = await self._queue.get()
        self._chars -= len(text)
        return text
