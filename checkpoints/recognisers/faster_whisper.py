"""Whisper by faster-whisper, of any size and language: four times as fast as transformers', with times of its words."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from ...model.errors import DuologueError
from ..source import one_line
from .recogniser import TimedWord, is_silent


class FasterWhisper:
    """Whisper in a folder of CTranslate2. Word times are those of its cross-attention.

    It searches with a beam of five and never samples, and no text is carried over from window to window, so that the
    same sound is always the same text.

    Args:
        language: ISO 639 code of what is said.

    Raises:
        DuologueError: faster-whisper is not installed, the folder holds no Whisper, or it does not know the language.
    """

    def __init__(self, folder: Path, language: str) -> None:
        try:
            from faster_whisper import WhisperModel
        except ImportError:
            raise DuologueError("faster-whisper is not installed: pip install 'duologue[whisper]'") from None
        try:
            self._model: Any = WhisperModel(str(folder), compute_type="auto", local_files_only=True)
        except (OSError, RuntimeError, ValueError) as error:
            raise DuologueError(f"no Whisper model at {str(folder)!r}: {one_line(error)}") from None
        if language not in self._model.supported_languages:
            raise DuologueError(f"the Whisper at {str(folder)!r} does not know the language {language!r}")
        self._language = language
        self.name = f"Whisper ({folder})"

    def __call__(self, waveform: np.ndarray) -> str:
        """What is said in ``waveform`` (n,), with capitals and punctuation."""
        return "".join(segment.text for segment in self._segments(waveform, False)).strip()

    def words(self, waveform: np.ndarray) -> list[TimedWord]:
        """The same words with their times."""
        return [
            TimedWord(word.word.strip(), float(word.start), float(word.end))
            for segment in self._segments(waveform, True)
            for word in segment.words or ()
            if word.word.strip()
        ]

    def _segments(self, waveform: np.ndarray, timed: bool) -> Iterator[Any]:
        if is_silent(waveform):
            return  # it would still find a word
        segments, _ = self._model.transcribe(
            waveform.astype(np.float32), language=self._language, temperature=0.0, word_timestamps=timed,
            condition_on_previous_text=False,
        )  # fmt: skip
        yield from segments
