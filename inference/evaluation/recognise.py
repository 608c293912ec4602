"""An independent ear for reply speech: pocketsphinx with the English model that it brings, offline.

It judges, it never helps to answer. Measured on short sentences in nano's style it errs in about one word in ten of
flite's own `rms` voice, so its figures are read beside its error on the synthesiser's rendering of the same texts.
"""

from __future__ import annotations

import numpy as np

from ...model.errors import DuologueError

RATE = 16_000  # Hz, what the bundled acoustic model was trained on
QUIET = 33  # of 32,768: -60 dBFS


class Recogniser:
    """Transcribes one utterance at a time; the result depends on that utterance alone."""

    def __init__(self) -> None:
        try:
            from pocketsphinx import Decoder
        except ImportError:
            raise DuologueError("pocketsphinx is not installed: pip install 'duologue[eval]'") from None
        self._decoder = Decoder(samprate=float(RATE), loglevel="FATAL")

    def __call__(self, waveform: np.ndarray, sample_rate: int) -> str:
        """What is said in ``waveform`` (n,) float in [-1, 1]: lower-case words, or ``""`` if nothing was understood."""
        if sample_rate != RATE:
            import soxr

            waveform = soxr.resample(waveform, sample_rate, RATE)
        pcm = np.round(np.clip(waveform, -1.0, 1.0) * 32_767).astype(np.int16)
        if len(pcm) < RATE // 10 or np.abs(pcm).max() < QUIET:
            return ""  # shorter or quieter than any word: the decoder would still find one
        self._decoder.reinit_feat()  # forget the level and spectrum of the utterance before
        self._decoder.start_utt()
        self._decoder.process_raw(pcm.tobytes(), full_utt=True)
        self._decoder.end_utt()
        hypothesis = self._decoder.hyp()
        return "" if hypothesis is None else str(hypothesis.hypstr).lower()
