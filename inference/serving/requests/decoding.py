"""Recordings are decoded a few at a time, in threads of their own: the threads that all else waits for stay free.

A small file may take seconds to decode. Whoever leaves before its turn costs nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from ..workers.pool import PoolFull

_THREADS = 2
_WAITING = 16  # recordings of which no session slot limits the number
_T = TypeVar("_T")


async def decode(function: Callable[..., _T], *args: Any) -> _T:
    """``function(*args)``, which decodes a recording, as soon as there is a thread for it."""
    return await asyncio.get_running_loop().run_in_executor(_POOL, function, *args)


class Decoding:
    """The same without a session slot: at most so many at a time, those that wait included."""

    def __init__(self) -> None:
        self._under_way = 0

    async def __call__(self, function: Callable[..., _T], *args: Any) -> _T:
        """As above.

        Raises:
            EngineFull: too many wait already.
        """
        if self._under_way >= _WAITING:
            raise PoolFull(f"{self._under_way} recordings are being read: try again later", 2)
        self._under_way += 1
        try:
            return await decode(function, *args)
        finally:
            self._under_way -= 1


_POOL = ThreadPoolExecutor(_THREADS, thread_name_prefix="recordings")
