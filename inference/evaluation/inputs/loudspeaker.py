"""The way from a loudspeaker back to the microphone: a round trip, a level, and a room. For scenes with an echo."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ....data_prep.speech.engine import SAMPLE_RATE

_LEVELS_DB = (-6.0, -15.0)
_ROOMS_S = (0.2, 0.5)
_DELAY_MS = (50, 1500)
_EARLY = 6  # reflections within the first 50 ms


@dataclass(frozen=True)
class Echo:
    """delay_ms: from the frame after the one in which it is played. level_db: relative to what is played.

    room_s: reverberation time (RT60). direct_db: the direct sound's energy over the rest's. seed: of the room.
    """

    delay_ms: int
    level_db: float
    room_s: float
    direct_db: float
    seed: int

    @classmethod
    def draw(cls, index: int, rng: np.random.Generator) -> Echo:
        """Levels and rooms take turns with ``index``; delay and the room's reflections are drawn."""
        return cls(
            delay_ms=int(rng.integers(_DELAY_MS[0], _DELAY_MS[1] + 1)),
            level_db=_LEVELS_DB[index % 2],
            room_s=_ROOMS_S[index // 2 % 2],
            direct_db=round(rng.uniform(-6, 6), 1),
            seed=int(rng.integers(2**31)),
        )

    def response(self) -> np.ndarray:
        """The room's impulse response (k,) at 16 kHz: direct sound, early reflections, exponentially decaying noise."""
        rng = np.random.default_rng(self.seed)
        time = np.arange(round(self.room_s * SAMPLE_RATE)) / SAMPLE_RATE
        rest = rng.standard_normal(len(time)) * 10 ** (-3 * time / self.room_s)
        onset = round(rng.uniform(0.002, 0.012) * SAMPLE_RATE)
        rest[:onset] = 0
        early = rng.integers(onset, SAMPLE_RATE // 20, _EARLY)
        rest[early] += rng.choice([-1, 1], _EARLY) * rng.uniform(1, 5, _EARLY)
        rest *= 10 ** (-self.direct_db / 20) / np.sqrt(np.sum(rest**2))
        rest[0] = 1
        return (rest * 10 ** (self.level_db / 20) / np.sqrt(np.sum(rest**2))).astype(np.float32)


class Microphone:
    """What it hears of the loudspeaker while ``samples`` are recorded at 16 kHz."""

    def __init__(self, echo: Echo | None, samples: int) -> None:
        self.echo, self._response = echo, None if echo is None else echo.response()
        self._back = np.zeros(samples, np.float32)

    def hear(self, pcm: np.ndarray, at: int) -> np.ndarray:
        """The user's samples (n,) from sample ``at`` on, with the echo; clipped as an input does."""
        return np.clip(pcm + self._back[at : at + len(pcm)], -1, 1)

    def play(self, pcm: np.ndarray, at: int) -> None:
        """The loudspeaker plays (n,) from sample ``at`` on."""
        if self.echo is None or self._response is None:
            return
        size = 1 << (len(pcm) + len(self._response)).bit_length()
        heard = np.fft.irfft(np.fft.rfft(pcm, size) * np.fft.rfft(self._response, size), size)
        begin = at + self.echo.delay_ms * SAMPLE_RATE // 1000
        room = self._back[begin : begin + len(pcm) + len(self._response) - 1]
        room += heard[: len(room)].astype(np.float32)
