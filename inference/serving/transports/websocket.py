"""The WebSocket as a transport."""

from __future__ import annotations

from fastapi import WebSocket, WebSocketDisconnect

from .transport import End, Gone

_CODES = {End.TOO_FAST: 1008, End.TOO_LARGE: 1009, End.SHUTDOWN: 1001, End.IDLE: 1000, End.EXPIRED: 1000}


class WebSocketTransport:
    """Of a socket that has been accepted."""

    def __init__(self, socket: WebSocket) -> None:
        self._socket = socket

    async def receive(self) -> str | bytes:
        """The client's next message. Raises Gone."""
        message = await self._socket.receive()
        if message["type"] == "websocket.disconnect":
            raise Gone
        text: str | None = message.get("text")
        return message.get("bytes", b"") if text is None else text

    async def send(self, text: str) -> None:
        """One event. Raises Gone."""
        try:
            await self._socket.send_text(text)
        except (RuntimeError, WebSocketDisconnect):
            raise Gone from None

    async def close(self, end: End) -> None:
        """There is nothing more to come. Raises Gone."""
        try:
            await self._socket.close(_CODES.get(end, 1011))
        except (RuntimeError, WebSocketDisconnect):
            raise Gone from None
