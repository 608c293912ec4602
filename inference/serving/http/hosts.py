"""The names by which a service may be asked for: what keeps other sites' pages out that rebind a name of theirs to us.

In DNS rebinding a page of evil.example lets its own name point to this machine; the browser then takes us for
evil.example and lets that page read our answers. Its requests carry that name as their Host, so a list stops it.
Rebinding needs a name: an address in digits is safe.
"""

from __future__ import annotations

import ipaddress
import re
import socket
from collections.abc import Iterable
from urllib.parse import urlsplit

_HOST = re.compile(r"(?:\[(?P<v6>[0-9a-f:.]+)(?:%[\w.-]+)?\]|(?P<name>[\w.-]+))(?::(?P<port>\d{1,5}))?", re.ASCII)


class Hosts:
    """Which hosts are ours.

    This machine's loopback names and the address that the service is bound to always are. Bound to all addresses
    (0.0.0.0, ::), any address in digits is, and this machine's own name.

    Args:
        bound: the address, or the name, that the service listens on.
        names: others: example.org, example.org:8443 (that port only), *.example.org, or * for all.
        origins: of pages that may use the service; their hosts are names of ours too.
    """

    def __init__(self, bound: str, names: Iterable[str] = (), origins: Iterable[str] = ()) -> None:
        self._names = {name.strip().lower() for name in names}
        self._names |= {urlsplit(origin).netloc.lower() for origin in origins if origin != "*"}
        self._names |= {bound.lower()}
        self._bound = _address(bound)
        if self._everywhere():
            own = socket.gethostname().lower()
            self._names |= {own, own.partition(".")[0], f"{own.partition('.')[0]}.local"}

    def allow(self, host: str) -> bool:
        """Whether a Host header, with or without a port, names us."""
        if "*" in self._names:
            return True
        found = _HOST.fullmatch(host.strip().lower())
        if found is None:
            return False
        name = found["v6"] or found["name"].rstrip(".")
        port = found["port"]
        address = _address(name)
        if address is not None:
            ours = address.is_loopback or address == self._bound or self._everywhere()
            return ours or self._named(str(address), port) or self._named(f"[{address}]", port)
        return name == "localhost" or name.endswith(".localhost") or self._named(name, port)

    def _everywhere(self) -> bool:
        return self._bound is not None and self._bound.is_unspecified

    def _named(self, name: str, port: str | None) -> bool:
        parents = [f"*{name[at:]}" for at, letter in enumerate(name) if letter == "."]
        return any(each in self._names or f"{each}:{port}" in self._names for each in (name, *parents))


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        found = ipaddress.ip_address(text.partition("%")[0].strip("[]"))
    except ValueError:
        return None
    return (found.ipv4_mapped or found) if isinstance(found, ipaddress.IPv6Address) else found
