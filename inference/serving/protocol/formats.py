"""The sounds of the protocol: 16-bit PCM at 24 kHz, and G.711 at 8 kHz; to and from float samples at the model's rate.

Source of the companding laws: ITU-T G.711 (1988), tables 1a to 2b.
"""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass
from enum import Enum

import numpy as np

from ....data_prep.audio import resampled
from ....model.errors import DuologueError


class AudioFormat(Enum):
    """By the protocol's names."""

    PCM = "audio/pcm"
    MU_LAW = "audio/pcmu"
    A_LAW = "audio/pcma"

    @property
    def rate(self) -> int:
        """Hz."""
        return 24_000 if self is AudioFormat.PCM else 8_000


def _mu_law() -> np.ndarray:
    code = ~np.arange(256) & 0xFF
    magnitude = (((code & 15) << 3) + 132 << (code >> 4 & 7)) - 132
    return np.where(code & 0x80, -magnitude, magnitude)


def _a_law() -> np.ndarray:
    code = np.arange(256) ^ 0x55
    exponent, mantissa = code >> 4 & 7, code & 15
    magnitude = np.where(exponent == 0, (mantissa << 4) + 8, ((mantissa << 4) + 264) << np.maximum(exponent - 1, 0))
    return np.where(code & 0x80, magnitude, -magnitude)


def _nearest(levels: np.ndarray) -> np.ndarray:
    """The code of the nearest level, for each of -32768 … 32767."""
    order = np.argsort(levels, kind="stable")
    ordered = levels[order]
    return order[np.searchsorted((ordered[1:] + ordered[:-1]) / 2, np.arange(-32768, 32768))].astype(np.uint8)


LEVELS = {AudioFormat.MU_LAW: _mu_law().astype(np.int16), AudioFormat.A_LAW: _a_law().astype(np.int16)}
_CODES = {law: _nearest(levels.astype(np.int64)) for law, levels in LEVELS.items()}


def decode(data: bytes, format_: AudioFormat) -> np.ndarray:
    """Bytes -> (n,) float32 in [-1, 1) at the format's rate.

    Raises:
        DuologueError: half a sample.
    """
    if format_ is AudioFormat.PCM:
        if len(data) % 2:
            raise DuologueError(f"{len(data)} bytes of audio; 16-bit PCM has an even number of them")
        samples = np.frombuffer(data, "<i2")
    else:
        samples = LEVELS[format_][np.frombuffer(data, np.uint8)]
    return samples.astype(np.float32) / 32768


def encode(pcm: np.ndarray, format_: AudioFormat) -> bytes:
    """(n,) floats in [-1, 1] at the format's rate -> bytes."""
    samples = np.round(np.clip(pcm, -1, 1) * 32767).astype(np.int32)
    if format_ is AudioFormat.PCM:
        return samples.astype("<i2").tobytes()
    return _CODES[format_][samples + 32768].tobytes()


def from_base64(text: str) -> bytes:
    """What stands in an event as base64.

    Raises:
        DuologueError: it is none.
    """
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise DuologueError("the audio is not base64") from None


def in_seconds(data: bytes, format_: AudioFormat) -> list[bytes]:
    """Pieces of a second each, so that no step with a long sound is long."""
    size = format_.rate * (2 if format_ is AudioFormat.PCM else 1)
    return [data[i : i + size] for i in range(0, len(data), size)]


def to_base64(pcm: np.ndarray, rate: int, format_: AudioFormat) -> str:
    """A whole sound (n,) at ``rate`` as base64 in the format."""
    return base64.b64encode(encode(resampled(pcm, rate, format_.rate), format_)).decode()


@dataclass
class Resampler:
    """A stream of samples at one rate -> the same at another, some milliseconds later."""

    rate: int
    wanted: int

    def __post_init__(self) -> None:
        import soxr

        # The better filters hold back more: 10 ms between 16 and 24 kHz, but 44 ms and more to and from 8 kHz.
        quality = "HQ" if min(self.rate, self.wanted) >= 16_000 else "LQ"
        self._stream = (
            soxr.ResampleStream(self.rate, self.wanted, 1, dtype="float32", quality=quality)
            if self.rate != self.wanted
            else None
        )

    def push(self, pcm: np.ndarray, last: bool = False) -> np.ndarray:
        """(n,) -> (m,); ``last`` gives out what is held back."""
        pcm = np.ascontiguousarray(pcm, np.float32)
        return pcm if self._stream is None else self._stream.resample_chunk(pcm, last=last)


class Framer:
    """What a client appends, cut into a session's frames.

    Args:
        format_: of the client's audio. rate: of the frames, Hz. frame: samples in one.
    """

    def __init__(self, format_: AudioFormat, rate: int, frame: int) -> None:
        self.format = format_
        self._frame = frame
        self._resampler = Resampler(format_.rate, rate)
        self._rest = np.zeros(0, np.float32)

    def push(self, data: bytes) -> list[np.ndarray]:
        """The frames (frame,) that these bytes complete."""
        pcm = np.concatenate([self._rest, self._resampler.push(decode(data, self.format))])
        whole = len(pcm) - len(pcm) % self._frame
        self._rest = pcm[whole:]
        return list(pcm[:whole].reshape(-1, self._frame))

    def flush(self) -> list[np.ndarray]:
        """What is left, filled up with silence to a frame; none if there is nothing."""
        rest, self._rest = self._rest, np.zeros(0, np.float32)
        return [np.pad(rest, (0, self._frame - len(rest)))] if len(rest) else []

    def clear(self) -> None:
        """Drop what is left."""
        self._rest = np.zeros(0, np.float32)
