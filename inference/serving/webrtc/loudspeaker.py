"""A call's loudspeaker: what is to be played, as packets of Opus, one each 20 ms by our clock."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from fractions import Fraction

import av
import numpy as np
from aiortc import MediaStreamTrack
from aiortc.mediastreams import MediaStreamError

RATE = 48_000  # Hz
SAMPLES = 960  # in a packet
_PACKET_S = SAMPLES / RATE
_BEHIND_S = 0.2  # that the clock may make up for; what is later than that is not hurried
_OPTIONS = {"application": "voip", "frame_duration": "20", "fec": "1", "packet_loss": "10"}
_BITS_PER_S = 40_000


class Loudspeaker(MediaStreamTrack):
    """The track.

    Args:
        take: gives the next samples, so many, (n,) float32 at RATE.
    """

    kind = "audio"

    def __init__(self, take: Callable[[int], np.ndarray]) -> None:
        super().__init__()
        self._take = take
        self._encoder: av.AudioCodecContext = av.CodecContext.create("libopus", "w")
        self._encoder.format, self._encoder.layout = "s16", "mono"
        self._encoder.sample_rate, self._encoder.time_base = RATE, Fraction(1, RATE)
        self._encoder.bit_rate, self._encoder.options = _BITS_PER_S, _OPTIONS
        self._due: float | None = None
        self._count = 0

    async def recv(self) -> av.Packet:
        """The next packet, when it is due."""
        while True:
            if self.readyState != "live":
                raise MediaStreamError
            now = time.monotonic()
            self._due = now if self._due is None or now - self._due > _BEHIND_S else self._due + _PACKET_S
            if (wait_s := self._due - now) > 0:
                await asyncio.sleep(wait_s)
            samples = np.round(np.clip(self._take(SAMPLES), -1, 1) * 32_767).astype(np.int16)
            frame = av.AudioFrame.from_ndarray(samples[None], format="s16", layout="mono")
            frame.sample_rate, frame.pts, frame.time_base = RATE, self._count * SAMPLES, Fraction(1, RATE)
            self._count += 1
            for packet in self._encoder.encode(frame):
                packet.pts, packet.time_base = self._count * SAMPLES, Fraction(1, RATE)
                return packet
