"""Who may come in: hosts, origins, API keys and those signed in, how much and how fast.

In front of everything but ``/health``, which says only whether the service works: a load balancer asks it by any name
and without a key.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import math
import re
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from ....model.errors import DuologueError
from ..protocol.errors import RequestError
from .client_secrets import OPENS, PREFIX, ClientSecrets
from .hosts import Hosts
from .sign_in import SignIns, Tries

_SUBPROTOCOL_KEY = "openai-insecure-api-key."  # how a browser, which cannot set headers, gives its key
SIGN_IN = "/sign-in"  # where a page, if there is one, takes a key
_ORIGIN = re.compile(r"https?://(\[[0-9A-Fa-f:.]+\]|[^\s/?#@\[\]:]+)(:\d{1,5})?")
_AGAIN_S = 5  # to try again after, where all are busy with long requests
_KNOWN = 1_024  # addresses and keys that were right once: wrong keys from there do not lock them out


@dataclass(frozen=True, kw_only=True)
class AccessConfig:
    """Limits.

    keys: API keys, any of which lets in; none: everybody may come in.
    origins: of web pages, besides our own, that may use the service ("https://example.org"; "*": all).
    bound: the address that is listened on. hosts: other names that the service goes by (see :class:`Hosts`).
    root_path: the folder that a proxy puts the service in ("/talk"), whether it passes it on or not.
    message_bytes: of one WebSocket message. request_bytes: of one HTTP request. requests_bytes: of all HTTP requests
        that are under way, together.
    messages_per_s: of one connection, on average over ten seconds.
    session_s: of one conversation. sessions_per_key: session slots of one key at a time, those of its HTTP requests
        included; None: with several keys all but one, otherwise as many as there are.
    """

    keys: tuple[str, ...] = ()
    origins: tuple[str, ...] = ()
    bound: str = "127.0.0.1"
    hosts: tuple[str, ...] = ()
    root_path: str = ""
    message_bytes: int = 4 << 20
    request_bytes: int = 32 << 20
    requests_bytes: int = 512 << 20
    messages_per_s: float = 200.0
    session_s: float = 3600.0
    sessions_per_key: int | None = None

    def __post_init__(self) -> None:
        for key in self.keys:
            if len(key) < 8 or not key.isascii() or not key.isprintable() or " " in key:
                raise DuologueError("an API key has at least 8 characters, ASCII without spaces")
        for origin in self.origins:
            if origin != "*" and not _ORIGIN.fullmatch(origin):
                raise DuologueError(f"the origin is {origin!r}; it must be like https://example.org, or *")
        for host in self.hosts:
            if not host or "/" in host or " " in host:
                raise DuologueError(f"the host is {host!r}; it must be a name like example.org, or *")
        root = self.root_path
        if root and (root[0] != "/" or root[-1] == "/" or set(root) & set("?# ")):
            raise DuologueError(f"the root path is {root!r}; it must be like /talk")
        for name in ("message_bytes", "request_bytes", "requests_bytes", "messages_per_s", "session_s"):
            if getattr(self, name) <= 0:
                raise DuologueError(f"{name} is {getattr(self, name)}; it must be above 0")


def _joined(raw: Iterable[tuple[bytes, bytes]]) -> dict[str, str]:
    """Headers by their names; of one that came several times, all values: what is checked is what all of them say."""
    found: dict[str, str] = {}
    for name, value in ((name.decode("latin-1").lower(), value.decode("latin-1")) for name, value in raw):
        found[name] = f"{found[name]}{'; ' if name == 'cookie' else ', '}{value}" if name in found else value
    return found


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode()).digest()


class Keys:
    """The API keys, as digests."""

    def __init__(self, keys: tuple[str, ...]) -> None:
        self._digests = [_digest(key) for key in keys]

    def __len__(self) -> int:
        return len(self._digests)

    def find(self, given: str) -> int | None:
        """The number of a key; None: it is none of ours."""
        # Every key is compared, and digests of one length, so that the time says nothing.
        matches = [hmac.compare_digest(_digest(given), digest) for digest in self._digests]
        return matches.index(True) if any(matches) else None


class TooManyTries(RequestError):
    """Too many wrong keys came from there."""

    def __init__(self, wait_s: float) -> None:
        self.retry_s = math.ceil(wait_s)
        super().__init__(
            f"too many wrong keys were given; try again in {self.retry_s} s", "rate_limit_exceeded", status=429
        )


class Access:
    """ASGI middleware. What passes carries ``scope["key"]``: which key it was, as a number, or -1; and
    ``scope["session"]``: what a session begins with, where its key was an ephemeral one.

    Args:
        sign_ins: visitors whose cookie stands for a key, where there is a page to sign in on.
        client_secrets: ephemeral keys, which open sessions alone.
    """

    def __init__(
        self,
        app: Any,
        config: AccessConfig,
        sign_ins: SignIns | None = None,
        client_secrets: ClientSecrets | None = None,
    ) -> None:
        self._app, self._config, self._sign_ins = app, config, sign_ins
        self._secrets = ClientSecrets() if client_secrets is None else client_secrets
        self._keys = Keys(config.keys)
        self._hosts = Hosts(config.bound, config.hosts, config.origins)
        self._under_way = 0  # bytes of HTTP requests
        self._tries = Tries(at_once=100, every_s=1.0, all_at_once=1_000, all_every_s=0.1)
        self._known: OrderedDict[tuple[str, bytes], None] = OrderedDict()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        headers = _joined(scope["headers"])
        scope = {**scope, "path": self._path(scope["path"]), "key": -1}
        try:
            if scope["path"] != "/health":
                self._check_host(scope)
                self._check_origin(headers)
                scope = self._authenticate(scope, headers)
            size = headers.get("content-length", "0")
            if not size.isdigit() or int(size) > self._config.request_bytes:
                raise self._too_large()
        except RequestError as error:
            await refuse(scope, send, error, error.retry_s if isinstance(error, TooManyTries) else None)
            return
        if scope["type"] == "websocket":
            await self._app(scope, receive, send)
        else:
            await self._answer(scope, receive, send)

    def _path(self, path: str) -> str:
        root = self._config.root_path
        return path[len(root) :] or "/" if root and f"{path}/".startswith(f"{root}/") else path

    def _check_host(self, scope: Any) -> None:
        hosts = [value.decode("latin-1") for name, value in scope["headers"] if name.lower() == b"host"]
        if len(hosts) != 1 or not self._hosts.allow(hosts[0]):
            name = hosts[0][:80] if hosts else ""
            raise RequestError(
                f"this service does not go by the name {name!r} (--allow-host adds one)", "host_not_allowed", status=421
            )

    def _check_origin(self, headers: dict[str, str]) -> None:
        """A page of another site must not use a visitor's browser to come in."""
        origin = headers.get("origin")
        if origin is None or "*" in self._config.origins or origin in self._config.origins:
            return
        if origin.lower() not in [f"{scheme}://{headers.get('host', '').lower()}" for scheme in ("http", "https")]:
            raise RequestError("pages of this origin may not use the service", "origin_not_allowed", status=403)

    def _authenticate(self, scope: Any, headers: dict[str, str]) -> Any:
        """The scope with the key's number; with no key, the page is the page to sign in on."""
        if self._sign_ins is not None:
            signed_in = self._sign_ins.key(headers.get("cookie", ""))
            if signed_in is not None:
                return {**scope, "key": signed_in}
            if scope["path"] == SIGN_IN:
                return scope
        try:
            return {**scope, **self._key(headers, scope)}
        except TooManyTries:
            raise
        except RequestError:
            if self._sign_ins is None or scope["path"] != "/" or scope.get("method") not in ("GET", "HEAD"):
                raise
            return {**scope, "path": SIGN_IN}

    def _key(self, headers: dict[str, str], scope: Any) -> dict[str, Any]:
        """What a request's key adds to its scope."""
        scheme, _, given = headers.get("authorization", "").strip().partition(" ")
        given = given.strip() if scheme.lower() == "bearer" else scheme
        for protocol in headers.get("sec-websocket-protocol", "").split(","):
            if protocol.strip().startswith(_SUBPROTOCOL_KEY):
                given = protocol.strip().removeprefix(_SUBPROTOCOL_KEY)
        address = (scope.get("client") or ("",))[0]
        ephemeral = self._secrets.find(given) if given.startswith(PREFIX) else None
        if given.startswith(PREFIX) and ephemeral is None and not len(self._keys):
            raise RequestError("the client secret is none, or has ended", "invalid_api_key", status=401)
        if ephemeral is not None and scope["path"] not in OPENS:
            raise RequestError("a client secret opens Realtime sessions and nothing else", "forbidden", status=403)
        if not len(self._keys) and ephemeral is None:
            return {"key": -1}
        found = self._keys.find(given) if ephemeral is None else ephemeral.key
        known = (address, _digest(given))
        wait_s = self._tries.wait_s(address)
        if wait_s and known not in self._known:
            raise TooManyTries(wait_s)
        if found is None:
            if given:
                self._tries.failed(address)
            raise RequestError("no valid API key was given", "invalid_api_key", status=401)
        self._known[known] = None
        self._known.move_to_end(known)
        while len(self._known) > _KNOWN:
            self._known.popitem(last=False)
        return {"key": found} if ephemeral is None else {"key": found, "session": ephemeral.session}

    async def _answer(self, scope: Any, receive: Any, send: Any) -> None:
        """An HTTP request: HEAD is a GET without its body; a body that proves too long, or one too many, is refused."""
        config, came, begun = self._config, 0, False
        refusal: RequestError | None = None

        async def counted() -> Any:
            nonlocal came, refusal
            message = await receive()
            size = len(message.get("body", b""))
            came, self._under_way = came + size, self._under_way + size
            if came > config.request_bytes:
                refusal = self._too_large()
            elif size and self._under_way > config.requests_bytes:
                refusal = RequestError("too many long requests are under way", "server_overloaded", status=503)
            return message if refusal is None else {"type": "http.disconnect"}

        async def sent(message: Any) -> None:
            nonlocal begun
            if refusal is not None and not begun:
                return  # what the application makes of a body that broke off
            begun = True
            await send({**message, "body": b""} if head and "body" in message else message)

        head = scope["method"] == "HEAD"
        try:
            await self._app({**scope, "method": "GET"} if head else scope, counted, sent)
        except Exception:
            if refusal is None or begun:
                raise
        finally:
            self._under_way -= came
        if refusal is not None and not begun:
            await refuse(scope, send, refusal, _AGAIN_S if refusal.status == 503 else None)

    def _too_large(self) -> RequestError:
        most = self._config.request_bytes
        return RequestError(f"the request is larger than {most} bytes", "too_large", status=413)


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
