"""``POST /v1/realtime/calls`` and ``/hangup``, as OpenAI's API has them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import Response

from ..http.body import read_body
from ..http.client_secrets import CALLS
from ..http.limits import Limits, check_texts
from ..protocol.errors import RequestError
from .calls import Calls

_SESSION_BYTES = 1 << 18
_STRING = {"type": "string"}
_FORM = {"type": "object", "properties": {"sdp": _STRING, "session": _STRING}, "required": ["sdp"]}
_SDP = {"application/sdp": {"schema": _STRING}}
_OPENAPI: dict[str, Any] = {
    "requestBody": {"required": True, "content": {**_SDP, "multipart/form-data": {"schema": _FORM}}},
    "responses": {
        "201": {"description": "the SDP answer; Location names the call", "content": _SDP},
        "400": {"description": "the offer cannot be answered, and why"},
        "503": {"description": "no room now, or shutting down"},
    },
}


def add_calls(
    app: FastAPI, calls: Calls, limits: Limits, root: str, check: Callable[[dict[str, Any]], dict[str, Any]]
) -> None:
    """The endpoints. ``root``: the folder that a proxy puts the service in. ``check``: raises RequestError where a
    session cannot be so."""

    @app.post(CALLS, status_code=201, response_class=Response, openapi_extra=_OPENAPI)
    async def call(request: Request) -> Response:
        sdp, given = await _read(request, limits)
        ephemeral = request.scope.get("session", {})

        def first() -> dict[str, Any]:
            both = _merged(ephemeral, given)
            check(both)
            return both

        name, answer = await calls.open(request.scope.get("key", -1), first, sdp)
        return Response(answer, 201, {"location": f"{root}{CALLS}/{name}"}, "application/sdp")

    @app.post(f"{CALLS}/{{call_id}}/hangup", response_class=Response)
    async def hangup(request: Request, call_id: str) -> Response:
        calls.hang_up(call_id, request.scope.get("key", -1))
        return Response(status_code=200)


async def _read(request: Request, limits: Limits) -> tuple[str, dict[str, Any]]:
    """The offer, and the session that comes with it.

    Raises:
        RequestError: another form of body, or too large a one.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == "application/sdp":
        return _text(await _body(request, limits.sdp_bytes), limits), {}
    if kind != "multipart/form-data":
        what = f"the content type is {kind[:80]!r}; it must be application/sdp or multipart/form-data"
        raise RequestError(what, "invalid_value", status=415)
    size = request.headers.get("content-length", "")
    if not size.isdigit() or int(size) > limits.sdp_bytes + _SESSION_BYTES:
        raise _too_large(limits.sdp_bytes + _SESSION_BYTES)
    async with request.form(max_files=2, max_fields=8, max_part_size=max(limits.sdp_bytes, _SESSION_BYTES)) as form:
        parts = {name: await _part(value) for name, value in form.multi_items()}
    if strange := sorted(set(parts) - {"sdp", "session"}):
        raise RequestError(f"there is no field {strange[0][:80]!r}", "unknown_parameter", strange[0][:80])
    if "sdp" not in parts:
        raise RequestError("sdp is missing", "missing_required_parameter", "sdp")
    session = await read_body(parts.get("session") or b"{}", limits)
    check_texts(session, limits)
    return _text(parts["sdp"], limits), session


async def _part(value: Any) -> bytes:
    return value.encode() if isinstance(value, str) else await value.read()


async def _body(request: Request, most: int) -> bytes:
    body = b""
    async for piece in request.stream():
        body += piece
        if len(body) > most:
            raise _too_large(most)
    return body


def _text(sdp: bytes, limits: Limits) -> str:
    if len(sdp) > limits.sdp_bytes:
        raise _too_large(limits.sdp_bytes)
    try:
        return sdp.decode()
    except UnicodeDecodeError:
        raise RequestError("the SDP offer is not UTF-8", "invalid_value", "sdp") from None


def _too_large(most: int) -> RequestError:
    return RequestError(f"the offer is larger than {most} bytes", "too_large", "sdp", 413)


def _merged(first: dict[str, Any], then: dict[str, Any]) -> dict[str, Any]:
    """Of two session objects, the second's fields where it has them."""
    both = dict(first)
    for name, value in then.items():
        inside = both.get(name)
        both[name] = _merged(inside, value) if isinstance(inside, dict) and isinstance(value, dict) else value
    return both
