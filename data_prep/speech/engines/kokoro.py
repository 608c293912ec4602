"""Kokoro, a small neural synthesiser: dozens of people, and any mixture of two.

Its files are found in the folder that the environment variable DUOLOGUE_KOKORO names: a model (``kokoro*.onnx``) and
its voices (``voices*.bin``), as the kokoro-onnx project releases them. A third of real time on one core with the int8
model.

Source: hexgrad's Kokoro-82M (Apache-2.0), a StyleTTS 2 (arXiv 2306.07691) with an iSTFTNet; the package kokoro-onnx.
"""

from __future__ import annotations

import functools
import importlib.util
import os
from pathlib import Path
from typing import Any

import numpy as np

from ..engine import Language, Prosody, SynthesisError, Voice, to_int16
from ..language import ENGLISH_LETTERS

LETTER_A = "ay"
FOLDER = "DUOLOGUE_KOKORO"
_HOW = "pip install kokoro-onnx, and put the kokoro*.onnx and voices*.bin of its releases there"


def require() -> None:
    kokoro_files()


def kokoro_files() -> tuple[Path, Path]:
    """The model and its voices. Raises SynthesisError that says what is missing."""
    if importlib.util.find_spec("kokoro_onnx") is None:
        raise SynthesisError(f"not installed: kokoro-onnx ({_HOW}: a folder that {FOLDER} names)")
    folder = os.environ.get(FOLDER)
    if not folder:
        raise SynthesisError(f"{FOLDER} is not set: it names the folder of Kokoro's files ({_HOW})")
    found = [sorted(Path(folder).glob(pattern)) for pattern in ("kokoro*.onnx", "voices*.bin")]
    if not all(found):
        raise SynthesisError(f"{FOLDER}={folder} has no {'voices*.bin' if found[0] else 'kokoro*.onnx'} ({_HOW})")
    return found[0][0], found[1][0]


def language(voice: Voice) -> Language:
    return ENGLISH_LETTERS


def speak(text: str, voice: Voice, prosody: Prosody | None) -> tuple[np.ndarray, int]:
    """A voice is ``af_heart``, or two with a plus between, ``af_heart+bm_george``: half way from one to the other.

    A first voice whose name begins with b speaks as the British do.
    """
    speed = 1.0 if prosody is None else prosody.rate / 100
    model = _model(os.getpid(), *kokoro_files())
    names = voice.name.split("+")
    if unknown := [name for name in names if name not in model.voices]:
        raise SynthesisError(f"kokoro has no voice {unknown[0]!r}, only {', '.join(sorted(model.voices))}")
    style = np.mean([model.get_voice_style(name) for name in names], axis=0)  # (510, 1, 256): one a length
    said: np.ndarray
    sentence = text if text.endswith((".", "!", "?")) else f"{text}."
    said, rate = model.create(sentence, style, speed, "en-gb" if voice.name.startswith("b") else "en-us")
    return to_int16(said), rate


@functools.cache
def _model(process: int, model: Path, voices: Path) -> Any:  # each process loads its own
    import onnxruntime
    from kokoro_onnx import Kokoro  # pyright: ignore[reportMissingImports]

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1  # what prepares data has a process a core
    session = onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
    return Kokoro.from_session(session, str(voices))
