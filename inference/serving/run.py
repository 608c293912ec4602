"""`duologue serve`: the application under uvicorn, with a shutdown that lets answers finish."""

from __future__ import annotations

import asyncio
import logging
import math
import signal
import socket
from collections.abc import Callable
from dataclasses import replace
from types import FrameType
from typing import Any

import uvicorn
from uvicorn.config import LOGGING_CONFIG

from ..assistant.assistant import Assistant
from ..session.notes import notes
from .app import ServeConfig, Service, create_app
from .http.handshake import PatientProtocol, PatientWebSocket
from .http.listening import address, listen
from .logs import set_up
from .progress import Progress


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


def loaded(config: ServeConfig) -> Assistant:
    """The config's model, in its voice.

    Raises:
        DuologueError: an unknown model or voice, or a recording of one that cannot be used.
    """
    from ..assistant.assistant import limit_threads
    from ..assistant.loading import load

    assistant = load(config.model)
    limit_threads(assistant)
    return assistant.with_voice(config.voice) if config.voice else assistant


def serve(
    config: ServeConfig,
    host: str,
    port: int,
    assistant: Assistant | None = None,
    say: Callable[[str], None] = print,
    listening: socket.socket | None = None,
    progress: Progress | None = None,
    create: Callable[[ServeConfig, Any], Any] = create_app,
) -> None:
    """Serve until interrupted; says where, as soon as it can be reached.

    Args:
        port: 0 takes any free one.
        assistant: one that is loaded already, instead of the config's model.
        listening: a socket that listens already, where the port was taken before the libraries were loaded.
        progress: where the steps until then are shown.
        create: makes the application of a config and an assistant.

    Raises:
        DuologueError: an unknown model, or a port that is taken.
    """
    set_up(config.logs)
    listening = listening or listen(host, port)
    try:
        with progress or Progress() as showing:
            if assistant is None:
                showing(f"loading {config.model}")
                assistant = loaded(config)
            for note in notes(assistant.model):
                showing.note(f"{config.model}: {note}")
            config = replace(config, access=replace(config.access, bound=host))
            server = server_of(config, create(config, assistant))

            def ready() -> None:
                showing.end()
                say(address(host, listening, config.tls is not None))

            server.ready = ready
            showing("starting the workers")
            server.run(sockets=[listening])
    finally:
        listening.close()


def prepare(config: ServeConfig, host: str, port: int, app: Any) -> tuple[GracefulServer, socket.socket]:
    """A server for an application, and the socket that it is to listen on (port 0: any free one).

    Raises:
        DuologueError: a port that is taken.
    """
    return server_of(config, app), listen(host, port)


def server_of(config: ServeConfig, app: Any) -> GracefulServer:
    """A server for an application."""
    settings = uvicorn.Config(
        app,
        log_level="warning",
        log_config=None if config.logs == "json" else LOGGING_CONFIG,
        access_log=False,
        http=PatientProtocol,
        ws=PatientWebSocket,
        timeout_graceful_shutdown=max(1, math.ceil(config.grace_s)),  # a body may never end
        ws_max_size=config.access.message_bytes,
        ws_ping_interval=20,
        ws_ping_timeout=20,
        ws_per_message_deflate=False,
        server_header=False,
        ssl_certfile=config.tls.certfile if config.tls else None,
        ssl_keyfile=config.tls.keyfile if config.tls else None,
    )
    logging.getLogger("uvicorn.error").addFilter(_is_ours)
    return GracefulServer(settings, app.state.service)


def _is_ours(record: logging.LogRecord) -> bool:
    """Not what uvicorn calls a fault: a refused WebSocket, text that is no UTF-8, a request cut off by the shutdown."""
    if record.exc_info and isinstance(record.exc_info[1], asyncio.CancelledError):
        return False
    return not any(text in record.getMessage() for text in ("completing handshake", "Invalid UTF-8"))
