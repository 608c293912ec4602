"""The commands ``duologue chat`` and ``duologue serve``: a port first, then the model, then the service."""

from __future__ import annotations

import inspect
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..checkpoints.files import expanded
from ..model.errors import DuologueError

if TYPE_CHECKING:
    from ..inference.serving.http.access import AccessConfig
    from ..inference.serving.http.listening import TlsConfig

Command = Callable[..., None]
Model = Annotated[str, typer.Option("--model", "-m", help="A bundled name (nano, mini), a folder, or a hub id.")]
Instructions = Annotated[
    str, typer.Option(help="The system prompt, for a model that has learnt to follow one.", show_default=False)
]
Voice = Annotated[str, typer.Option("--voice", help="The voice to speak in; a wrong name lists those that there are.")]
VoiceFrom = Annotated[
    Path | None,
    typer.Option("--voice-from", help="A voice like this recording's, of somebody who has agreed to it."),
]


def voice_asked(voice: str, like: Path | None) -> str | Path:
    """What is asked for by --voice or --voice-from; "": nothing.

    Raises:
        DuologueError: both.
    """
    if voice and like is not None:
        raise DuologueError("--voice and --voice-from are two voices: give one of them")
    return voice if like is None else expanded(like)


@dataclass(frozen=True, kw_only=True)
class Front:
    """The options that `chat` and `serve` share: which model, where it is reached, and who may come in."""

    model: Model = "nano"
    voice: Voice = ""
    voice_from: VoiceFrom = None
    host: Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0 for all, :: for IPv6 too.")] = "127.0.0.1"
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on; 0: any free one.")] = 8000
    api_key: Annotated[
        list[str] | None,
        typer.Option(envvar="DUOLOGUE_API_KEY", help="Let in only who has it. May be given several times."),
    ] = None
    origin: Annotated[
        list[str] | None,
        typer.Option(help="Pages of this origin (https://example.org), also a proxy's own, may use it. Repeatable."),
    ] = None
    allow_host: Annotated[
        list[str] | None,
        typer.Option(help="Another name that it is asked for by, besides localhost and --host; * for all. Repeatable."),
    ] = None
    root_path: Annotated[str, typer.Option(help="The folder that a proxy puts it in, like /talk.")] = ""
    certfile: Annotated[
        Path | None, typer.Option(help="TLS: a certificate with its chain, PEM. Then it speaks https.")
    ] = None
    keyfile: Annotated[Path | None, typer.Option(help="TLS: the certificate's key, if it is in another file.")] = None
    workers: Annotated[int, typer.Option(min=0, help="Processes that compute; 0: a thread of this one.")] = 0
    ice_server: Annotated[
        list[str] | None,
        typer.Option(help="WebRTC calls: stun:HOST or turn:USER:PASSWORD@HOST, for callers from outside. Repeatable."),
    ] = None
    language: Annotated[str, typer.Option(help="What the model hears and speaks, by its ISO 639 code.")] = "en"

    def access(self, **limits: Any) -> AccessConfig:
        from ..inference.serving.http.access import AccessConfig

        return AccessConfig(
            keys=tuple(self.api_key or ()),
            origins=tuple(origin.rstrip("/") for origin in self.origin or ()),
            hosts=tuple(self.allow_host or ()),
            root_path=self.root_path.rstrip("/"),
            **limits,
        )

    def speaks_in(self) -> str | Path:
        return voice_asked(self.voice, self.voice_from)

    def ice_servers(self) -> tuple[str, ...]:
        return tuple(self.ice_server or ())

    def tls(self) -> TlsConfig | None:
        if self.certfile is None:
            if self.keyfile is not None:
                raise DuologueError("--keyfile goes with --certfile, which names the certificate")
            return None
        from ..inference.serving.http.listening import TlsConfig

        return TlsConfig(certfile=expanded(self.certfile), keyfile=self.keyfile and expanded(self.keyfile))


def with_front(port: int) -> Callable[[Command], Command]:
    """For a ``command(front, …)``: Front's options, with this port, before its own."""

    def join(command: Command) -> Command:
        def run(**given: Any) -> None:
            command(Front(**{name: given.pop(name) for name in shared}), **given)

        shared, own = (dict(inspect.signature(each, eval_str=True).parameters) for each in (Front, command))
        shared["port"] = shared["port"].replace(default=port)
        options = [*shared.values(), *(each for each in own.values() if each.name != "front")]
        options = [each.replace(kind=inspect.Parameter.KEYWORD_ONLY) for each in options]
        run.__name__, run.__doc__ = command.__name__, command.__doc__
        run.__annotations__ = {each.name: each.annotation for each in options}
        run.__signature__ = inspect.Signature(options)  # type: ignore[attr-defined]
        return run

    return join


@with_front(port=7860)
def chat(
    front: Front,
    terminal: Annotated[bool, typer.Option("--terminal", help="No page: this machine's sound, and text here.")] = False,
    url: Annotated[
        str | None,
        typer.Option(help="--terminal: a server that runs (http://host:8000), instead of one's own; --api-key is its."),
    ] = None,
) -> None:
    """Open the voice-chat page: talk, interrupt, write, or ask about a recording. It serves programs too, at /v1.

    \b
    duologue chat                     http://127.0.0.1:7860
    duologue chat --port 8000
    duologue chat --api-key SECRET    a page to sign in on comes first (or: DUOLOGUE_API_KEY=SECRET)
    duologue chat --host 0.0.0.0 --certfile chain.pem --keyfile key.pem
                                      reachable from other machines, whose browsers want https for a microphone
    duologue chat --origin https://example.org      behind a proxy: see docs/serve.md
    duologue chat --terminal          without a browser; the loudspeaker's echo is taken out
    duologue chat --terminal --url http://gpu:8000    with the model elsewhere
    """
    if url is not None and not terminal:
        raise DuologueError("--url goes with --terminal: a server's page is at the address of its `duologue chat`")
    voice = front.speaks_in()
    if terminal:
        if url is not None and voice:
            raise DuologueError("--url takes no voice: that server has chosen its own")
        _terminal(front.model, voice, front.workers, url, front.api_key or [])
        return
    from ..checkpoints.source import resolve
    from ..inference.serving.http.listening import listen
    from ..inference.serving.progress import Progress

    access, tls = front.access(), front.tls()
    listening = listen(front.host, front.port)
    resolve(front.model)
    with Progress() as progress:
        progress("importing libraries")
        from ..inference.serving.app import ServeConfig
        from ..inference.serving.workers.pool import WorkerPoolConfig
        from .page.page import launch

        pool = WorkerPoolConfig(workers=front.workers)
        config = ServeConfig(
            model=front.model, voice=voice, language=front.language, pool=pool, access=access, tls=tls,
            ice_servers=front.ice_servers(),
        )  # fmt: skip
        launch(config, front.host, front.port, listening=listening, progress=progress)


@with_front(port=8000)
def serve(
    front: Front,
    sessions: Annotated[int | None, typer.Option(min=1, help="Conversations at most, instead of what fits.")] = None,
    sessions_per_key: Annotated[
        int | None,
        typer.Option(min=1, help="Session slots of each key at a time; with several keys all but one, if not given."),
    ] = None,
    minutes: Annotated[float, typer.Option(min=0.1, help="That a conversation may last.")] = 60.0,
    idle_minutes: Annotated[
        float, typer.Option(min=0.01, help="That a conversation may last without audio or an event of its client.")
    ] = 5.0,
    grace: Annotated[float, typer.Option(min=0, help="Seconds for answers to finish in when it is ended.")] = 30.0,
    logs: Annotated[str, typer.Option(help="text, or json: a line for each request, without what was said.")] = "text",
) -> None:
    """Serve conversations to programs: OpenAI's Realtime API over WebSocket, and its audio endpoints over HTTP.

    \b
    duologue serve                                     http://127.0.0.1:8000/v1, for OpenAI's clients
    duologue serve --voice deep                        the voice of who asks for none
    duologue serve --workers 2                         two processes compute
    duologue serve --host 0.0.0.0 --api-key SECRET     only who has the key (or: DUOLOGUE_API_KEY=SECRET)
    duologue serve --origin https://example.org        pages from there may use it, in their visitors' browsers
    serve run duologue.inference.serving.replicas:app model=nano replicas=2
                                                       several copies, by Ray Serve (pip install duologue[replicas])
    """
    from ..checkpoints.source import resolve
    from ..inference.serving.http.listening import listen
    from ..inference.serving.progress import Progress

    voice = front.speaks_in()
    access, tls = front.access(sessions_per_key=sessions_per_key, session_s=60 * minutes), front.tls()
    listening = listen(front.host, front.port)
    resolve(front.model)
    with Progress(quiet=logs == "json") as progress:
        progress("importing libraries")
        from ..inference.serving.app import ServeConfig
        from ..inference.serving.http.limits import Limits
        from ..inference.serving.run import serve as run
        from ..inference.serving.workers.pool import WorkerPoolConfig

        pool = WorkerPoolConfig(workers=front.workers, sessions=sessions, logs=logs)
        limits = Limits(idle_s=60 * idle_minutes)
        config = ServeConfig(
            model=front.model, voice=voice, language=front.language, logs=logs, pool=pool, access=access, limits=limits,
            tls=tls, grace_s=grace, ice_servers=front.ice_servers(),
        )  # fmt: skip
        run(
            config,
            front.host,
            front.port,
            say=lambda address: typer.echo(f"Duologue serves {address}/v1   (Ctrl-C ends it)"),
            listening=listening,
            progress=progress,
        )


def _terminal(model: str, voice: str | Path, workers: int, url: str | None, keys: list[str]) -> None:
    from . import terminal as client

    def write(text: str) -> None:
        typer.echo(text, nl=False)

    if url is not None:
        if len(keys) > 1:
            raise DuologueError(f"--url takes one --api-key, that server's; {len(keys)} were given")
        client.chat(url, keys[0] if keys else None, write)
        return
    from ..inference.serving.app import ServeConfig
    from ..inference.serving.http.access import AccessConfig
    from ..inference.serving.workers.pool import WorkerPoolConfig

    # The model in a process of its own, so that the sound device's thread is never kept waiting; and for nobody else.
    access = AccessConfig(keys=(secrets.token_urlsafe(),))
    pool = WorkerPoolConfig(workers=max(1, workers))
    with client.own_server(ServeConfig(model=model, voice=voice, pool=pool, access=access)) as address:
        client.chat(address, access.keys[0], write)
