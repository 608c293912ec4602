"""A session's frames on their way to a worker and back: what the client appends, and silence in its place.

Where a client that is being answered sends nothing, frames of silence take the place of its microphone, one each 80 ms.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable

import numpy as np

from ..protocol.items import Item
from ..workers.pool import FRAME_S, Done, SessionSlot

_AT_ONCE = 12  # frames that are handed over before others have their turn
_log = logging.getLogger(__name__)


class Pacer:
    """The frames of one session.

    Args:
        slot: where they are heard. frame: samples in one.
        due: told when the next frame of silence would be due, by time.monotonic(), says when it is; None: not at all.
        happened: is told of each frame that has been heard: what came of it, whether it was made up, and itself.
        failed: is told of what could not be heard.
    """

    def __init__(
        self,
        slot: SessionSlot,
        frame: int,
        due: Callable[[float], float | None],
        happened: Callable[[Done, bool, np.ndarray], None],
        failed: Callable[[BaseException], None],
    ) -> None:
        self._slot, self._silence, self.frame = slot, np.zeros(frame, np.float32), frame
        self._due, self._happened, self._failed = due, happened, failed
        self._submitted: list[tuple[bool, np.ndarray]] = []  # made up?
        self._last_frame = 0.0
        self._wanted = asyncio.Event()
        self._clock: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Let silence come when it is due."""
        self._clock = asyncio.create_task(self._run())

    def stop(self) -> None:
        """Let nothing more come."""
        if self._clock is not None:
            self._clock.cancel()
        self._submitted = []

    @property
    def under_way(self) -> int:
        """Frames that have not been heard yet."""
        return len(self._submitted)

    async def caught_up(self) -> None:
        """Returns once all that is under way now has been heard."""
        if self._submitted:
            await asyncio.wait([self._last])

    def wake(self) -> None:
        """A frame may be due where none was."""
        self._wanted.set()

    def push(self, frame: np.ndarray) -> None:
        """A frame (frame,) of the client's."""
        self._tick(frame, made_up=False)

    def make_up(self, frame: np.ndarray | None = None) -> None:
        """A frame that the client's time does not count; None: silence."""
        self._tick(self._silence if frame is None else frame, made_up=True)

    def _tick(self, frame: np.ndarray, made_up: bool) -> None:
        now = time.monotonic()
        late = now - (self._last_frame + FRAME_S)
        self._last_frame = now - late if made_up and 0 < late < FRAME_S else now
        self._submitted.append((made_up, frame))
        self._last = self._slot.tick(frame, self._last_frame)
        self._last.add_done_callback(self._ticked)

    def _ticked(self, future: asyncio.Future[Done]) -> None:
        if future.cancelled() or not self._submitted:
            return
        made_up, frame = self._submitted.pop(0)
        error = future.exception()
        if error is not None:
            self._failed(error)
            return
        try:
            self._happened(future.result(), made_up, frame)
        except Exception as fault:  # a fault of ours must not leave a client waiting for ever
            _log.exception("a frame's events could not be told")
            self._failed(fault)

    async def _run(self) -> None:
        while True:
            due = self._due(self._last_frame + FRAME_S)
            if due is None:
                self._wanted.clear()
                await self._wanted.wait()
            elif self._submitted:
                await asyncio.wait([self._last])
            elif (wait := due - time.monotonic()) > 0:
                await asyncio.sleep(wait)
            else:
                self.make_up()


class Feeding:
    """The sound of items on its way to a session, no more at a time than others can wait for.

    Args:
        then: is called once all of it has been handed over. failed: is told of a fault of ours.
    """

    def __init__(
        self, pacer: Pacer, items: list[Item], then: Callable[[], None], failed: Callable[[BaseException], None]
    ) -> None:
        self._pacer, self._items, self._then, self._failed = pacer, items, then, failed
        self._task = asyncio.create_task(self._run())

    def stop(self) -> None:
        """Hand over no more of it."""
        self._task.cancel()

    async def over(self) -> None:
        """Returns once it is over."""
        await asyncio.wait([self._task])

    async def _run(self) -> None:
        try:
            for item in self._items:
                waveform = await asyncio.to_thread(item.waveform)
                for i, frame in enumerate(waveform.reshape(-1, self._pacer.frame), 1):
                    self._pacer.make_up(frame)
                    if i % _AT_ONCE == 0:
                        await self._pacer.caught_up()
            self._then()
        except Exception as fault:  # it must not leave a client waiting for ever
            self._failed(fault)
