"""One WebRTC peer: its tracks and its data channel, as a transport of a Realtime session."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from aiortc import (
    RTCBundlePolicy,
    RTCConfiguration,
    RTCDataChannel,
    RTCIceServer,
    RTCPeerConnection,
    RTCRtpSender,
    RTCSessionDescription,
    rtcrtpreceiver,
)
from aiortc.exceptions import InvalidStateError

from ..protocol.errors import RequestError
from ..protocol.events import event
from ..transports.transport import End, Gone, TooFast, TooLarge
from .incomplete import bound
from .loudspeaker import Loudspeaker
from .microphone import Microphone

CHANNEL = "oai-events"
_INBOX, _INBOX_BYTES = 2_000, 8 << 20  # messages that may wait to be read, and bytes of them
_LAST_S, _LAST_PACKETS_S = 1.0, 0.1  # that the last events may take, and that what carries them is on its way
_UNSENT = 1 << 20  # bytes that the data channel holds before the next event waits


@dataclass(frozen=True)
class Tap:
    """In the place of a receiver's jitter buffer: packets go to the microphone, and none to aiortc's decoder."""

    microphone: Microphone

    def add(self, packet: Any) -> tuple[bool, None]:
        self.microphone.arrived(packet.sequence_number, packet.timestamp, packet.payload)
        return False, None


class Peer:
    """The server's end of a call.

    Args:
        ice_servers: STUN and TURN servers; none: the client reaches this machine's own addresses.
        hear: takes what the user says, 16-bit samples at 24 kHz. take: gives what is to be played next, so many samples
            at 48 kHz. count: is told of seconds that were heard, and of those that were lost on the way.
    """

    def __init__(
        self,
        ice_servers: list[RTCIceServer],
        hear: Callable[[bytes], None],
        take: Callable[[int], np.ndarray],
        count: Callable[[float, float], None],
    ) -> None:
        self._connection = RTCPeerConnection(RTCConfiguration(ice_servers, bundlePolicy=RTCBundlePolicy.MAX_BUNDLE))
        self._microphone, self._loudspeaker = Microphone(hear, count), Loudspeaker(take)
        self._channel: RTCDataChannel | None = None
        self._has_channel = True
        self._opened, self._drained = asyncio.Event(), asyncio.Event()
        self._inbox: asyncio.Queue[str | bytes | Exception] = asyncio.Queue()
        self._inbox_bytes = 0
        self.connected, self.gone = asyncio.Event(), asyncio.Event()
        self._connection.on("connectionstatechange", self._changed)
        self._connection.on("datachannel", self._offered)

    async def answer(self, offer: str) -> str:
        """The SDP answer to a checked offer.

        Raises:
            RequestError: the offer cannot be answered.
        """
        with jitter_buffer(Tap(self._microphone)):
            transceiver = self._connection.addTransceiver(self._loudspeaker, "sendrecv")
        opus = [c for c in RTCRtpSender.getCapabilities("audio").codecs if c.mimeType.lower() == "audio/opus"]
        transceiver.setCodecPreferences(opus)
        try:
            await self._connection.setRemoteDescription(RTCSessionDescription(offer, "offer"))
            await self._connection.setLocalDescription(await self._connection.createAnswer())
        except Exception:  # whatever it stumbles over
            raise RequestError("the SDP offer cannot be answered", "invalid_value", "sdp") from None
        self._has_channel = self._connection.sctp is not None
        if self._connection.sctp is not None:
            bound(self._connection.sctp, partial(self._end, TooLarge()))
        answer: str = self._connection.localDescription.sdp
        return answer

    def hang_up(self) -> None:
        """Let it end: there is nothing more to receive."""
        self.gone.set()
        self._inbox.put_nowait(Gone())

    async def receive(self) -> str | bytes:
        """The client's next message. Raises Gone, TooFast, TooLarge."""
        message = await self._inbox.get()
        if isinstance(message, Exception):
            raise message
        self._inbox_bytes -= len(message)
        return message

    async def send(self, text: str) -> None:
        """One event, once the channel is open and has room. Raises Gone."""
        if not self._has_channel:
            return
        await self._opened.wait()
        channel = self._channel
        assert channel is not None
        try:
            channel.send(text)
        except ValueError as error:
            large = RequestError(f"an event is too large for the data channel: {error}"[:200], "too_large")
            channel.send(event("error", {"error": {**large.body(), "event_id": None}}))
        except InvalidStateError:
            raise Gone from None
        while channel.bufferedAmount > _UNSENT and not self.gone.is_set():
            self._drained.clear()
            await self._drained.wait()

    async def close(self, end: End | None = None) -> None:
        """Close it, once the last events have been sent, if it has an ``end`` to be told of."""
        channel, left = self._channel, self.gone.is_set() and end not in (End.TOO_FAST, End.TOO_LARGE)
        self.gone.set()
        if end is not None and channel is not None and not left:
            channel.bufferedAmountLowThreshold = 0
            self._drained.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_LAST_S):
                    if channel.bufferedAmount:
                        await self._drained.wait()
                    await asyncio.sleep(_LAST_PACKETS_S)
        self._drained.set()
        await self._connection.close()

    def _changed(self) -> None:
        if self._connection.connectionState == "connected":
            self.connected.set()
        elif self._connection.connectionState in ("failed", "closed"):
            self.hang_up()

    def _offered(self, channel: RTCDataChannel) -> None:
        """The client has opened a data channel."""
        if self._channel is not None or channel.label != CHANNEL:
            channel.close()
            return
        self._channel = channel
        channel.bufferedAmountLowThreshold = _UNSENT // 2
        channel.on("message", self._came)
        channel.on("bufferedamountlow", self._drained.set)
        self._opened.set()

    def _came(self, message: str | bytes) -> None:
        if self._inbox.qsize() >= _INBOX or self._inbox_bytes + len(message) > _INBOX_BYTES:
            self._end(TooFast())
        elif not self.gone.is_set():
            self._inbox_bytes += len(message)
            self._inbox.put_nowait(message)


    def _end(self, why: TooFast | TooLarge) -> None:
        """The client sends more than may be held."""
        if not self.gone.is_set():
            self.gone.set()
            self._inbox.put_nowait(why)


@contextmanager
def jitter_buffer(instead: Tap) -> Iterator[None]:
    """Receivers that are made meanwhile have another jitter buffer. (aiortc's own takes 80 ms, 300 ms once a packet was
    lost, and offers no choice.)"""
    usual: Any = rtcrtpreceiver.JitterBuffer
    rtcrtpreceiver.JitterBuffer = lambda **_: instead  # type: ignore[assignment, misc]
    try:
        yield
    finally:
        rtcrtpreceiver.JitterBuffer = usual  # type: ignore[misc]
