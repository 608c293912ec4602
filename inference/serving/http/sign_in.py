"""Signing in to the page: wrong keys are limited, and a right one becomes a token in a cookie.

The cookie is not the key: it ends after :data:`LASTS_S`, with the server, or with a sign-out. Only digests of
tokens are kept. It has no Path, so it belongs to the folder that the page was asked for in, whatever proxy is in front.
"""

from __future__ import annotations

import hashlib
import ipaddress
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable

COOKIE = "duologue_session"
LASTS_S = 12 * 3600
_MOST = 1_000  # tokens of one key; its oldest ends first
_ADDRESSES = 4_096  # whose wrong keys are counted


class SignIns:
    """Who is signed in, and with which key (its number)."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._found: OrderedDict[bytes, tuple[int, float]] = OrderedDict()

    def open(self, key: int) -> str:
        """A new token."""
        token = secrets.token_urlsafe(32)
        same = [known for known, (its, _) in self._found.items() if its == key]
        for known in same[: max(0, len(same) + 1 - _MOST)]:
            del self._found[known]
        self._found[_digest(token)] = (key, self._now() + LASTS_S)
        return token

    def key(self, cookies: str) -> int | None:
        """The key that a request's cookies stand for."""
        for token in tokens(cookies):
            key, until = self._found.get(_digest(token), (-1, 0.0))
            if self._now() < until:
                return key
            self._found.pop(_digest(token), None)
        return None

    def close(self, cookies: str) -> None:
        """Sign out."""
        for token in tokens(cookies):
            self._found.pop(_digest(token), None)


class Tries:
    """Wrong keys: so many at once, then one each so many seconds; of one address, and of all together.

    Memory is bounded: of more than 4,096 addresses the one that was counted first is forgotten.
    """

    def __init__(
        self,
        at_once: int,
        every_s: float,
        all_at_once: float = float("inf"),
        all_every_s: float = 0.0,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._one, self._all = (at_once, every_s), (all_at_once, all_every_s)
        self._now = now
        self._paid: OrderedDict[str, float] = OrderedDict()  # until when an address has used up its tries
        self._paid_by_all = 0.0

    def wait_s(self, address: str) -> float:
        """Seconds until another key may be tried from an address; 0: at once."""
        at_once, every_s = self._one
        wait = self._paid.get(_network(address), 0.0) - (at_once - 1) * every_s
        if self._all[1]:
            wait = max(wait, self._paid_by_all - (self._all[0] - 1) * self._all[1])
        return max(0.0, wait - self._now())

    def failed(self, address: str) -> None:
        """Count a wrong key."""
        now, name = self._now(), _network(address)
        self._paid[name] = max(now, self._paid.pop(name, 0.0)) + self._one[1]
        self._paid_by_all = max(now, self._paid_by_all) + self._all[1]
        while len(self._paid) > _ADDRESSES:
            self._paid.popitem(last=False)


def tokens(cookies: str) -> list[str]:
    """The tokens in a Cookie header."""
    pairs = (part.strip().partition("=") for part in cookies.split(";"))
    return [value for name, _, value in pairs if name == COOKIE and value][:4]


def set_cookie(token: str, secure: bool) -> str:
    """The value of a Set-Cookie header; an empty token ends it."""
    lasts = f"Max-Age={LASTS_S if token else 0}"
    return f"{COOKIE}={token}; {lasts}; HttpOnly; SameSite=Strict{'; Secure' if secure else ''}"


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "replace")).digest()


def _network(address: str) -> str:
    """Whoever has one IPv6 address has a whole network of them."""
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return address[:64]
    return address if found.version == 4 else str(ipaddress.ip_network((int(found), 64), strict=False))
