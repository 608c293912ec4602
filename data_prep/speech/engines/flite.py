"""flite, a small synthesiser of Debian: clustergen and diphone voices; 50 ms a sentence."""

from __future__ import annotations

import functools
import subprocess
import tempfile
from pathlib import Path

import numpy as np

from ..engine import Language, Prosody, SynthesisError, Voice, read_wav, require_program, run_program
from ..language import ENGLISH_LETTERS

LETTER_A = "ay"


def require() -> None:
    require_program("flite")


def language(voice: Voice) -> Language:
    return ENGLISH_LETTERS


def speak(text: str, voice: Voice, prosody: Prosody | None) -> tuple[np.ndarray, int]:
    if voice.name not in flite_voices():  # flite itself falls back to another voice silently
        raise SynthesisError(f"flite has no voice {voice.name!r}, only {', '.join(sorted(flite_voices()))}")
    command = ["flite", "-voice", voice.name]
    if prosody is not None:
        command += ["--setf", f"int_f0_target_mean={prosody.pitch}", "--setf", f"int_f0_target_stddev={prosody.spread}"]
        command += ["--setf", f"duration_stretch={prosody.rate}"]
    with tempfile.TemporaryDirectory(prefix="duologue-") as folder:
        path = Path(folder) / "speech.wav"
        run_program([*command, "-t", text, "-o", str(path)], voice)
        return read_wav(path, voice)


@functools.cache
def flite_voices() -> frozenset[str]:
    listing = subprocess.run(["flite", "-lv"], capture_output=True, text=True, check=True).stdout
    return frozenset(listing.partition(":")[2].split())
