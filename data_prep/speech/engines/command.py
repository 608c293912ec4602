"""Any other synthesiser as a command that is given a text and writes a WAV: `my-tts --text {text} --out {wav}`.

No shell sees it. The template is split into arguments first and filled in after, so a text is always one argument.
"""

from __future__ import annotations

import shlex
import shutil
import subprocess
import tempfile
from pathlib import Path

import numpy as np

from ....model.errors import DuologueError
from ...datasets.recordings import read_recording
from ..engine import SAMPLE_RATE, Prosody, SynthesisError, Voice, to_int16

LETTER_A = ""  # it is given the text as it is
PLACES = ("{text}", "{wav}")
TIMEOUT = 300.0  # s, for one sentence: it may load a model each time
_TAIL = 200  # characters of what it says on stderr


def arguments_of(template: str) -> list[str]:
    """The template's arguments, places unfilled. Raises SynthesisError when it cannot be split or lacks a place."""
    try:
        arguments = shlex.split(template)
    except ValueError as error:
        raise SynthesisError(f"tts_command={template}: {error}") from None
    absent = [place for place in PLACES if not any(place in argument for argument in arguments[1:])]
    if absent:
        raise SynthesisError(
            f"tts_command={template}: no argument has {' or '.join(absent)}; "
            "give one such as my-tts --text {text} --out {wav}"
        )
    return arguments


def require() -> None:
    """Nothing: what a voice's command needs is asked by :func:`require_command`."""


def require_command(template: str) -> None:
    """Raises SynthesisError when the template is wrong or its program is not there."""
    program = arguments_of(template)[0]
    if shutil.which(program) is None:
        raise SynthesisError(f"tts_command: there is no program {program!r}")


def language(voice: Voice) -> None:
    """Of whatever it speaks."""


def speak(text: str, voice: Voice, prosody: Prosody | None) -> tuple[np.ndarray, int]:
    """The voice's name is the template; a command has no manner."""
    return to_int16(speak_by_command(text, voice.name, SAMPLE_RATE)), SAMPLE_RATE


def speak_by_command(text: str, template: str, sample_rate: int) -> np.ndarray:
    """(samples,) float32 at `sample_rate`, whatever the rate and the channels of the WAV that the command writes.

    Raises SynthesisError when the command fails (with the end of what it said on stderr), takes too long, or writes no
    sound.
    """
    arguments = arguments_of(template)
    name = Path(arguments[0]).name
    with tempfile.TemporaryDirectory(prefix="duologue-") as folder:
        wav = Path(folder) / "speech.wav"
        filled = [argument.replace("{wav}", str(wav)).replace("{text}", text) for argument in arguments]
        try:
            done = subprocess.run(filled, stdin=subprocess.DEVNULL, capture_output=True, timeout=TIMEOUT, check=False)
        except OSError as error:
            raise SynthesisError(f"tts_command: {name}: {error.strerror}") from None
        except subprocess.TimeoutExpired:
            raise SynthesisError(f"tts_command: {name} took longer than {TIMEOUT:.0f} s for {text!r}") from None
        if done.returncode:
            said = " ".join(done.stderr.decode(errors="replace").split())[-_TAIL:] or "it said nothing on stderr"
            raise SynthesisError(f"tts_command: {name} ended with status {done.returncode}: {said}")
        if not wav.exists():
            raise SynthesisError(f"tts_command: {name} wrote no WAV for {text!r}")
        try:
            return read_recording(wav, sample_rate)
        except DuologueError as error:
            raise SynthesisError(f"tts_command: {name}, {text!r}: {error}") from None
