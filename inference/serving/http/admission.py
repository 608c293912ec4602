"""Admission control: who gets a session slot of the pool, and who waits for one.

A conversation gets a slot at once or is refused; a request over HTTP waits in a queue. Whose key has the fewest slots
comes first, then who came first. With several API keys none may take all slots. Who is refused is told when to ask
again, from how long those before it have taken.
"""

from __future__ import annotations

import asyncio
import itertools
import math
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from ...session.state import SessionConfig
from ..protocol.errors import RequestError
from ..workers.pool import PoolFull, SessionSlot, WorkerPool
from .limits import Limits

_LOOK_S = 0.1  # from one look whether there is room again to the next
_UNKNOWN_S, _LONGEST_S = 5, 600  # when to ask again: as long as nothing is known; at most


@dataclass(eq=False)
class _Waiting:
    key: int
    number: int
    slot: asyncio.Future[SessionSlot]


@dataclass
class _Kind:
    """Conversations, or requests: those inside, since when, and how long the last ones took (s)."""

    inside: dict[SessionSlot, float] = field(default_factory=dict)
    took: deque[float] = field(default_factory=lambda: deque(maxlen=32))

    def usual_s(self) -> float | None:
        """How long one takes; None: nothing is known."""
        ages = [time.monotonic() - since for since in self.inside.values()]
        return sum([*self.took, *ages]) / (len(self.took) + len(ages)) if self.took else max(ages, default=None)


class Admission:
    """The session slots of one worker pool.

    Args:
        per_key: slots of one API key; None: with several keys all but one, otherwise all. keys: how many there are.
        waited: is told how long a request waited for its slot (s).
    """

    def __init__(
        self,
        pool: WorkerPool,
        limits: Limits,
        per_key: int | None,
        keys: int,
        waited: Callable[[float], None] = lambda seconds: None,
    ) -> None:
        self._pool, self._limits, self._waited = pool, limits, waited
        self._per_key, self._keys = per_key, keys
        self._key_of: dict[SessionSlot, int] = {}
        self._conversations, self._requests = _Kind(), _Kind()
        self._queue: list[_Waiting] = []
        self._numbers = itertools.count()
        self._looking: asyncio.TimerHandle | None = None
        pool.on_leave = self._left

    @property
    def waiting(self) -> int:
        """Requests in the queue."""
        return len(self._queue)

    def sit(self, key: int, config: SessionConfig | None = None) -> SessionSlot:
        """A slot now; for a conversation, or without a config for a request.

        Raises:
            RequestError: the key has as many as it may. EngineFull: there is none.
        """
        most = self._most()
        if most is not None and self._has(key) >= most:
            error = RequestError(
                f"this API key has {most} session slots already, which is its part", "rate_limit_exceeded", status=429
            )
            error.retry_s = self._retry_s(config is None)
            raise error
        try:
            slot = self._pool.sit(config)
        except PoolFull as full:
            raise PoolFull(str(full), self._retry_s(config is None)) from None
        self._key_of[slot] = key
        (self._requests if config is None else self._conversations).inside[slot] = time.monotonic()
        return slot

    async def wait(self, key: int) -> SessionSlot:
        """A slot for a request, as soon as there is one and nobody is before it.

        Raises:
            EngineFull: too many wait already, or it has waited for too long.
        """
        if not self._queue:
            try:
                slot = self.sit(key)
                self._waited(0.0)
                return slot
            except (RequestError, PoolFull):
                pass
        most, same = self._limits.queue, sum(each.key == key for each in self._queue)
        if len(self._queue) >= most or (self._keys > 1 and same >= max(1, most // 2)):
            raise PoolFull(f"{len(self._queue)} requests wait already: try again later", self._retry_s(True))
        waiting = _Waiting(key, next(self._numbers), asyncio.get_running_loop().create_future())
        self._queue.append(waiting)
        came = time.monotonic()
        try:
            self._serve_queue()
            async with asyncio.timeout(self._limits.wait_s):
                slot = await waiting.slot
        except BaseException as error:
            if waiting.slot.done() and not waiting.slot.cancelled():  # it came too late
                waiting.slot.result().leave()
            if not isinstance(error, TimeoutError):
                raise
            waited = f"no session slot has become free within {self._limits.wait_s:g} s: try again later"
            raise PoolFull(waited, self._retry_s(True)) from None
        finally:
            if waiting in self._queue:
                self._queue.remove(waiting)
        self._waited(time.monotonic() - came)
        return slot

    def _most(self) -> int | None:
        if self._per_key is not None:
            return self._per_key
        return max(1, self._pool.room() - 1) if self._keys > 1 else None

    def _has(self, key: int) -> int:
        return sum(its == key for its in self._key_of.values())

    def _left(self, slot: SessionSlot) -> None:
        self._key_of.pop(slot, None)
        for kind in (self._conversations, self._requests):
            if (since := kind.inside.pop(slot, None)) is not None:
                kind.took.append(time.monotonic() - since)
        self._serve_queue()

    def _serve_queue(self) -> None:
        """Give slots that are free to those who wait, and look again soon where some are left."""
        while self._queue:
            for waiting in sorted(self._queue, key=lambda each: (self._has(each.key), each.number)):
                try:
                    slot = self.sit(waiting.key)
                except RequestError:  # another key may still have one
                    continue
                except PoolFull:
                    self._look_again()
                    return
                self._queue.remove(waiting)
                if waiting.slot.done():
                    slot.leave()
                else:
                    waiting.slot.set_result(slot)
                break
            else:
                self._look_again()
                return

    def _look_again(self) -> None:
        if self._looking is None:
            self._looking = asyncio.get_running_loop().call_later(_LOOK_S, self._look)

    def _look(self) -> None:
        self._looking = None
        self._serve_queue()

    def _retry_s(self, request: bool) -> int:
        """When a slot is to be expected for one who comes now, seconds."""
        kind = self._requests if request and self._requests.inside else self._conversations
        if not kind.inside and not kind.took:
            kind = self._requests
        usual = kind.usual_s()
        if usual is None:
            return _UNKNOWN_S
        before = len(self._queue) + 1 if request else 1
        if kind is self._conversations and kind.inside:  # the one that has lasted longest ends first
            usual = max(1.0, usual - (time.monotonic() - min(kind.inside.values())))
            return min(_LONGEST_S, math.ceil(usual))
        return min(_LONGEST_S, max(1, math.ceil(before * usual / max(1, len(kind.inside)))))
