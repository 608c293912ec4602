"""What a recogniser is, and which one a name means: pocketsphinx, always there, offline; Whisper where its weights are.

pocketsphinx errs on a synthesiser's own speech too, so its word error rates are read beside that of the synthesiser's
rendering of the same texts.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

RATE = 16_000  # Hz, what the acoustic models were trained on
QUIET = 33 / 32_768  # -60 dBFS: the peak of what is quieter than any word
SHORTEST = RATE // 10  # samples: what is shorter than any word


@dataclass(frozen=True)
class TimedWord:
    """A word, and from when to when it was heard (s)."""

    text: str
    start_s: float
    end_s: float


class Recogniser(Protocol):
    """Transcribes one utterance at a time, (n,) float32 in [-1, 1] at 16 kHz; the result depends on it alone."""

    name: str

    def __call__(self, waveform: np.ndarray) -> str: ...

    def words(self, waveform: np.ndarray) -> list[TimedWord]: ...


def is_silent(waveform: np.ndarray) -> bool:
    """Whether ``waveform`` (n,) is shorter or quieter than any word."""
    return len(waveform) < SHORTEST or float(np.abs(waveform).max()) < QUIET


def find_recogniser(name: str = "pocketsphinx") -> Recogniser:
    """Pocketsphinx by that name; any other is a folder or hub id of a Whisper model in transformers' form.

    Raises:
        DuologueError: it cannot be loaded.
    """
    if name == "pocketsphinx":
        from .pocketsphinx import PocketSphinx

        return PocketSphinx()
    from .whisper import WhisperRecogniser

    return WhisperRecogniser(name)
