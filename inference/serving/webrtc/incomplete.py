"""A bound on the messages of a data channel that have not come as a whole.

aiortc shows a message once it has put it together from its pieces. It tells the sender how many bytes it will hold
until then, and does not see to it; nor does it count pieces or streams. Who keeps to the window never meets this bound.
"""

from __future__ import annotations

from collections.abc import Callable

from aiortc import RTCSctpTransport

_BEYOND = 64 << 10  # bytes over the window: what is under way when it closes, and what asks whether it has opened
_PIECES = 4_096  # of all messages; the window holds 900 of the usual size
_STREAMS = 64


def bound(sctp: RTCSctpTransport, exceeded: Callable[[], None]) -> None:
    """Call ``exceeded``, once, where a client sends more of incomplete messages; nothing more is taken from it."""
    usual, over = sctp._handle_data, False

    async def handle(data: bytes) -> None:
        nonlocal over
        if over:
            return
        await usual(data)
        streams = sctp._inbound_streams
        pieces = sum(len(stream.reassembly) for stream in streams.values())
        if sctp._advertised_rwnd < -_BEYOND or pieces > _PIECES or len(streams) > _STREAMS:
            over = True
            streams.clear()
            exceeded()

    sctp._handle_data = handle  # type: ignore[method-assign]
