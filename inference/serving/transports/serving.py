"""One Realtime session over one transport, until one of them ends."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable

from ..http.access import AccessConfig
from ..http.limits import Limits, Throttle
from ..protocol.errors import RequestError
from ..realtime.realtime import RealtimeSession
from .outbox import Outbox
from .transport import End, Gone, TooFast, TooLarge, Transport

_STUCK_S = 20.0  # that one event may take to be sent
_LAST_S = 2.0  # that the last events may take
_log = logging.getLogger(__name__)


async def serve(
    transport: Transport,
    session: RealtimeSession,
    outbox: Outbox,
    access: AccessConfig,
    limits: Limits,
    draining: Callable[[], bool],
) -> End:
    """Until one of: the client goes, does not read, sends too much; the session fails or is over; we shut down."""
    reading = asyncio.create_task(_read(transport, session, outbox, access, limits))
    writing = asyncio.create_task(_write(transport, outbox))
    closing = asyncio.create_task(session.closed.wait())
    idling = asyncio.create_task(session.idle())
    tasks = (reading, writing, closing, idling)
    try:
        async with asyncio.timeout(access.session_s):
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        end = End.SHUTDOWN if draining() else End.UNREAD
        if idling.done() and not (reading.done() or writing.done() or closing.done()):
            minutes = limits.idle_s / 60
            session.error(
                RequestError(f"no audio and no event has come for {minutes:g} minutes", "session_idle_timeout")
            )
            end = End.IDLE
    except TimeoutError:
        session.error(RequestError("the session has lasted as long as it may", "session_expired"))
        end = End.EXPIRED
    if reading.done() and not reading.cancelled() and reading.exception() is None:
        end = reading.result()
    if not writing.done() and end is not End.LEFT:  # what was said last is still sent
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_LAST_S):
                while not outbox.empty:
                    await asyncio.sleep(0.01)
    for task in tasks:
        task.cancel()
    for result in await asyncio.gather(*tasks, return_exceptions=True):
        if isinstance(result, Exception) and not isinstance(result, (Gone, TimeoutError, RuntimeError)):
            _log.error("a conversation ended by a fault", exc_info=result)
    if end is not End.LEFT:
        with contextlib.suppress(Gone, TimeoutError):
            async with asyncio.timeout(_LAST_S):
                await transport.close(end)
    return end


async def _read(
    transport: Transport, session: RealtimeSession, outbox: Outbox, access: AccessConfig, limits: Limits
) -> End:
    """The client's messages; returns how they ended."""
    per_s, throttle = access.messages_per_s, Throttle(limits.burst_bytes, limits.bytes_per_s)
    messages = Throttle(10 * per_s, per_s)
    while True:
        try:
            message = await transport.receive()
            if messages.wait_s(1):
                raise TooFast
        except Gone:
            return End.LEFT
        except TooLarge:
            return End.TOO_LARGE
        except TooFast:
            session.error(RequestError("messages come too fast", "rate_limit_exceeded", status=429))
            return End.TOO_FAST
        if isinstance(message, bytes):
            session.error(RequestError("an event is a text message of JSON, not a binary one", "invalid_json"))
        elif len(message) > access.message_bytes:  # where the transport lets it pass
            return End.TOO_LARGE
        else:
            before = outbox.written
            await session.handle(message)
            if (wait_s := throttle.wait_s(len(message) + outbox.written - before)) > 0:
                await asyncio.sleep(wait_s)


async def _write(transport: Transport, outbox: Outbox) -> None:
    while text := await outbox.take():
        async with asyncio.timeout(_STUCK_S):
            await transport.send(text)
