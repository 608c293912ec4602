"""A call's microphone: RTP packets of Opus as they arrive -> 16-bit samples at 24 kHz, without gaps.

It is heard, not played: a packet is decoded as soon as those before it are, and waits for them only where one is
missing. What is lost is filled up, so that the session's time goes on as the user's does.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from fractions import Fraction

import av
import numpy as np
import soxr

RATE = 48_000  # Hz, of Opus on RTP
OUT_RATE = 24_000  # Hz, of the protocol's PCM
_PATIENCE = 5  # packets that may arrive before one that is missing; then it is lost
_FAR = 100  # packets: a jump of so many begins anew
_LONGEST_GAP_S = 1.0  # is filled up; where more is missing, the microphone had stopped
_BURST_S, _PACE = 3.0, 1.02  # seconds that may come at once, and from then on a second


class Reordering:
    """Packets by their sequence numbers (16 bits), each as soon as none before it is missing."""

    def __init__(self) -> None:
        self._next: int | None = None
        self._early: dict[int, tuple[int, bytes]] = {}

    def push(self, sequence: int, timestamp: int, payload: bytes) -> list[tuple[int, bytes]]:
        """One that has arrived -> timestamps and payloads that are next."""
        if self._next is None:
            self._next = sequence
        ahead = (sequence - self._next + 0x8000 & 0xFFFF) - 0x8000
        if abs(ahead) >= _FAR:
            self._early.clear()
            self._next, ahead = sequence, 0
        if ahead < 0:  # too late, or twice
            return []
        self._early[sequence] = (timestamp, payload)
        found: list[tuple[int, bytes]] = []
        while self._early:
            packet = self._early.pop(self._next, None)
            if packet is not None:
                found.append(packet)
            elif len(self._early) < _PATIENCE:
                break
            self._next = self._next + 1 & 0xFFFF
        return found


class Microphone:
    """Takes the place of a receiver's jitter buffer.

    Args:
        hear: takes what was said, 16-bit samples at OUT_RATE.
        count: is told of seconds that were heard, and of those that were filled up.
    """

    def __init__(
        self,
        hear: Callable[[bytes], None],
        count: Callable[[float, float], None] = lambda heard, lost: None,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._hear, self._count = hear, count
        self._packets = Reordering()
        self._decoder: av.AudioCodecContext = av.CodecContext.create("libopus", "r")
        self._decoder.format, self._decoder.layout = "s16", "mono"
        self._decoder.sample_rate = RATE
        self._resampler = soxr.ResampleStream(RATE, OUT_RATE, 1, dtype="float32", quality="LQ")
        self._now, self._left_s, self._when = now, _BURST_S, now()
        self._expected: int | None = None  # timestamp of the next packet
        self._last = np.zeros(0, np.float32)

    def arrived(self, sequence: int, timestamp: int, payload: bytes) -> None:
        """A packet has arrived."""
        for its, data in self._packets.push(sequence, timestamp, payload):
            pcm = self._decoded(data, its)
            if not len(pcm):
                continue
            gap = 0 if self._expected is None else (its - self._expected + (1 << 31) & 0xFFFFFFFF) - (1 << 31)
            lost = self._filled(gap) if 0 < gap <= _LONGEST_GAP_S * RATE else pcm[:0]
            self._expected, self._last = its + len(pcm) & 0xFFFFFFFF, pcm
            if not self._may_come((len(lost) + len(pcm)) / RATE):  # faster than anybody speaks
                continue
            self._count(len(pcm) / RATE, len(lost) / RATE)
            sound = self._resampler.resample_chunk(np.concatenate([lost, pcm]))
            if len(sound):
                self._hear((np.clip(sound, -1, 1) * 32_767).astype("<i2").tobytes())

    def _may_come(self, seconds: float) -> bool:
        """Take so much, if there is room for it. (What is left out is not counted: a client that was held up, and then
        sends all at once, is heard again after that.)"""
        now = self._now()
        self._left_s, self._when = min(_BURST_S, self._left_s + _PACE * (now - self._when)), now
        if seconds > self._left_s:
            return False
        self._left_s -= seconds
        return True

    def _decoded(self, data: bytes, timestamp: int) -> np.ndarray:
        """(n,) float32; none: it is no Opus."""
        packet = av.Packet(data)
        packet.pts, packet.time_base = timestamp, Fraction(1, RATE)
        try:
            frames = self._decoder.decode(packet) if data else []
        except (av.FFmpegError, ValueError):
            return np.zeros(0, np.float32)
        pieces = [frame.to_ndarray().reshape(-1).astype(np.float32) / 32_768 for frame in frames]
        return np.concatenate([np.zeros(0, np.float32), *pieces])

    def _filled(self, count: int) -> np.ndarray:
        """(count,) in the place of what is missing: what was before it, fading."""
        out = np.zeros(count, np.float32)
        again = self._last[-count:][::-1]  # mirrored, so that it goes on where it was
        out[: len(again)] = again * np.linspace(1, 0, len(again), dtype=np.float32)
        return out
