"""Who may come in: API keys, origins, how much and how fast. In front of everything but ``/health``."""

from __future__ import annotations

import hashlib
import hmac
import json
import time
from collections import Counter
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from ...model.errors import DuologueError
from .errors import RequestError

_SUBPROTOCOL_KEY = "openai-insecure-api-key."  # how a browser, which cannot set headers, gives its key


@dataclass(frozen=True, kw_only=True)
class AccessConfig:
    """Limits.

    keys: API keys, any of which opens the door; none: it stands open.
    origins: of web pages, besides our own, that may use the service ("https://example.org"; "*": all).
    message_bytes: of one WebSocket message. request_bytes: of one HTTP request.
    messages_per_s: of one connection, on average over ten seconds.
    session_s: of one conversation. sessions_per_key: at a time; None: as many as fit.
    """

    keys: tuple[str, ...] = ()
    origins: tuple[str, ...] = ()
    message_bytes: int = 4 << 20
    request_bytes: int = 32 << 20
    messages_per_s: float = 200.0
    session_s: float = 3600.0
    sessions_per_key: int | None = None

    def __post_init__(self) -> None:
        for key in self.keys:
            if len(key) < 8 or not key.isascii() or not key.isprintable() or " " in key:
                raise DuologueError("an API key has at least 8 characters, ASCII without spaces")
        for name in ("message_bytes", "request_bytes", "messages_per_s", "session_s"):
            if getattr(self, name) <= 0:
                raise DuologueError(f"{name} is {getattr(self, name)}; it must be above 0")


class Rate:
    """So many messages a second, ten seconds' worth of them at once."""

    def __init__(self, per_s: float) -> None:
        self._per_s, self._left, self._when = per_s, 10 * per_s, time.monotonic()

    def take(self) -> bool:
        """Whether one more may come."""
        now = time.monotonic()
        self._left = min(10 * self._per_s, self._left + (now - self._when) * self._per_s)
        self._when = now
        self._left -= 1
        return self._left >= 0


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode()).digest()


class Access:
    """ASGI middleware. What passes carries ``scope["key"]``: which key it was, as a number, or -1."""

    def __init__(self, app: Any, config: AccessConfig) -> None:
        self._app, self._config = app, config
        self._digests = [_digest(key) for key in config.keys]

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
        try:
            if scope["path"] != "/health":
                scope["key"] = self._key(headers)
                self._check_origin(headers)
            size = headers.get("content-length", "0")
            if not size.isdigit() or int(size) > self._config.request_bytes:
                raise RequestError(
                    f"the request is larger than {self._config.request_bytes} bytes", "too_large", status=413
                )
        except RequestError as error:
            await refuse(scope, send, error)
            return
        await self._app(scope, self._limited(receive) if scope["type"] == "http" else receive, send)

    def _key(self, headers: dict[str, str]) -> int:
        if not self._digests:
            return -1
        given = headers.get("authorization", "").removeprefix("Bearer ").strip()
        for protocol in headers.get("sec-websocket-protocol", "").split(","):
            if protocol.strip().startswith(_SUBPROTOCOL_KEY):
                given = protocol.strip().removeprefix(_SUBPROTOCOL_KEY)
        # Every key is compared, and digests of one length, so that the time says nothing.
        matches = [hmac.compare_digest(_digest(given), digest) for digest in self._digests]
        if not any(matches):
            raise RequestError("no valid API key was given", "invalid_api_key", status=401)
        return matches.index(True)

    def _check_origin(self, headers: dict[str, str]) -> None:
        """A page of another site must not use a visitor's browser to come in."""
        origin = headers.get("origin")
        if origin is None or "*" in self._config.origins or origin in self._config.origins:
            return
        if urlsplit(origin).netloc != headers.get("host"):
            raise RequestError("pages of this origin may not use the service", "origin_not_allowed", status=403)

    def _limited(self, receive: Any) -> Any:
        """Counts what comes without a content-length."""
        left = self._config.request_bytes

        async def counted() -> Any:
            nonlocal left
            message = await receive()
            left -= len(message.get("body", b""))
            return message if left >= 0 else {"type": "http.disconnect"}

        return counted


async def refuse(scope: Any, send: Any, error: RequestError, retry_s: int | None = None) -> None:
    """An error instead of what was asked for; to a WebSocket, instead of its opening."""
    kind = "websocket.http.response" if scope["type"] == "websocket" else "http.response"
    if scope["type"] == "websocket" and "websocket.http.response" not in scope.get("extensions", {}):
        await send({"type": "websocket.close", "code": 1008, "reason": str(error)[:120]})
        return
    body = json.dumps({"error": error.body()}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    if retry_s is not None:
        headers.append((b"retry-after", str(retry_s).encode()))
    if error.status == 401:
        headers.append((b"www-authenticate", b"Bearer"))
    await send({"type": f"{kind}.start", "status": error.status, "headers": headers})
    await send({"type": f"{kind}.body", "body": body})


class PerKey:
    """Conversations at a time of each key."""

    def __init__(self, limit: int | None) -> None:
        self._limit, self._counts = limit, Counter[int]()

    def enter(self, key: int) -> None:
        """One more.

        Raises:
            RequestError: it has as many as it may.
        """
        if self._limit is not None and self._counts[key] >= self._limit:
            raise RequestError(f"this key has {self._limit} conversations already", "rate_limit_exceeded", status=429)
        self._counts[key] += 1

    def leave(self, key: int) -> None:
        """One less."""
        self._counts[key] -= 1
