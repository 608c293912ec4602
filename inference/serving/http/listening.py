"""The socket that a service listens on, and its address as people write it. Imports nothing heavy: it comes first."""

from __future__ import annotations

import socket
import ssl
from dataclasses import dataclass
from pathlib import Path

from ....model.errors import DuologueError


@dataclass(frozen=True, kw_only=True)
class TlsConfig:
    """A certificate (PEM, its chain behind it) and its key, which may stand in the same file.

    Raises:
        DuologueError: they cannot be read, do not belong together, or want a password.
    """

    certfile: Path
    keyfile: Path | None = None

    def __post_init__(self) -> None:
        for path in filter(None, (self.certfile, self.keyfile)):
            if not path.is_file():
                raise DuologueError(f"{path} is no file; --certfile and --keyfile name PEM files")
        try:
            ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(self.certfile, self.keyfile, password=lambda: "")
        except (OSError, ValueError) as error:
            key = "the key in it" if self.keyfile is None else str(self.keyfile)
            raise DuologueError(
                f"{self.certfile} and {key} cannot be used: {error}; both must be PEM, the key the certificate's own "
                "and without a password"
            ) from None


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens; port 0: any free one. Who connects before the service is ready waits for it.

    Raises:
        DuologueError: the port is taken, or the address is not this machine's.
    """
    try:
        found = socket.getaddrinfo(host or "-", port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError):
        raise DuologueError(f"cannot serve on {host!r}: there is no such address or name (--host)") from None
    family, _, _, _, where = min(found, key=lambda each: each[0] != socket.AF_INET)  # localhost: 127.0.0.1 before ::1
    listening = socket.socket(family, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind(where)
        listening.listen(128)
    except OSError:
        listening.close()
        taken = "the port is taken, or the address is not this machine's"
        raise DuologueError(f"cannot serve on {host}, port {port}: {taken} (--port 0 takes any free port)") from None
    return listening


def address(host: str, listening: socket.socket, tls: bool = False) -> str:
    """http://host:port; an IPv6 address in brackets."""
    named = f"[{host}]" if ":" in host else host
    return f"http{'s' if tls else ''}://{named}:{listening.getsockname()[1]}"
