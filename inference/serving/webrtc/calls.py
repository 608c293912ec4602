"""The calls that are going on."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

from ..http.limits import Limits
from ..http.metrics import CallMetrics
from ..protocol.errors import RequestError
from ..protocol.items import new_id
from ..realtime.realtime import RealtimeSession
from ..transports.outbox import Outbox
from ..transports.transport import End, Transport
from .ice import ice_server
from .offer import checked
from .peer import Peer

_CONNECT_S = 20.0  # from the answer to the connection
_CLOSE_S = 5.0  # that closing may take
_AGAIN_S = 5  # to try again after, where there are as many calls as may be
_log = logging.getLogger(__name__)


class Sessions(Protocol):
    """What gives sessions, and serves them."""

    sessions: set[RealtimeSession]

    def begin(self, key: int, plays: bool) -> tuple[RealtimeSession, Outbox]:
        """A session in a slot of its own, and its events. Raises DuologueError: there is none."""

    async def serve(self, transport: Transport, session: RealtimeSession, outbox: Outbox) -> End:
        """It, until it ends."""


@dataclass(eq=False)
class Call:
    """One call. key: the number of the API key that it was opened with."""

    key: int
    session: RealtimeSession
    outbox: Outbox
    peer: Peer
    first: dict[str, Any]
    hung_up: bool = False
    began: float = field(default_factory=time.monotonic)


class Calls:
    """All of them.

    Args:
        ice_servers: STUN and TURN servers, by their URLs. metrics: what is counted of calls.

    Raises:
        DuologueError: one of the URLs is none.
    """

    def __init__(self, sessions: Sessions, limits: Limits, ice_servers: tuple[str, ...], metrics: CallMetrics) -> None:
        self._sessions, self._limits, self._metrics = sessions, limits, metrics
        self._ice_servers = [ice_server(url) for url in ice_servers]
        self._calls: dict[str, Call] = {}
        self._under_way = 0  # those that are being set up or closed included
        self._tasks: set[asyncio.Task[None]] = set()

    async def open(self, key: int, first: Callable[[], dict[str, Any]], sdp: str) -> tuple[str, str]:
        """Answer an offer; returns the call's id and the SDP answer. ``first``: gives what its session begins with, as
        in ``session.update``.

        Raises:
            DuologueError: the offer cannot be answered, or there is no room for another call.
        """
        if self._under_way >= self._limits.calls:
            what = f"{self._under_way} calls are under way, as many as may be: try again later"
            error = RequestError(what, "server_overloaded", status=503)
            error.retry_s = _AGAIN_S
            raise error
        self._under_way += 1
        try:
            offer, change = checked(sdp, bool(self._ice_servers)), first()
            session, outbox = self._sessions.begin(key, True)
            output = session.conversation.output
            assert output is not None
            peer = Peer(self._ice_servers, session.hear, output.take, self._metrics.sound)
            call = Call(key, session, outbox, peer, change)
            try:
                answer = await peer.answer(offer)
                if "a=candidate:" not in answer:
                    what = "this machine has no network address that a call could be sent to"
                    raise RequestError(what, "server_error", status=503)
            except BaseException:
                session.close()
                await peer.close()
                raise
        except BaseException:
            self._under_way -= 1
            raise
        name = new_id("rtc")
        self._calls[name] = call
        task = asyncio.create_task(self._run(name, call))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return name, answer

    def hang_up(self, name: str, key: int) -> None:
        """End one.

        Raises:
            RequestError: there is none of that name that was opened with this key.
        """
        call = self._calls.get(name)
        if call is None or call.key != key:
            raise RequestError(f"there is no call {name[:80]!r}", "call_not_found", "call_id", 404)
        call.hung_up = True
        call.peer.hang_up()

    async def stop(self) -> None:
        """End all."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _run(self, name: str, call: Call) -> None:
        self._metrics.began()
        self._sessions.sessions.add(call.session)
        end = End.SHUTDOWN.value
        try:
            end = await self._serve(call)
        except Exception:
            end = "failed"
            _log.exception("a call ended by a fault")
        finally:
            self._sessions.sessions.discard(call.session)
            del self._calls[name]
            call.session.close()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_CLOSE_S):
                    await call.peer.close()
            self._under_way -= 1
            self._metrics.ended(End.HUNG_UP.value if call.hung_up else end)

    async def _serve(self, call: Call) -> str:
        """Until it ends; returns how."""
        peer = call.peer
        waiting = [asyncio.create_task(each.wait()) for each in (peer.connected, peer.gone, call.session.closed)]
        try:
            await asyncio.wait(waiting, timeout=_CONNECT_S, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in waiting:
                task.cancel()
        if not peer.connected.is_set() or peer.gone.is_set():
            return "unconnected"
        self._metrics.connected(time.monotonic() - call.began)
        await call.session.open(call.first)
        return (await self._sessions.serve(peer, call.session, call.outbox)).value
