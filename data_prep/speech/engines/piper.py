"""Piper, a fast neural synthesiser of one person a voice, in dozens of languages.

A voice is two files, ``NAME.onnx`` and ``NAME.onnx.json``, in the folder that the environment variable DUOLOGUE_PIPER
names. The package is GPL-3.0; each voice has a licence of its own (its MODEL_CARD), and some restrict commercial
synthesis, also those tuned from such a voice: none comes with Duologue, and which one to use is yours to decide.

Source: piper1-gpl of the Open Home Foundation, a VITS (arXiv 2106.06103); the package piper-tts.
"""

from __future__ import annotations

import functools
import importlib.util
import json
import os
from pathlib import Path
from typing import Any

import numpy as np

from ..engine import Language, Prosody, SynthesisError, Voice
from ..language import language_of

LETTER_A = ""
FOLDER = "DUOLOGUE_PIPER"
_HOW = "pip install piper-tts, and put the NAME.onnx and NAME.onnx.json of a voice there"


def require() -> None:
    piper_voices()


def piper_voices() -> dict[str, Path]:
    """{name: model} of the voices that are there. Raises SynthesisError that says what is missing."""
    if importlib.util.find_spec("piper") is None:
        raise SynthesisError(f"not installed: piper-tts ({_HOW}: a folder that {FOLDER} names)")
    folder = os.environ.get(FOLDER)
    if not folder:
        raise SynthesisError(f"{FOLDER} is not set: it names the folder of Piper's voices ({_HOW})")
    found = {path.stem: path for path in sorted(Path(folder).glob("*.onnx")) if _settings(path).is_file()}
    if not found:
        raise SynthesisError(f"{FOLDER}={folder} has no NAME.onnx with its NAME.onnx.json ({_HOW})")
    return found


def language(voice: Voice) -> Language:
    return language_of(voice.name.partition("_")[0])


def speak(text: str, voice: Voice, prosody: Prosody | None) -> tuple[np.ndarray, int]:
    """A voice is ``en_US-joe-medium``, or of several people ``en_US-libritts_r-medium#3922``: the same samples each
    time, for the noise that the network would add is left out."""
    name, _, person = voice.name.partition("#")
    if name not in (known := piper_voices()):
        raise SynthesisError(f"piper has no voice {name!r}, only {', '.join(known)}")
    model = _model(os.getpid(), known[name])
    people = model.config.speaker_id_map
    if person and person not in people:
        raise SynthesisError(f"piper's {name} has nobody {person!r}, only {', '.join(people) or 'one person'}")
    from piper import SynthesisConfig  # pyright: ignore[reportMissingImports, reportAttributeAccessIssue]

    speed = 1.0 if prosody is None else prosody.rate / 100
    stretch = model.config.length_scale / speed
    manner = SynthesisConfig(
        speaker_id=people.get(person), length_scale=stretch, noise_scale=0.0, noise_w_scale=0.0
    )
    chunks = [chunk.audio_int16_array for chunk in model.synthesize(text, manner)]
    if not chunks:
        raise SynthesisError(f"{voice.key} gave no speech for {text!r}")
    return np.concatenate(chunks), int(model.config.sample_rate)


def _settings(model: Path) -> Path:
    return model.with_name(f"{model.name}.json")


@functools.cache
def _model(process: int, model: Path) -> Any:  # each process loads its own
    import onnxruntime
    from piper import PiperConfig, PiperVoice  # pyright: ignore[reportMissingImports, reportAttributeAccessIssue]

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1  # what prepares data has a process a core
    session = onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
    config = PiperConfig.from_dict(json.loads(_settings(model).read_text(encoding="utf-8")))
    return PiperVoice(session=session, config=config)
