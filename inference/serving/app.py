"""The service: one FastAPI application over one pool of workers.

    /v1/realtime                  WebSocket, OpenAI's Realtime protocol         (realtime.py)
    /v1/audio/transcriptions      a recording -> text                           (rest/)
    /v1/audio/speech              text -> speech
    /v1/chat/completions          messages, sound among them -> text and speech
    /v1/realtime/calls            SDP -> SDP: the same over WebRTC              (webrtc/)
    /v1/realtime/client_secrets   ephemeral keys for browsers                   (http/client_secrets.py)
    /v1/models                    what is loaded
    /openapi.json                 the HTTP part of the above, for programs
    /health, /metrics             for whoever watches over it

Nothing that is said or heard is written to disk, and no key is logged.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import os
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastapi import FastAPI, Request, WebSocket
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import ClientDisconnect

from ...model.dialogue_model import DialogueModel
from ...model.errors import DuologueError
from ...model.streaming import Streaming
from ..assistant.assistant import Assistant
from ..assistant.voices import voices_of
from ..session.state import SessionConfig
from .http.access import Access, AccessConfig, refuse
from .http.admission import Admission
from .http.client_secrets import CALLS, ClientSecrets, add_client_secrets
from .http.limits import TOO_LONG, Limits
from .http.listening import TlsConfig
from .http.metrics import Metrics
from .http.observing import Observing
from .http.sign_in import SignIns
from .protocol.errors import RequestError
from .protocol.items import new_id
from .protocol.session_update import update
from .protocol.settings import Abilities, Settings
from .realtime.common import Model
from .realtime.conversation import Conversation
from .realtime.realtime import RealtimeSession
from .requests.questioner import Questioner
from .transports.outbox import Outbox
from .transports.serving import serve
from .transports.transport import End, Transport
from .transports.websocket import WebSocketTransport
from .workers.pool import PoolFull, WorkerPool, WorkerPoolConfig

if TYPE_CHECKING:
    from .webrtc.calls import Calls


@dataclass(frozen=True, kw_only=True)
class ServeConfig:
    """What is served, and to whom.

    voice: that it speaks in where a client asks for none, by its name, or a recording that it is to be like; "": the
        model's first.
    language: that the model hears and speaks (its ISO 639 code). logs: "text" or "json", see logs.py.
    ice_servers: STUN and TURN servers for WebRTC calls, by their URLs.
    """

    model: str = "nano"
    voice: str | Path = ""
    language: str = "en"
    logs: str = "text"
    pool: WorkerPoolConfig = field(default_factory=WorkerPoolConfig)
    access: AccessConfig = field(default_factory=AccessConfig)
    tls: TlsConfig | None = None
    limits: Limits = field(default_factory=Limits)
    ice_servers: tuple[str, ...] = ()
    grace_s: float = 30.0  # that answers under way have to finish on shutdown


class Service:
    """The worker pool, and every conversation that is going on."""

    def __init__(self, config: ServeConfig, assistant: Assistant, vad: Streaming | None = None) -> None:
        self.config, self.assistant, self._vad = config, assistant, vad
        self.pool: WorkerPool | None = None
        self.admission: Admission | None = None
        self.metrics = Metrics(
            lambda: self.pool.slots if self.pool else 0,
            self._room,
            self._processes,
            lambda: self.admission.waiting if self.admission else 0,
            lambda: self.pool.load if self.pool else 0.0,
        )
        self.sessions: set[RealtimeSession] = set()
        self._mute: str | None = None  # why the model cannot converse, if it cannot
        self.draining = False

    def _room(self) -> float:
        return self.pool.room() if self.pool else 0

    def _processes(self) -> list[int]:
        return [os.getpid(), *(self.pool.processes if self.pool else [])]

    async def start(self) -> None:
        """Start the workers."""
        if not self.assistant.model.speaks:  # it may still serve the other endpoints
            self._mute = "this model has no voice: a conversation here needs a vocoder"
        self.pool = await WorkerPool.start(
            lambda: self.assistant, self.config.pool, self._vad, model=self.config.model,
            voices=voices_of(self.assistant.model),
        )  # fmt: skip
        self.pool.on_frame = lambda done: self.metrics.frame(done.late_ms)
        access = self.config.access
        self.admission = Admission(
            self.pool, self.config.limits, access.sessions_per_key, len(access.keys), self.metrics.waited
        )

    async def stop(self) -> None:
        """End it."""
        if self.pool is not None:
            await self.pool.stop()

    async def drain(self) -> None:
        """Let in nobody else; let the answers under way finish, then hang up."""
        self.draining = True
        sessions = list(self.sessions)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self.config.grace_s):
                await asyncio.gather(*(session.finish() for session in sessions))
        for session in sessions:
            session.closed.set()

    def admitting(self) -> Admission:
        """Admission control, if anybody may come in.

        Raises:
            RequestError: not now.
        """
        if self.draining or self.admission is None:
            raise RequestError("the server is shutting down", "server_shutting_down", status=503)
        return self.admission

    def check_model(self, name: Any) -> None:
        """Raises RequestError where a request asks for another model than the one that is loaded; it may name none."""
        if name not in (None, "", self.config.model):
            known = f"there is no model {str(name)[:80]!r}; there is {self.config.model!r}"
            raise RequestError(known, "model_not_found", "model", 404)

    def questioner(self, key: int = -1) -> Questioner:
        """A session slot for one question, now.

        Raises:
            RequestError, EngineFull: there is none.
        """
        return Questioner(self.admitting().sit(key), self.assistant.model)

    async def queued(self, key: int) -> Questioner:
        """A session slot for one question, as soon as there is one.

        Raises:
            RequestError, EngineFull: too many wait already.
        """
        return Questioner(await self.admitting().wait(key), self.assistant.model)

    @property
    def initial(self) -> Settings:
        """What a session begins with."""
        return Settings.initial(self.config.model, new_id("sess"), _abilities(self.assistant.model))

    def session_of(self, change: dict[str, Any]) -> dict[str, Any]:
        """The session object that a session would begin with.

        Raises:
            RequestError: a field that cannot be.
        """
        done = update(self.initial, change)
        if done.errors:
            raise done.errors[0]
        seen = done.settings.seen()
        warnings = [*seen.get("warnings", []), *done.warnings]
        return seen | ({"warnings": warnings} if warnings else {})

    async def converse(self, socket: WebSocket) -> None:
        """One client, from its coming to its going."""
        key, first = socket.scope.get("key", -1), socket.scope.get("session", {})
        if socket.query_params.get("intent") == "transcription":
            first = {**first, "type": "transcription"}
        try:
            session, outbox = self.begin(key)
        except DuologueError as error:
            known = self.refusal(error)
            await refuse(socket.scope, socket.send, known, known.retry_s)
            return
        offered = socket.scope.get("subprotocols", [])
        self.sessions.add(session)
        try:
            await socket.accept(subprotocol="realtime" if "realtime" in offered else None)
            await session.open(first)
            await self.serve(WebSocketTransport(socket), session, outbox)
        finally:
            self.sessions.discard(session)
            session.close()

    def begin(self, key: int, plays: bool = False) -> tuple[RealtimeSession, Outbox]:
        """A session in a slot of its own, and the events that it has for its client; ``plays``: see
        :class:`Conversation`.

        Raises:
            RequestError, PoolFull: there is none.
        """
        if self._mute is not None:
            raise RequestError(self._mute, "unsupported_value", "model")
        slot, outbox, model = self.admitting().sit(key, SessionConfig()), Outbox(), self.assistant.model
        conversation = Conversation(
            slot, outbox.put, Model(input_rate=model.input_rate, output_rate=model.output_rate, calls=model.calls),
            self.initial, self.config.limits.past_chars, self.metrics.event, plays,
        )  # fmt: skip
        return RealtimeSession(conversation, lambda: self.questioner(key), self.config.limits), outbox

    async def serve(self, transport: Transport, session: RealtimeSession, outbox: Outbox) -> End:
        """A session until it ends."""
        end = await serve(
            transport, session, outbox, self.config.access, self.config.limits, lambda: self.draining
        )
        if end is End.IDLE:
            self.metrics.idle()
        return end

    def refusal(self, error: DuologueError) -> RequestError:
        """An error as the API gives it, counted if somebody is refused."""
        known = error if isinstance(error, RequestError) else RequestError(str(error))
        if isinstance(error, PoolFull):
            known = RequestError(str(error), "server_overloaded", status=503)
            known.retry_s = error.retry_s
        if known.status in (413, 429, 503) or known.code == TOO_LONG:
            self.metrics.refused(known.code)
        return known


def create_app(
    config: ServeConfig, assistant: Assistant, vad: Streaming | None = None, sign_ins: SignIns | None = None
) -> FastAPI:
    """The application for a loaded model; its workers start and end with it.

    sign_ins: those who are signed in, where there is a page to sign in on.
    """
    from .rest.routes import add_routes

    service, secrets = Service(config, assistant, vad), ClientSecrets()
    calls = _calls(service)

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        await service.start()
        yield
        if calls is not None:
            await calls.stop()
        await service.stop()

    root = config.access.root_path
    servers = [{"url": root}] if root else None
    app = FastAPI(title="Duologue", lifespan=lifespan, docs_url=None, redoc_url=None, servers=servers)
    app.state.service = service
    app.add_middleware(Access, config=config.access, sign_ins=sign_ins, client_secrets=secrets)
    if config.access.origins:  # in front of Access: a preflight carries no key, and refusals are to be read too
        app.add_middleware(
            CORSMiddleware,
            allow_origins=config.access.origins,
            allow_methods=("GET", "HEAD", "POST", "OPTIONS"),
            allow_headers=("*",),
            expose_headers=("Retry-After", "Location"),
            allow_private_network=True,
        )
    app.add_middleware(Observing, metrics=service.metrics, routes=app.router.routes, root=root)

    @app.exception_handler(DuologueError)
    async def failed(request: Request, error: DuologueError) -> Response:
        known = service.refusal(error)
        headers = {} if known.retry_s is None else {"retry-after": str(known.retry_s)}
        return JSONResponse({"error": known.body()}, known.status, headers)

    @app.exception_handler(ClientDisconnect)
    async def left(request: Request, error: ClientDisconnect) -> Response:
        service.metrics.left()
        return Response(status_code=499)

    @app.exception_handler(RequestValidationError)
    async def malformed(request: Request, error: RequestValidationError) -> Response:
        first = error.errors()[0]
        param = ".".join(str(part) for part in first["loc"][1:])
        return JSONResponse({"error": RequestError(f"{param}: {first['msg']}", param=param or None).body()}, 400)

    @app.exception_handler(HTTPException)  # no such path, or a form that cannot be read
    async def refused(request: Request, error: HTTPException) -> Response:
        if request.method == "OPTIONS" and error.status_code == 405:  # what may be asked of this path
            return Response(status_code=204, headers={"allow": f"{(error.headers or {}).get('Allow', 'GET')}, OPTIONS"})
        code = "not_found" if error.status_code in (404, 405) else "invalid_value"
        known = RequestError(f"{request.url.path}: {error.detail}", code, status=error.status_code)
        return JSONResponse({"error": known.body()}, error.status_code, error.headers)

    @app.get("/health")
    async def health() -> Response:
        pool = service.pool
        ready = pool is not None and pool.alive and not service.draining
        status = "ok" if ready else ("draining" if service.draining else "failed")
        if pool is not None and pool.stuck:
            ready, status = False, "stuck"
        return JSONResponse({"status": status}, 200 if ready else 503)

    @app.get("/metrics")
    async def metrics() -> Response:
        return Response(service.metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")

    @app.get("/v1/models")
    async def models() -> Any:
        return {"object": "list", "data": [_model(config.model)]}

    @app.get("/v1/models/{name:path}")
    async def model(name: str) -> Any:
        service.check_model(name)
        return _model(name)

    add_client_secrets(app, secrets, config.limits, service.session_of)
    app.add_api_websocket_route("/v1/realtime", service.converse)
    add_routes(app, service)
    if calls is None:
        app.add_api_route(CALLS, _no_calls, methods=["POST"], include_in_schema=False)
    else:
        from .webrtc.endpoint import add_calls

        add_calls(app, calls, config.limits, root, service.session_of)
    return app


def _calls(service: Service) -> Calls | None:
    """WebRTC calls, where aiortc is installed."""
    if importlib.util.find_spec("aiortc") is None:
        return None
    from .webrtc.calls import Calls

    return Calls(service, service.config.limits, service.config.ice_servers, service.metrics.calls)


def _no_calls() -> None:
    raise RequestError("WebRTC needs aiortc: pip install duologue[webrtc]", "unsupported_value", status=501)


def _abilities(model: DialogueModel) -> Abilities:
    return Abilities(
        instructions=model.follows_instructions, calls=model.takes_tools and model.calls is not None,
        manners=model.manners,
        transcribes=model.transcribes, spells=model.spells if model.takes_decoder else None,
        speeds=(1.0, 1.0) if model.speech is None else model.speech.speeds, voices=tuple(voices_of(model)),
        ssml=model.renders_ssml, history=model.history,
    )  # fmt: skip


def _model(name: str) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": 0, "owned_by": "duologue"}
