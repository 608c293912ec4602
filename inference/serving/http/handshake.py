"""Connections that keep a server busy without using it: uvicorn waits for them for ever, this does not.

A client has HEADERS_S from connecting, and for each later request from its first byte, until the headers are complete,
those of a WebSocket's handshake too. The body may come as slowly as it likes, but not with gaps of BODY_S. Who reads
nothing of an answer for UNREAD_S is gone. While many connections are without complete headers, whoever has been longest
in that state is closed.
"""
# pyright: reportAttributeAccessIssue=false
# uvicorn chooses the class that PatientProtocol extends when it is imported.

from __future__ import annotations

import asyncio
from asyncio import constants
from typing import Any, cast

from uvicorn.protocols.http.auto import AutoHTTPProtocol
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.frames import Frame

from .feeding import Feeder
from .limits import Throttle

HEADERS_S = 10.0
BODY_S = 60.0
UNREAD_S = 30.0
MOST = 512  # connections whose headers are not complete
FRAMES_PER_S = 400.0  # of a WebSocket, besides those that begin a message, on average over ten seconds
_waiting: dict[PatientProtocol, None] = {}  # the oldest first


constants.SSL_HANDSHAKE_TIMEOUT = HEADERS_S  # uvicorn passes none on, and the usual is a minute


class _Unread(asyncio.Protocol):
    """A client that reads nothing for UNREAD_S is gone."""

    loop: asyncio.AbstractEventLoop
    transport: Any
    _unread: asyncio.TimerHandle | None = None

    def connection_lost(self, exc: Exception | None) -> None:
        """It is gone."""
        _stop(self._unread)
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        """It does not read as fast as we write."""
        super().pause_writing()
        self._unread = self.loop.call_later(UNREAD_S, self.transport.abort)

    def resume_writing(self) -> None:
        """It has read."""
        _stop(self._unread)
        super().resume_writing()


class PatientProtocol(_Unread, AutoHTTPProtocol):  # type: ignore[misc, valid-type]
    """uvicorn's protocol with a limit to its patience."""

    _timer: asyncio.TimerHandle | None = None  # for headers, or more of a body

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A client has connected."""
        super().connection_made(transport)
        self._feeder = Feeder(self.loop, self.transport, self._take, lambda: self.flow.read_paused)
        self._wait()

    def data_received(self, data: bytes) -> None:
        """It has sent something."""
        self._feeder.put(data)

    def connection_lost(self, exc: Exception | None) -> None:
        """It is gone."""
        self._stop_waiting()
        super().connection_lost(exc)

    def _take(self, data: bytes) -> None:
        if self.transport.get_protocol() is not self:
            return  # it is a WebSocket, and what came before the handshake was answered is nothing that we asked for
        before = self.cycle
        super().data_received(data)
        if self.transport.get_protocol() is not self:
            self._stop_waiting()
        elif self.cycle is not None and not self.cycle.response_complete:
            self._stop_waiting()
            if self.cycle.more_body and not self.transport.is_closing():
                self._timer = self.loop.call_later(BODY_S, self._give_up)
        elif self.cycle is not before:
            self._stop_waiting()
        else:
            self._wait()

    def _wait(self) -> None:
        if self not in _waiting and not self.transport.is_closing():
            self._stop_waiting()
            self._timer = self.loop.call_later(HEADERS_S, self._give_up)
            _waiting[self] = None
            if len(_waiting) > MOST:
                next(iter(_waiting))._give_up()

    def _stop_waiting(self) -> None:
        _stop(self._timer)
        self._timer = None
        _waiting.pop(self, None)

    def _give_up(self) -> None:
        self._stop_waiting()
        cast(Any, self.transport).abort()


class PatientWebSocket(_Unread, WebSocketsSansIOProtocol):
    """The same of a WebSocket, and a limit to frames that are no messages: pings, pongs and fragments."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The handshake is about to come, whole."""
        super().connection_made(transport)
        self._frames = Throttle(10 * FRAMES_PER_S, FRAMES_PER_S)
        self._feeder = Feeder(self.loop, self.transport, super().data_received, lambda: self.read_paused)

    def data_received(self, data: bytes) -> None:
        """The handshake, and then frames."""
        if self.handshake_initiated:
            self._feeder.put(data)
            return
        super().data_received(data)
        if not self.handshake_initiated:  # such as one with a body: websockets ignores it from then on
            self.transport.abort()

    def handle_ping(self) -> None:
        """Answered, unless it does not read the answers."""
        if not self._may_come():
            return
        if self.writable.is_set():
            super().handle_ping()
        else:
            self.conn.data_to_send()

    def handle_pong(self, event: Frame) -> None:
        """Asked for or not."""
        if self._may_come():
            super().handle_pong(event)

    def handle_cont(self, event: Frame) -> None:
        """More of a message."""
        if self._may_come():
            super().handle_cont(event)

    def _may_come(self) -> bool:
        if not self.close_sent and self._frames.wait_s(1):
            self.conn.send_close(1008, "frames come too fast")
            self.handle_parser_exception()
        return not self.close_sent


def _stop(timer: asyncio.TimerHandle | None) -> None:
    if timer is not None:
        timer.cancel()
