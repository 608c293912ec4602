"""Text to speech behind one function, whatever engine speaks (see engines/): int16 PCM at 16 kHz."""

from __future__ import annotations

import numpy as np

from ..audio import resampled
from ..text.spoken import ALPHABET, letters_marked
from .engine import SAMPLE_RATE, Prosody, SynthesisError, Voice, engine


def require(*engines: str) -> None:
    """Raises SynthesisError that names the programs which are not installed."""
    missing = []
    for name in engines:
        try:
            engine(name).require()
        except SynthesisError as error:
            missing.append(str(error))
    if missing:
        raise SynthesisError("; ".join(missing))


def synthesise(text: str, voice: Voice, prosody: Prosody | None = None) -> np.ndarray:
    """Say `text` (lower-case words) in `voice`: (samples,) int16 at 16 kHz.

    Raises SynthesisError when the program is missing, the voice is unknown, or what comes out is empty.
    """
    if not text.strip() or not set(text) <= ALPHABET:
        raise SynthesisError(f"cannot say {text!r}: expected lower-case words separated by spaces")
    speaker = engine(voice.engine)
    speaker.require()
    marked = letters_marked(text, speaker.LETTER_A) if speaker.LETTER_A else text
    return _checked(*speaker.speak(marked, voice, prosody), text, voice)


def _checked(pcm: np.ndarray, rate: int, text: str, voice: Voice) -> np.ndarray:
    """(samples at `rate` Hz,) -> (samples at 16 kHz,). Raises SynthesisError when nothing is to be heard."""
    if rate != SAMPLE_RATE:
        pcm = np.clip(np.round(resampled(pcm.astype(np.float32), rate, SAMPLE_RATE)), -32768, 32767).astype(np.int16)
    if len(pcm) < SAMPLE_RATE // 10 or int(np.abs(pcm.astype(np.int32)).max()) < 100:
        raise SynthesisError(f"{voice.key} gave no speech for {text!r}")
    return pcm
