"""Ephemeral keys (``POST /v1/realtime/client_secrets``): a server mints one with its API key, and a browser opens
Realtime sessions with it.

Such a key opens sessions and nothing else: it mints no keys and calls no other endpoint. It ends after at most ten
minutes, and with the server; a session that it has opened goes on. Only digests are kept, in this process: of several
servers behind a load balancer, both requests must reach the same one.
"""

from __future__ import annotations

import hashlib
import math
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from fastapi import FastAPI, Request
from openai.types.realtime.client_secret_create_response import ClientSecretCreateResponse

from ..protocol.errors import RequestError
from .body import read_body
from .limits import Limits, check_texts

PREFIX = "ek_"
LONGEST_S, SHORTEST_S = 600, 10
PATH = "/v1/realtime/client_secrets"
CALLS = "/v1/realtime/calls"
OPENS = ("/v1/realtime", CALLS)  # what such a key may be used for
_MOST = 1_000  # keys of one API key
_OPENAPI: dict[str, Any] = {
    "requestBody": {
        "content": {
            "application/json": {
                "schema": {
                    "type": "object",
                    "properties": {
                        "expires_after": {
                            "type": "object",
                            "properties": {
                                "anchor": {"const": "created_at"},
                                "seconds": {"type": "integer", "minimum": SHORTEST_S, "maximum": LONGEST_S},
                            },
                        },
                        "session": {"type": "object"},
                    },
                }
            }
        }
    }
}


@dataclass(frozen=True)
class ClientSecret:
    """What an ephemeral key stands for. key: the number of the API key that minted it. until: by the clock of
    :class:`ClientSecrets`. session: what its sessions begin with, as in ``session.update``."""

    key: int
    until: float
    session: dict[str, Any]


class ClientSecrets:
    """All ephemeral keys that have not ended."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._found: OrderedDict[bytes, ClientSecret] = OrderedDict()

    def mint(self, key: int, seconds: int, session: dict[str, Any]) -> str:
        """A new one.

        Raises:
            RequestError: too many of this API key have not ended yet.
        """
        now = self._now()
        for digest in [digest for digest, known in self._found.items() if known.until <= now]:
            del self._found[digest]
        mine = [known.until for known in self._found.values() if known.key == key]
        if len(mine) >= _MOST:
            error = RequestError(f"{_MOST} client secrets have not ended yet", "rate_limit_exceeded", status=429)
            error.retry_s = math.ceil(min(mine) - now)
            raise error
        value = PREFIX + secrets.token_urlsafe(32)
        self._found[_digest(value)] = ClientSecret(key, now + seconds, session)
        return value

    def find(self, value: str) -> ClientSecret | None:
        """What it stands for; None: it is none, or has ended."""
        known = self._found.get(_digest(value))
        return known if known is not None and self._now() < known.until else None


def add_client_secrets(
    app: FastAPI, minted: ClientSecrets, limits: Limits, session_of: Callable[[dict[str, Any]], dict[str, Any]]
) -> None:
    """The endpoint. ``session_of``: the session that a ``session`` of the request would be, checked."""

    @app.post(PATH, openapi_extra=_OPENAPI)
    async def client_secrets(request: Request) -> Any:
        body = await read_body(await request.body() or b"{}", limits)
        check_texts(body, limits)
        seconds, change = _lifetime(body), body.get("session") or {}
        if not isinstance(change, dict):
            raise RequestError("session must be an object", "invalid_type", "session")
        session = session_of(change)
        value = minted.mint(request.scope.get("key", -1), seconds, change)
        answer = {"value": value, "expires_at": int(time.time()) + seconds, "session": session}
        return ClientSecretCreateResponse.model_validate(answer).model_dump(exclude_unset=True)


def _lifetime(body: dict[str, Any]) -> int:
    """Seconds that a key is wanted for.

    Raises:
        RequestError: too many or too few, or another form.
    """
    given = body.get("expires_after")
    if given is None:
        return LONGEST_S
    if not isinstance(given, dict) or given.get("anchor", "created_at") != "created_at":
        raise RequestError("expires_after is counted from created_at", "invalid_value", "expires_after.anchor")
    seconds = given.get("seconds", LONGEST_S)
    if isinstance(seconds, bool) or not isinstance(seconds, int) or not SHORTEST_S <= seconds <= LONGEST_S:
        what = f"expires_after.seconds is {str(seconds)[:20]}; it must be {SHORTEST_S} to {LONGEST_S}"
        raise RequestError(what, "invalid_value", "expires_after.seconds")
    return seconds


def _digest(value: str) -> bytes:
    return hashlib.sha256(value.encode()).digest()
