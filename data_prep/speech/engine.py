"""What a synthesiser is given and gives: a voice, its manner of speaking, and the protocol of an engine.

An engine is a module of engines/ that has what :class:`Engine` says; to add one means to add its file.
"""

from __future__ import annotations

import shlex
import shutil
import subprocess
import wave
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from ...checkpoints.settings import Catalogue
from ...model.errors import DuologueError

SAMPLE_RATE = 16_000  # Hz
TIMEOUT = 30.0  # s, for one sentence
ENGINES = Catalogue("data_prep/speech/engines", "engine", defines="speak")


class SynthesisError(DuologueError):
    """A synthesiser is missing, does not know the voice, or gave no speech."""


@dataclass(frozen=True, kw_only=True)
class Language:
    """What a voice reads. code: ISO 639, "en"; scripts: of the letters that it has sounds for ("ASCII": a to z)."""

    code: str
    scripts: frozenset[str]


class Engine(Protocol):
    """A synthesiser."""

    @property
    def LETTER_A(self) -> str:
        """How it is made to say the letter a by its name, see letters_marked; "": it is given the text as it is."""

    def language(self, voice: Voice) -> Language | None:
        """What the voice reads; None: nobody knows, any text is given to it."""

    def require(self) -> None:
        """Raises SynthesisError that names what is not installed, and how to get it."""

    def speak(self, text: str, voice: Voice, prosody: Prosody | None) -> tuple[np.ndarray, int]:
        """(samples,) int16 and their rate in Hz. Raises SynthesisError for an unknown voice, or when it fails."""


def engine(name: str) -> Engine:
    """Raises DuologueError for a name that is none."""
    found: Any = ENGINES.module(name)
    return found


@dataclass(frozen=True, kw_only=True)
class Prosody:
    """How a sentence is said. Units are the engine's own.

    pitch: espeak-ng 0 to 99 (-p); flite and festival the mean of f0 in Hz; Pico and RHVoice per cent of the voice's
        own; Kokoro and Piper ignore it
    spread: flite and festival the standard deviation of f0 in Hz; the others ignore it
    rate: espeak-ng words a minute; flite and festival how much sounds are stretched (above 1 is slower); Pico, RHVoice,
        Kokoro and Piper per cent of the voice's own
    """

    pitch: float
    spread: float
    rate: float


@dataclass(frozen=True, kw_only=True)
class Voice:
    """A voice of an engine and the ranges its prosody is drawn from.

    Without ranges (None) the voice always speaks in its own manner. `weight` is its fraction of a mix.
    """

    engine: str  # a module of engines/
    # espeak-ng "en-us+f3" (accent + variant), flite "rms", festival "kal_diphone", pico "en-US", rhvoice "bdl",
    # kokoro "af_heart" or "af_heart+bm_george", piper "en_US-joe-medium", a command "my-tts {text} {wav}"
    name: str
    pitch: tuple[float, float] | None = None
    spread: tuple[float, float] | None = None
    rate: tuple[float, float] | None = None
    weight: float = 1.0

    def __post_init__(self) -> None:
        given = [bounds for bounds in (self.pitch, self.spread, self.rate) if bounds is not None]
        if len(given) not in (0, 3):
            raise DuologueError(f"voice {self.key}: give pitch, spread and rate together, or none of them")
        if any(low > high for low, high in given):
            raise DuologueError(f"voice {self.key}: a range's lower bound is above its upper bound in {given}")

    @property
    def key(self) -> str:
        """ "flite:rms"; of a command the program, "command:my-tts"."""
        if self.engine == "command":
            return f"command:{Path(shlex.split(self.name)[0]).name}"
        return f"{self.engine}:{self.name}"

    def draw(self, rng: np.random.Generator) -> Prosody | None:
        """A manner of speaking, uniform in the ranges; pitch is drawn evenly in octaves."""
        if self.pitch is None or self.spread is None or self.rate is None:
            return None
        if self.engine == "espeak":  # whose scale is one of octaves already
            pitch = rng.uniform(*self.pitch)
        else:
            pitch = float(np.exp(rng.uniform(*np.log(self.pitch))))
        return Prosody(
            pitch=round(pitch, 1), spread=round(rng.uniform(*self.spread), 1), rate=round(rng.uniform(*self.rate), 3)
        )


def require_program(program: str, package: str = "") -> None:
    """Raises SynthesisError when it is not installed."""
    if shutil.which(program) is None:
        raise SynthesisError(f"not installed: {program} (Debian: apt-get install {package or program})")


def run_program(command: list[str], voice: Voice, said: str = "") -> bytes:
    """What it writes to stdout. Raises SynthesisError when it fails or takes longer than TIMEOUT."""
    try:
        done = subprocess.run(command, input=said.encode(), capture_output=True, timeout=TIMEOUT, check=False)
    except subprocess.TimeoutExpired:
        raise SynthesisError(f"{voice.key} took longer than {TIMEOUT:.0f} s") from None
    if done.returncode != 0:
        reason = done.stderr.decode(errors="replace").strip().splitlines()[-1:] or [f"status {done.returncode}"]
        raise SynthesisError(f"{voice.key}: {reason[0]}")
    return done.stdout


def read_wav(path: Path, voice: Voice) -> tuple[np.ndarray, int]:
    """(samples,) int16 and their rate in Hz."""
    try:
        with wave.open(str(path)) as file:
            return np.frombuffer(file.readframes(file.getnframes()), dtype="<i2"), file.getframerate()
    except (wave.Error, EOFError, FileNotFoundError) as error:
        raise SynthesisError(f"{voice.key} wrote no readable WAV: {error}") from None


def to_int16(waveform: np.ndarray) -> np.ndarray:
    """(samples,) in [-1, 1] -> int16."""
    return np.rint(np.clip(waveform, -1, 1) * 32767).astype(np.int16)
