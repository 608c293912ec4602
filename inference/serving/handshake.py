"""Connections that do not say what they want: uvicorn waits for them for ever, this does not.

A client has HEADERS_S from connecting, and for each later request from its first byte, until the headers are complete,
those of a WebSocket's handshake too. The body may come as slowly as it likes. While many connections are in that state,
whoever has been longest in it is closed.
"""

from __future__ import annotations

import asyncio
from asyncio import constants
from typing import Any, cast

from uvicorn.protocols.http.auto import AutoHTTPProtocol

HEADERS_S = 10.0
MOST = 512  # connections whose headers are not complete
_waiting: dict[PatientProtocol, None] = {}  # the oldest first


constants.SSL_HANDSHAKE_TIMEOUT = HEADERS_S  # uvicorn passes none on, and the usual is a minute


class PatientProtocol(AutoHTTPProtocol):  # type: ignore[misc, valid-type]
    """uvicorn's protocol with a limit to its patience."""

    _timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A client has connected."""
        super().connection_made(transport)
        self._wait()

    def data_received(self, data: bytes) -> None:
        """It has sent something."""
        before = self.cycle
        super().data_received(data)
        websocket = self.transport.get_protocol() is not self
        if websocket or self.cycle is not before:
            self._stop_waiting()
        elif self.cycle is None or self.cycle.response_complete:
            self._wait()

    def connection_lost(self, exc: Exception | None) -> None:
        """It is gone."""
        self._stop_waiting()
        super().connection_lost(exc)

    def _wait(self) -> None:
        if self._timer is None and not self.transport.is_closing():
            self._timer = self.loop.call_later(HEADERS_S, self._give_up)
            _waiting[self] = None
            if len(_waiting) > MOST:
                next(iter(_waiting))._give_up()

    def _stop_waiting(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        _waiting.pop(self, None)

    def _give_up(self) -> None:
        self._stop_waiting()
        cast(Any, self.transport).abort()
