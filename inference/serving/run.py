"""`duologue serve`: the application under uvicorn, with a shutdown that lets answers finish."""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
from collections.abc import Callable
from types import FrameType
from typing import Any

import uvicorn

from ...model.errors import DuologueError
from .app import ServeConfig, Service, create_app


class GracefulServer(uvicorn.Server):
    """The first signal lets answers under way finish; the second ends it at once."""

    def __init__(self, config: uvicorn.Config, service: Service) -> None:
        super().__init__(config)
        self._service = service
        self._draining: asyncio.Task[None] | None = None
        self.ready: Callable[[], None] = lambda: None  # called once it can be reached

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            self.ready()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if self._service.draining:
            super().handle_exit(sig, frame)
            return
        self._service.draining = True
        asyncio.get_running_loop().call_soon_threadsafe(self._begin)

    def _begin(self) -> None:
        self._draining = asyncio.create_task(self._drain())

    async def _drain(self) -> None:
        await self._service.drain()
        await asyncio.sleep(0.2)  # for the last close frames
        super().handle_exit(signal.SIGTERM, None)


def serve(config: ServeConfig, host: str, port: int, assistant: Any = None, app: Any = None, say: Any = print) -> None:
    """Serve until interrupted; says where, as soon as it can be reached.

    Raises:
        DuologueError: an unknown model, or a port that is taken.
    """
    server, listening = prepare(config, host, port, assistant, app)
    address = f"http://{host}:{listening.getsockname()[1]}"
    server.ready = lambda: say(address)
    try:
        server.run(sockets=[listening])
    finally:
        listening.close()


def prepare(config: ServeConfig, host: str, port: int, assistant: Any = None, app: Any = None) -> tuple[Any, Any]:
    """A server and the socket that it is to listen on (port 0: any free one)."""
    if app is None:
        from ..assistant import load

        app = create_app(config, assistant if assistant is not None else load(config.model))
    listening = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((host, port))
    except OSError:
        listening.close()
        taken = "the port is taken, or the address is not this machine's"
        raise DuologueError(f"cannot serve on {host}, port {port}: {taken} (--port 0 takes any free port)") from None
    settings = uvicorn.Config(
        app,
        log_level="warning",
        access_log=False,
        ws_max_size=config.access.message_bytes,
        ws_ping_interval=20,
        ws_ping_timeout=20,
        ws_per_message_deflate=False,
        server_header=False,
    )
    # It calls every refused WebSocket a fault of the application's, after having sent the refusal.
    logging.getLogger("uvicorn.error").addFilter(lambda record: "completing handshake" not in record.getMessage())
    return GracefulServer(settings, app.state.service), listening
