"""Independent recognisers of reply speech: pocketsphinx, always there, offline; Whisper where its weights are.

They judge, they never help to answer. pocketsphinx errs on a synthesiser's own speech too, so its word error rates are
read beside that of the synthesiser's rendering of the same texts.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from ....checkpoints.source import one_line
from ....data_prep.audio import resampled
from ....model.errors import DuologueError

RATE = 16_000  # Hz, what the acoustic models were trained on
QUIET = 33  # of 32,768: -60 dBFS
_FRAME_S = 0.01  # of pocketsphinx's word times
_WINDOW_S = 30  # of Whisper


@dataclass(frozen=True)
class TimedWord:
    """A word, and from when to when it was heard (s)."""

    text: str
    start_s: float
    end_s: float


class Recogniser(Protocol):
    """Transcribes one utterance at a time; the result depends on that utterance alone."""

    name: str

    def __call__(self, waveform: np.ndarray, sample_rate: int) -> str: ...

    def words(self, waveform: np.ndarray, sample_rate: int) -> list[TimedWord]: ...


def find_recogniser(name: str = "pocketsphinx") -> Recogniser:
    """Pocketsphinx by that name; any other is a folder or hub id of a Whisper model in transformers' form.

    Raises:
        DuologueError: it cannot be loaded.
    """
    return PocketSphinx() if name == "pocketsphinx" else WhisperRecogniser(name)


class PocketSphinx:
    """Pocketsphinx with the English model that it brings. Its timed words are those of its best path."""

    name = "pocketsphinx"

    def __init__(self) -> None:
        try:
            from pocketsphinx import Decoder
        except ImportError:
            raise DuologueError("pocketsphinx is not installed: pip install 'duologue[eval]'") from None
        self._decoder = Decoder(samprate=float(RATE), loglevel="FATAL")

    def __call__(self, waveform: np.ndarray, sample_rate: int) -> str:
        """What is said in ``waveform`` (n,) float in [-1, 1]: lower-case words, or ``""`` if nothing was understood."""
        if not self._decode(waveform, sample_rate):
            return ""
        hypothesis = self._decoder.hyp()
        return "" if hypothesis is None else str(hypothesis.hypstr).lower()

    def words(self, waveform: np.ndarray, sample_rate: int) -> list[TimedWord]:
        """The same words with their times."""
        if not self._decode(waveform, sample_rate):
            return []
        return [
            TimedWord(part.word.partition("(")[0].lower(), part.start_frame * _FRAME_S, (part.end_frame + 1) * _FRAME_S)
            for part in self._decoder.seg() or ()
            if not part.word.startswith(("<", "["))  # silence, noise
        ]

    def _decode(self, waveform: np.ndarray, sample_rate: int) -> bool:
        pcm = np.round(np.clip(resampled(waveform, sample_rate, RATE), -1.0, 1.0) * 32_767).astype(np.int16)
        if len(pcm) < RATE // 10 or np.abs(pcm).max() < QUIET:
            return False  # shorter or quieter than any word: the decoder would still find one
        self._decoder.reinit_feat()  # forget the level and spectrum of the utterance before
        self._decoder.start_utt()
        self._decoder.process_raw(pcm.tobytes(), full_utt=True)
        self._decoder.end_utt()
        return True


class WhisperRecogniser:
    """Whisper by transformers: a folder or hub id. Its timed words share each segment's time by their letters."""

    def __init__(self, path: str) -> None:
        from transformers import AutoProcessor, WhisperForConditionalGeneration

        try:
            self._processor: Any = AutoProcessor.from_pretrained(path)
            self._model: Any = WhisperForConditionalGeneration.from_pretrained(path).eval()
        except (OSError, ValueError) as error:
            reason = one_line(error)
            raise DuologueError(f"no Whisper model at {path!r}: {reason}") from None
        self.name = f"Whisper ({path})"

    def __call__(self, waveform: np.ndarray, sample_rate: int) -> str:
        """What is said in ``waveform`` (n,): Whisper's text, windows of 30 s joined."""
        return " ".join(text for text, _, _ in self._segments(waveform, sample_rate)).strip()

    def words(self, waveform: np.ndarray, sample_rate: int) -> list[TimedWord]:
        out = []
        for text, start, end in self._segments(waveform, sample_rate):
            each = (end - start) / max(1, len(text))
            place = 0
            for word in text.split():
                place = text.index(word, place)
                out.append(TimedWord(word, start + each * place, start + each * (place + len(word))))
                place += len(word)
        return out

    def _segments(self, waveform: np.ndarray, sample_rate: int) -> list[tuple[str, float, float]]:
        import torch

        wave = resampled(waveform, sample_rate, RATE)
        out = []
        for start in range(0, len(wave), _WINDOW_S * RATE):
            window = wave[start : start + _WINDOW_S * RATE]
            if len(window) < RATE // 10 or np.abs(window).max() < QUIET / 32_768:
                continue
            features = self._processor(window, sampling_rate=RATE, return_tensors="pt").input_features
            with torch.inference_mode():
                ids = self._model.generate(features)
            text = self._processor.batch_decode(ids, skip_special_tokens=True)[0].strip()
            out.append((text, start / RATE, (start + len(window)) / RATE))
        return out
