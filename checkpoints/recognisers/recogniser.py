"""What a recogniser is, and which one a name means: pocketsphinx, always there, offline; Whisper where its weights are.

pocketsphinx errs on a synthesiser's own speech too, so its word error rates are read beside that of the synthesiser's
rendering of the same texts.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from ...model.errors import DuologueError
from ..files import expanded

RATE = 16_000  # Hz, what the acoustic models were trained on
QUIET = 33 / 32_768  # -60 dBFS: the peak of what is quieter than any word
SHORTEST = RATE // 10  # samples: what is shorter than any word
VARIABLE = "DUOLOGUE_RECOGNISER"
POCKETSPHINX, ENGLISH = "pocketsphinx", "en"
CTRANSLATE2 = "model.bin"


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


def usual_recogniser() -> str:
    """The name in the environment's DUOLOGUE_RECOGNISER; without one, pocketsphinx."""
    return os.environ.get(VARIABLE) or POCKETSPHINX


def find_recogniser(name: str | None = None, language: str = ENGLISH) -> Recogniser:
    """Pocketsphinx by that name; any other is a folder or hub id of a Whisper, CTranslate2's (which has a model.bin) or
    transformers'.

    Args:
        name: None: :func:`usual_recogniser`.
        language: of what is said, by its ISO 639 code ("de").

    Raises:
        DuologueError: it cannot be loaded, or does not know the language.
    """
    name = name or usual_recogniser()
    if name == POCKETSPHINX:
        if language != ENGLISH:
            raise DuologueError(f"pocketsphinx knows English alone, not {language!r}: give recogniser=, a Whisper")
        from .pocketsphinx import PocketSphinx

        return PocketSphinx()
    if folder := _ctranslate2(name):
        from .faster_whisper import FasterWhisper

        return FasterWhisper(folder, language)
    from .whisper import WhisperRecogniser

    return WhisperRecogniser(name, language)


def _ctranslate2(name: str) -> Path | None:
    """The folder of a Whisper of CTranslate2, downloaded once; None: it is none."""
    folder = expanded(name)
    if folder.exists():
        return folder if (folder / CTRANSLATE2).is_file() else None
    from huggingface_hub import hf_hub_download, snapshot_download

    try:
        hf_hub_download(name, CTRANSLATE2)
        return Path(snapshot_download(name, allow_patterns=["*.json", "*.txt", CTRANSLATE2]))
    except (OSError, ValueError):  # not there, not reached, no name of the hub's: transformers says which
        return None
