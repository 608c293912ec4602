"""SVOX Pico, a library for pip (ttspico): a British and an American woman; 8 ms a sentence."""

from __future__ import annotations

import importlib.util

import numpy as np

from ..engine import SAMPLE_RATE, Language, Prosody, SynthesisError, Voice
from ..language import ENGLISH_LETTERS

LETTER_A = "ay"


def require() -> None:
    if importlib.util.find_spec("ttspico") is None:
        raise SynthesisError("not installed: ttspico (pip install ttspico; it needs a C compiler)")


def language(voice: Voice) -> Language:
    return ENGLISH_LETTERS


def speak(text: str, voice: Voice, prosody: Prosody | None) -> tuple[np.ndarray, int]:
    import ttspico  # pyright: ignore[reportMissingImports]

    try:
        engine = ttspico.TtsEngine(voice.name)  # a fresh one: what it says depends on what it said before
    except RuntimeError:
        raise SynthesisError(f"pico has no voice {voice.name!r}, only en-GB and en-US in English") from None
    if prosody is not None:
        engine.pitch, engine.rate = round(prosody.pitch), round(prosody.rate)
    return np.frombuffer(engine.speak(text) or b"", dtype="<i2"), SAMPLE_RATE
