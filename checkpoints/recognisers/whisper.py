"""Whisper by transformers, of any size and language."""

from __future__ import annotations

from typing import Any

import numpy as np

from ...model.errors import DuologueError
from ..source import one_line
from .recogniser import ENGLISH, RATE, TimedWord, is_silent

_WINDOW_S = 30


class WhisperRecogniser:
    """Whisper by transformers: a folder or hub id. Its timed words share each segment's time by their letters."""

    def __init__(self, path: str, language: str = ENGLISH) -> None:
        from transformers import AutoProcessor, WhisperForConditionalGeneration

        try:
            self._processor: Any = AutoProcessor.from_pretrained(path)
            self._model: Any = WhisperForConditionalGeneration.from_pretrained(path).eval()
        except (OSError, ValueError) as error:
            raise DuologueError(f"no Whisper model at {path!r}: {one_line(error)}") from None
        # One of English alone takes no language.
        multilingual = bool(getattr(self._model.generation_config, "is_multilingual", False))
        self._spoken = {"language": language, "task": "transcribe"} if multilingual else {}
        self.name = f"Whisper ({path})"

    def __call__(self, waveform: np.ndarray) -> str:
        """What is said in ``waveform`` (n,): Whisper's text, windows of 30 s joined."""
        return " ".join(text for text, _, _ in self._segments(waveform)).strip()

    def words(self, waveform: np.ndarray) -> list[TimedWord]:
        out = []
        for text, start, end in self._segments(waveform):
            each = (end - start) / max(1, len(text))
            position = 0
            for word in text.split():
                position = text.index(word, position)
                out.append(TimedWord(word, start + each * position, start + each * (position + len(word))))
                position += len(word)
        return out

    def _segments(self, waveform: np.ndarray) -> list[tuple[str, float, float]]:
        import torch

        out = []
        for start in range(0, len(waveform), _WINDOW_S * RATE):
            window = waveform[start : start + _WINDOW_S * RATE]
            if is_silent(window):
                continue
            features = self._processor(window, sampling_rate=RATE, return_tensors="pt").input_features
            with torch.inference_mode():
                ids = self._model.generate(features, **self._spoken)
            text = self._processor.batch_decode(ids, skip_special_tokens=True)[0].strip()
            out.append((text, start / RATE, (start + len(window)) / RATE))
        return out
