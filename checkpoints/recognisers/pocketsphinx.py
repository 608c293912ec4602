"""Pocketsphinx, with the English model that it brings."""

from __future__ import annotations

import numpy as np

from ...model.errors import DuologueError
from .recogniser import RATE, TimedWord, is_silent

_FRAME_S = 0.01  # of word times


class PocketSphinx:
    """Pocketsphinx with the English model that it brings. Its timed words are those of its best path."""

    name = "pocketsphinx"

    def __init__(self) -> None:
        try:
            from pocketsphinx import Decoder
        except ImportError:
            raise DuologueError("pocketsphinx is not installed: pip install 'duologue[eval]'") from None
        self._decoder = Decoder(samprate=float(RATE), loglevel="FATAL")

    def __call__(self, waveform: np.ndarray) -> str:
        """What is said in ``waveform`` (n,) float in [-1, 1]: lower-case words, or ``""`` if nothing was understood."""
        if not self._decode(waveform):
            return ""
        hypothesis = self._decoder.hyp()
        return "" if hypothesis is None else str(hypothesis.hypstr).lower()

    def words(self, waveform: np.ndarray) -> list[TimedWord]:
        """The same words with their times."""
        if not self._decode(waveform):
            return []
        return [
            TimedWord(part.word.partition("(")[0].lower(), part.start_frame * _FRAME_S, (part.end_frame + 1) * _FRAME_S)
            for part in self._decoder.seg() or ()
            if not part.word.startswith(("<", "["))  # silence, noise
        ]

    def _decode(self, waveform: np.ndarray) -> bool:
        if is_silent(waveform):
            return False  # the decoder would still find a word
        pcm = np.round(np.clip(waveform, -1.0, 1.0) * 32_767).astype(np.int16)
        self._decoder.reinit_feat()  # forget the level and spectrum of the utterance before
        self._decoder.start_utt()
        self._decoder.process_raw(pcm.tobytes(), full_utt=True)
        self._decoder.end_utt()
        return True
