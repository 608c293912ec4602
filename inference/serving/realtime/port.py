"""A session in a worker, as a conversation uses it: its methods, typed; and what it has been told."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from ...session.state import SessionConfig
from ..workers.pool import Done, SessionSlot


class SessionPort:
    """The session in a slot.

    Methods without ``async`` begin something that nobody waits for; what comes next is done behind it.

    Args:
        config: that it is to begin with.
        failed: is told of what the session could not do, where nobody waits for it.

    config: that holds.
    """

    def __init__(self, slot: SessionSlot, config: SessionConfig, failed: Callable[[BaseException], None]) -> None:
        self.slot, self.config, self._failed = slot, config, failed
        self._reading: asyncio.Future[Done] | None = None  # the past

    async def open(self, manual: bool) -> None:
        """Begin; ``manual``: by push-to-talk."""
        await self.slot.call("configure", self.config)
        if manual:
            self.press(False)

    async def configure(self, config: SessionConfig) -> None:
        """Behave so from now on. Raises DuologueError: instructions or tools that do not fit; nothing has changed."""
        if config != self.config:
            await self.slot.call("configure", config)
            self.config = config

    def reconfigure(self, config: SessionConfig) -> None:
        """The same, of a config that has held before."""
        if config != self.config:
            self.config = config
            self._begin("configure", config)

    async def truncate(self, samples: int | None) -> str:
        """End the answer under way, or cut the last one there; returns the words that were heard."""
        return str((await self.slot.call("truncate", samples)).value)

    def cut(self, samples: int, then: Callable[[str], None]) -> None:
        """The same; ``then`` is called with the words."""

        def done(future: asyncio.Future[Done]) -> None:
            if not future.cancelled() and future.exception() is None:
                then(str(future.result().value))

        self._begin("truncate", samples).add_done_callback(done)

    async def discard(self) -> None:
        """Forget the turn that is being heard, or waits."""
        await self.slot.call("discard")

    def drop(self) -> None:
        """The same."""
        self._begin("discard")

    def press(self, down: bool) -> None:
        """Push-to-talk."""
        self._begin("press", down)

    def hands_free(self) -> None:
        """Find by itself where turns begin and end."""
        self._begin("hands_free")

    def respond(self) -> None:
        """Answer the turn that waits."""
        self._begin("respond")

    @property
    def reading(self) -> bool:
        """Whether it reads the past, and has not done with it."""
        return self._reading is not None

    def remember(self, past: list[tuple[str, str]], then: Callable[[], None] = lambda: None) -> None:
        """Let this be all that was said; ``then`` is called once it has been read, unless there is another by then."""
        reading = self._reading = self._begin("remember", past)

        def read(done: asyncio.Future[Done]) -> None:
            if done is self._reading:
                self._reading = None
                if not done.cancelled():
                    then()

        reading.add_done_callback(read)

    async def type(self, text: str) -> None:
        """Answer a question in writing. Raises DuologueError: no words, or too many."""
        await self.slot.call("type", text)

    async def about(self, text: str) -> None:
        """A question in writing about the sound that comes next. Raises DuologueError: as :meth:`type`."""
        await self.slot.call("about", text)

    async def results(self, calls: dict[str, Any], messages: list[dict[str, Any]]) -> None:
        """Go on with what functions returned. Raises DuologueError: as :meth:`type`."""
        await self.slot.call("results", calls, messages)

    async def speak_first(self) -> None:
        """Speak although nobody has asked anything."""
        await self.slot.call("speak_first")

    def _begin(self, method: str, *args: Any) -> asyncio.Future[Done]:
        future = self.slot.call(method, *args)
        future.add_done_callback(self._called)
        return future

    def _called(self, future: asyncio.Future[Done]) -> None:
        if not future.cancelled() and (error := future.exception()) is not None:
            self._failed(error)
