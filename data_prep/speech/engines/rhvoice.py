"""RHVoice: voices made by statistics from people's recordings."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np

from ..engine import Prosody, Voice, read_wav, require_program, run_program

LETTER_A = "ay"


def require() -> None:
    require_program("RHVoice-test", "rhvoice")


def language(voice: Voice) -> None:
    """Of whatever it speaks."""


def speak(text: str, voice: Voice, prosody: Prosody | None) -> tuple[np.ndarray, int]:
    with tempfile.TemporaryDirectory(prefix="duologue-") as folder:
        path = Path(folder) / "speech.wav"
        command = ["RHVoice-test", "--profile", voice.name, "--output", str(path)]
        if prosody is not None:
            command += ["--pitch", str(round(prosody.pitch)), "--rate", str(round(prosody.rate))]
        run_program(command, voice, said=text)
        return read_wav(path, voice)
