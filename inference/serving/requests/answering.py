"""Answers over HTTP whose client may leave at any time: then the work for it stops, and its session slot is free."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, Coroutine
from typing import Any, TypeVar

from fastapi import Request
from fastapi.responses import StreamingResponse
from starlette.exceptions import HTTPException

from ..http.metrics import Metrics
from .questioner import Questioner

_STUCK_S = 20.0  # that one piece of an answer may take to be sent
_T = TypeVar("_T")


async def while_there(request: Request, work: Coroutine[Any, Any, _T], metrics: Metrics) -> _T:
    """What ``work`` returns; cancelled if the client hangs up before. (Starlette does so for streams alone.)

    Raises:
        HTTPException: nobody will read it.
    """
    working, leaving = asyncio.create_task(work), asyncio.create_task(_left(request))
    try:
        await asyncio.wait((working, leaving), return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            return working.result()
        metrics.left()
        raise HTTPException(499, "the client has left")
    finally:
        for task in (working, leaving):
            task.cancel()
        await asyncio.gather(working, leaving, return_exceptions=True)


async def _left(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


class Stream(StreamingResponse):
    """An answer as it is made. The session slot is given back whatever becomes of it, and whenever."""

    def __init__(self, content: AsyncIterable[str | bytes], asker: Questioner, media_type: str) -> None:
        super().__init__(content, media_type=media_type)
        self._asker = asker

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Send it; to a client that does not read it, no further."""

        async def sent(message: Any) -> None:
            async with asyncio.timeout(_STUCK_S):
                await send(message)

        try:
            await super().__call__(scope, receive, sent)
        finally:
            self._asker.leave()
