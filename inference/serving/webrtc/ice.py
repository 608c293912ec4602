"""STUN and TURN servers, as whoever runs the service names them."""

from __future__ import annotations

from urllib.parse import unquote

from aiortc import RTCIceGatherer, RTCIceServer

from ....model.errors import DuologueError


def ice_server(url: str) -> RTCIceServer:
    """``stun:HOST[:PORT]``, or ``turn:USER:PASSWORD@HOST[:PORT][?transport=tcp]``, and turns: for TLS.

    Raises:
        DuologueError: another form.
    """
    scheme, _, rest = url.partition(":")
    access, at, host = rest.rpartition("@")
    user, _, password = access.partition(":")
    given = {"username": unquote(user), "credential": unquote(password)} if at else {}
    server = RTCIceServer(urls=f"{scheme}:{host}", **given)
    try:
        RTCIceGatherer([server])
    except ValueError:
        what = "it must be like stun:stun.example.org or turn:USER:PASSWORD@turn.example.org"
        raise DuologueError(f"the ICE server is {scheme}:{host!r}; {what}") from None
    return server
