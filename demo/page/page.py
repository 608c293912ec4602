"""The page: a live conversation with the microphone open, and recordings to ask and to be asked about.

All of it is static files and a client of the service's own Realtime protocol in the browser (assets/; the conversation
in assets/live/), which this page is mounted beside; it has nothing that another client could not have. Two things are
done here for it: a recording of any kind is read as samples, and it is told why a conversation could not begin. Nothing
is kept: no upload becomes a file. Everything comes from this machine: system fonts, no analytics, no request to any
other host. Its addresses are relative: it works in any folder of a proxy.

With keys, the page is a form that asks for one until a visitor has signed in (../inference/serving/sign_in.py).

The example questions in assets/examples/ are synthetic speech in voices of the training set, made by
    duologue.data_prep.speech.synthesis.synthesise(text, voice)    with the texts and voices of EXAMPLES
and written as FLAC by soundfile.
"""

from __future__ import annotations

import html
import json
import math
from pathlib import Path
from string import Template
from typing import Any
from urllib.parse import parse_qs

from fastapi import FastAPI, Request
from fastapi.responses import HTMLResponse, Response
from fastapi.staticfiles import StaticFiles
from starlette.types import Scope

from ...data_prep.audio import MAX_SECONDS
from ...data_prep.audio.formats import FORMATS
from ...inference.assistant.assistant import Assistant
from ...inference.assistant.voices import voices_of
from ...inference.serving.app import ServeConfig, create_app
from ...inference.serving.http.access import SIGN_IN, Keys
from ...inference.serving.http.sign_in import SignIns, Tries, set_cookie
from ...inference.serving.protocol.errors import RequestError
from ...inference.serving.protocol.items import LONGEST_S
from ...inference.serving.requests.answering import while_there
from ...inference.serving.requests.decoding import Decoding
from ...inference.serving.run import serve
from ...inference.session.state import SessionConfig
from .question import pcm16_of

ASSETS = Path(__file__).parent.parent / "assets"
# what the button says, the file in assets/examples/, what it says, its voice
EXAMPLES = (
    ("What is 47 plus 12?", "plus.flac", "what is forty seven plus twelve", "flite:rms"),
    ("What is the capital of France?", "capital.flac", "what is the capital of france", "espeak:en-us+f3"),
    ("What day comes after Friday?", "day.flac", "what day comes after friday", "flite:kal16"),
    ("How do you spell water?", "spell.flac", "how do you spell water", "espeak:en-gb+m3"),
    ("Which is larger, 18 or 80?", "larger.flac", "which is larger eighteen or eighty", "espeak:en-us+Andy"),
    ("How are you?", "hello.flac", "how are you", "espeak:en-gb-scotland+f2"),
)
_FORM_BYTES = 8_192  # of a form with a key in it, which anybody may send
_HEADERS = {
    "cache-control": "no-store",
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; media-src 'self' blob:; "
        "img-src 'self' data:; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "referrer-policy": "same-origin",
    "x-content-type-options": "nosniff",
}


def create_page(config: ServeConfig, assistant: Any, vad: Any = None) -> FastAPI:
    """The service, with the page at its root."""
    sign_ins = SignIns() if config.access.keys else None
    app = create_app(config, assistant, vad, sign_ins)
    if sign_ins is not None:
        _add_sign_in(app, config, sign_ins)
    locked = "" if sign_ins else "hidden"
    limits = html.escape(json.dumps(_limits(config)))
    names = list(voices_of(assistant.model))
    voices = "".join(f"<option>{html.escape(name)}</option>" for name in names)
    one_voice = "hidden" if len(names) == 1 else ""
    page = _filled("page.html", model=config.model, examples=_examples(), locked=locked, limits=limits, voices=voices,
                   one_voice=one_voice)  # fmt: skip

    @app.get("/", include_in_schema=False)
    async def root() -> Response:
        return HTMLResponse(page, headers=_HEADERS)

    decoding = Decoding()

    @app.post("/page/recording", include_in_schema=False)
    async def recording(request: Request) -> Response:
        """A recording as 16-bit samples at 24 kHz."""
        body = await request.body()
        pcm = await while_there(request, decoding(pcm16_of, body), app.state.service.metrics)
        return Response(pcm, media_type="application/octet-stream")

    @app.get("/page/room", include_in_schema=False)
    async def room(request: Request) -> Response:
        """Whether a conversation could begin now: 204, or the refusal, which a browser hides from a WebSocket."""
        if not assistant.model.speaks:
            raise RequestError("This model has no voice, and holds no conversations.", "unsupported_value", "model")
        app.state.service.admitting().sit(request.scope.get("key", -1), SessionConfig()).leave()
        return Response(status_code=204)

    app.mount("/page-assets", _Assets(directory=ASSETS))
    return app


def launch(config: ServeConfig, host: str = "127.0.0.1", port: int = 7860, assistant: Any = None, **how: Any) -> None:
    """Serve the page until interrupted, and print its address.

    Args:
        port: 0 takes any free port.
        assistant: one that is loaded already, instead of the config's model.
        how: more for :func:`~...inference.serving.run.serve`.

    Raises:
        DuologueError: an unknown model, or a port that is taken.
    """

    def create(config: ServeConfig, assistant: Assistant) -> FastAPI:
        assistant.warm_up()
        return create_page(config, assistant)

    serve(
        config,
        host,
        port,
        assistant,
        say=lambda url: print(f"Duologue is listening: {url}   (Ctrl-C ends it)", flush=True),
        create=create,
        **how,
    )


class _Assets(StaticFiles):
    """Files that a browser asks for anew, lest an old script runs in a new page."""

    async def get_response(self, path: str, scope: Scope) -> Response:
        response = await super().get_response(path, scope)
        response.headers["cache-control"] = "no-cache"
        return response


def _add_sign_in(app: FastAPI, config: ServeConfig, sign_ins: SignIns) -> None:
    """The form, and what it leads to. Access lets everybody come here, and shows it in the page's place."""
    tries = Tries(at_once=5, every_s=60, all_at_once=60, all_every_s=5)
    keys = Keys(config.access.keys)

    def form(message: str = "", status: int = 401, headers: dict[str, str] | None = None) -> Response:
        hidden = "" if message else "hidden"
        shown = _filled("sign_in.html", model=config.model, message=html.escape(message), hidden=hidden)
        policy = _HEADERS["content-security-policy"].replace("style-src 'self'", "style-src 'unsafe-inline'")
        return HTMLResponse(shown, status, {**_HEADERS, "content-security-policy": policy, **(headers or {})})

    def back(request: Request, token: str) -> Response:
        """To the page, with a cookie. A proxy may speak https for us; then the browser's Origin says so."""
        secure = request.url.scheme == "https" or request.headers.get("origin", "").startswith("https://")
        return Response(status_code=303, headers={"location": "./", "set-cookie": set_cookie(token, secure)})

    @app.get(SIGN_IN, include_in_schema=False)
    async def ask() -> Response:
        return form()

    @app.post(SIGN_IN, include_in_schema=False)
    async def sign_in(request: Request) -> Response:
        given = parse_qs((await _short_body(request)).decode("utf-8", "replace")).get("key", [""])[0].strip()
        address = request.client.host if request.client else ""
        wait_s = math.ceil(tries.wait_s(address))  # from here on nothing is awaited: of many at once, few are tried
        if wait_s:
            return form(f"Too many wrong keys. Try again in {wait_s} seconds.", 429, {"retry-after": str(wait_s)})
        key = keys.find(given)
        if key is None:
            tries.failed(address)
            return form("This is not a key of this page.")
        sign_ins.close(request.headers.get("cookie", ""))
        return back(request, sign_ins.open(key))

    @app.post("/sign-out", include_in_schema=False)
    async def sign_out(request: Request) -> Response:
        sign_ins.close(request.headers.get("cookie", ""))
        return back(request, "")


async def _short_body(request: Request) -> bytes:
    body = b""
    async for piece in request.stream():
        body += piece
        if len(body) > _FORM_BYTES:
            raise RequestError(f"the form is larger than {_FORM_BYTES} bytes", "too_large", status=413)
    return body


def _filled(name: str, model: str, **values: str) -> str:
    text = (ASSETS / name).read_text(encoding="utf-8")
    return Template(text).substitute(model=html.escape(Path(model).name or model), **values)


def _limits(config: ServeConfig) -> dict[str, Any]:
    """What the server takes, so that the page says so before anything is sent."""
    return {
        "file_bytes": config.access.request_bytes, "message_bytes": config.access.message_bytes,
        "seconds": min(LONGEST_S, MAX_SECONDS), "text_chars": config.limits.text_chars, "formats": FORMATS,
    }  # fmt: skip


def _examples() -> str:
    return "".join(
        f'<button type="button" class="example" disabled data-later data-file="page-assets/examples/{file}">'
        f"{html.escape(label)}</button>"
        for label, file, _, _ in EXAMPLES
    )
