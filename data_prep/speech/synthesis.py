"""Text to speech behind one function: espeak-ng (see espeak.py), which pip brings too; flite and festival, which every
Debian has; SVOX Pico, RHVoice and Kokoro (see kokoro.py), which add voices where they are installed; and any other as a
command (see tts_command.py).

`synthesise(text, voice, prosody)` gives int16 PCM at 16 kHz. espeak-ng and flite are started for each sentence (13 and
50 ms), RHVoice too; festival, which takes most of a second to start, is kept as one process that is fed sentences
through a pipe; Pico (8 ms) is a library.
"""

from __future__ import annotations

import atexit
import functools
import importlib.util
import os
import select
import shutil
import subprocess
import tempfile
import threading
import time
import wave
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

import numpy as np

from ...model.errors import DuologueError
from ..audio import resampled
from ..text.spoken import ALPHABET, letters_marked
from .engines.command import arguments_of, speak_by_command
from .engines.espeak import espeak_accents, espeak_command, espeak_variants
from .engines.kokoro import kokoro_files, speak_by_kokoro

SAMPLE_RATE = 16_000  # Hz
TIMEOUT = 30.0  # s, for one sentence


class SynthesisError(DuologueError):
    """A synthesiser is missing, does not know the voice, or gave no speech."""


class Engine(StrEnum):
    ESPEAK = "espeak"
    FLITE = "flite"
    FESTIVAL = "festival"
    PICO = "pico"
    RHVOICE = "rhvoice"
    KOKORO = "kokoro"
    COMMAND = "command"  # a voice's name is the template of a command then

    @property
    def program(self) -> str:
        """What runs it (of Pico and Kokoro a Python package); a command brings its own."""
        return {
            "espeak": "espeak-ng", "flite": "flite", "festival": "festival", "pico": "ttspico",
            "rhvoice": "RHVoice-test", "kokoro": "kokoro-onnx",
        }[self.value]  # fmt: skip


DEBIAN = (Engine.ESPEAK, Engine.FLITE, Engine.FESTIVAL)
BUILT_IN = (*DEBIAN, Engine.PICO, Engine.RHVOICE, Engine.KOKORO)

# How each engine is made to say the letter a by its name; a lone "a" is taken for the article. See letters_marked.
LETTER_A = {engine: "ay" for engine in BUILT_IN} | {Engine.ESPEAK: "[['eI]]"}


@dataclass(frozen=True, kw_only=True)
class Prosody:
    """How a sentence is said. Units are the engine's own.

    pitch: espeak-ng 0 to 99 (-p); flite and festival the mean of f0 in Hz; Pico and RHVoice per cent of the voice's
        own; Kokoro ignores it
    spread: flite and festival the standard deviation of f0 in Hz; the others ignore it
    rate: espeak-ng words a minute; flite and festival how much sounds are stretched (above 1 is slower); Pico, RHVoice
        and Kokoro per cent of the voice's own
    """

    pitch: float
    spread: float
    rate: float


@dataclass(frozen=True, kw_only=True)
class Voice:
    """A voice of an engine and the ranges its prosody is drawn from.

    Without ranges (None) the voice always speaks in its own manner. `weight` is its share in a mix.
    """

    engine: Engine
    # espeak-ng "en-us+f3" (accent + variant), flite "rms", festival "kal_diphone", pico "en-US", rhvoice "bdl",
    # kokoro "af_heart" or "af_heart+bm_george", a command "my-tts {text} {wav}"
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
        if self.engine is Engine.COMMAND:
            return f"{self.engine}:{Path(arguments_of(self.name)[0]).name}"
        return f"{self.engine}:{self.name}"

    def draw(self, rng: np.random.Generator) -> Prosody | None:
        """A manner of speaking, uniform in the ranges; pitch is drawn evenly in octaves."""
        if self.pitch is None or self.spread is None or self.rate is None:
            return None
        if self.engine is Engine.ESPEAK:  # whose scale is one of octaves already
            pitch = rng.uniform(*self.pitch)
        else:
            pitch = float(np.exp(rng.uniform(*np.log(self.pitch))))
        return Prosody(
            pitch=round(pitch, 1), spread=round(rng.uniform(*self.spread), 1), rate=round(rng.uniform(*self.rate), 3)
        )


def require(*engines: Engine) -> None:
    """Of BUILT_IN. Raises SynthesisError that names the programs which are not installed."""
    if Engine.PICO in engines and importlib.util.find_spec("ttspico") is None:
        raise SynthesisError("not installed: ttspico (pip install ttspico; it needs a C compiler)")
    if Engine.KOKORO in engines:
        try:
            kokoro_files()
        except DuologueError as error:
            raise SynthesisError(str(error)) from None
    programs = [engine.program for engine in engines if engine not in (Engine.PICO, Engine.KOKORO)]
    missing = [program for program in programs if shutil.which(program) is None]
    if Engine.ESPEAK in engines and espeak_command() is not None:
        missing = [program for program in missing if program != Engine.ESPEAK.program]
    if missing:
        packages = " ".join("rhvoice" if program == "RHVoice-test" else program for program in missing)
        by_pip = "; for espeak-ng also: pip install espeakng-loader" if Engine.ESPEAK.program in missing else ""
        raise SynthesisError(f"not installed: {', '.join(missing)} (Debian: apt-get install {packages}{by_pip})")


def synthesise(text: str, voice: Voice, prosody: Prosody | None = None) -> np.ndarray:
    """Say `text` (lower-case words) in `voice`: (samples,) int16 at 16 kHz.

    Raises SynthesisError when the program is missing, the voice is unknown, or what comes out is empty.
    """
    if not text.strip() or not set(text) <= ALPHABET:
        raise SynthesisError(f"cannot say {text!r}: expected lower-case words separated by spaces")
    if voice.engine is Engine.COMMAND:
        return _checked(_command(text, voice), SAMPLE_RATE, text, voice)
    require(voice.engine)
    marked = letters_marked(text, LETTER_A[voice.engine])
    speak = {
        Engine.ESPEAK: _espeak, Engine.FLITE: _flite, Engine.FESTIVAL: _festival, Engine.PICO: _pico,
        Engine.RHVOICE: _rhvoice, Engine.KOKORO: _kokoro,
    }[voice.engine]  # fmt: skip
    return _checked(*speak(marked, voice, prosody), text, voice)


def _checked(pcm: np.ndarray, rate: int, text: str, voice: Voice) -> np.ndarray:
    """(samples at `rate` Hz,) -> (samples at 16 kHz,). Raises SynthesisError when nothing is to be heard."""
    if rate != SAMPLE_RATE:
        pcm = np.clip(np.round(resampled(pcm.astype(np.float32), rate, SAMPLE_RATE)), -32768, 32767).astype(np.int16)
    if len(pcm) < SAMPLE_RATE // 10 or int(np.abs(pcm.astype(np.int32)).max()) < 100:
        raise SynthesisError(f"{voice.key} gave no speech for {text!r}")
    return pcm


def _to_int16(waveform: np.ndarray) -> np.ndarray:
    return np.rint(np.clip(waveform, -1, 1) * 32767).astype(np.int16)


def _command(text: str, voice: Voice) -> np.ndarray:
    try:
        return _to_int16(speak_by_command(text, voice.name, SAMPLE_RATE))
    except DuologueError as error:
        raise SynthesisError(str(error)) from None


def _run(command: list[str], voice: Voice, said: str = "") -> bytes:
    try:
        done = subprocess.run(command, input=said.encode(), capture_output=True, timeout=TIMEOUT, check=False)
    except subprocess.TimeoutExpired:
        raise SynthesisError(f"{voice.key} took longer than {TIMEOUT:.0f} s") from None
    if done.returncode != 0:
        reason = done.stderr.decode(errors="replace").strip().splitlines()[-1:] or [f"status {done.returncode}"]
        raise SynthesisError(f"{voice.key}: {reason[0]}")
    return done.stdout


def _espeak(text: str, voice: Voice, prosody: Prosody | None) -> tuple[np.ndarray, int]:
    accent, _, variant = voice.name.partition("+")
    if accent not in espeak_accents() or (variant and variant not in espeak_variants()):
        raise SynthesisError(f"espeak-ng has no voice {voice.name!r}: `espeak-ng --voices=en` lists accents")
    program = espeak_command()
    assert program is not None, "require has looked for it"
    command = [*program, "-v", voice.name, "--stdout"]
    if prosody is not None:
        command += ["-p", str(round(prosody.pitch)), "-s", str(round(prosody.rate))]
    wav = _run([*command, text], voice)
    if len(wav) < 46:
        raise SynthesisError(f"{voice.key} gave no speech for {text!r}")
    # the header's lengths are not filled in on a pipe, so the samples are all that follows its 44 bytes
    return np.frombuffer(wav[44 : 44 + (len(wav) - 44) // 2 * 2], dtype="<i2"), int.from_bytes(wav[24:28], "little")


def _flite(text: str, voice: Voice, prosody: Prosody | None) -> tuple[np.ndarray, int]:
    if voice.name not in flite_voices():  # flite itself falls back to another voice silently
        raise SynthesisError(f"flite has no voice {voice.name!r}, only {', '.join(sorted(flite_voices()))}")
    command = ["flite", "-voice", voice.name]
    if prosody is not None:
        command += ["--setf", f"int_f0_target_mean={prosody.pitch}", "--setf", f"int_f0_target_stddev={prosody.spread}"]
        command += ["--setf", f"duration_stretch={prosody.rate}"]
    with tempfile.TemporaryDirectory(prefix="duologue-") as folder:
        path = Path(folder) / "speech.wav"
        _run([*command, "-t", text, "-o", str(path)], voice)
        return _read_wav(path, voice)


@functools.cache
def flite_voices() -> frozenset[str]:
    listing = subprocess.run(["flite", "-lv"], capture_output=True, text=True, check=True).stdout
    return frozenset(listing.partition(":")[2].split())


def _pico(text: str, voice: Voice, prosody: Prosody | None) -> tuple[np.ndarray, int]:
    import ttspico

    try:
        engine = ttspico.TtsEngine(voice.name)  # a fresh one: what it says depends on what it said before
    except RuntimeError:
        raise SynthesisError(f"pico has no voice {voice.name!r}, only en-GB and en-US in English") from None
    if prosody is not None:
        engine.pitch, engine.rate = round(prosody.pitch), round(prosody.rate)
    return np.frombuffer(engine.speak(text) or b"", dtype="<i2"), SAMPLE_RATE


def _rhvoice(text: str, voice: Voice, prosody: Prosody | None) -> tuple[np.ndarray, int]:
    with tempfile.TemporaryDirectory(prefix="duologue-") as folder:
        path = Path(folder) / "speech.wav"
        command = ["RHVoice-test", "--profile", voice.name, "--output", str(path)]
        if prosody is not None:
            command += ["--pitch", str(round(prosody.pitch)), "--rate", str(round(prosody.rate))]
        _run(command, voice, said=text)
        return _read_wav(path, voice)


def _kokoro(text: str, voice: Voice, prosody: Prosody | None) -> tuple[np.ndarray, int]:
    try:
        waveform, rate = speak_by_kokoro(text, voice.name, 1.0 if prosody is None else prosody.rate / 100)
    except DuologueError as error:
        raise SynthesisError(str(error)) from None
    return _to_int16(waveform), rate


def _festival(text: str, voice: Voice, prosody: Prosody | None) -> tuple[np.ndarray, int]:
    with tempfile.TemporaryDirectory(prefix="duologue-") as folder:
        path = Path(folder) / "speech.wav"
        manner = ""
        if prosody is not None:
            manner = (
                f"(Parameter.set 'Duration_Stretch {prosody.rate})"
                f"(set! int_lr_params '((target_f0_mean {prosody.pitch}) (target_f0_std {prosody.spread})"
                " (model_f0_mean 170) (model_f0_std 34)))"
            )
        _Festival.shared().run(
            # one form, so that an error anywhere ends it: an unknown voice must not be spoken by the last one
            f"(begin (voice_{voice.name}) {manner}"
            f' (utt.save.wave (utt.synth (Utterance Text "{text}")) "{path}" \'riff))',
            voice,
        )
        if not path.exists():
            raise SynthesisError(f"festival has no voice {voice.name!r}, or it failed on {text!r}")
        return _read_wav(path, voice)


class _Festival:
    """One festival process of this Python process, which evaluates Scheme from its standard input."""

    _instance: _Festival | None = None
    _lock = threading.Lock()

    def __init__(self) -> None:
        self.owner = os.getpid()
        self.count = 0
        self.process = subprocess.Popen(
            ["festival", "--pipe"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
        atexit.register(self.close)

    @classmethod
    def shared(cls) -> _Festival:
        with cls._lock:
            here = cls._instance
            if here is None or here.owner != os.getpid() or here.process.poll() is not None:
                cls._instance = _Festival()
            assert cls._instance is not None
            return cls._instance

    def run(self, scheme: str, voice: Voice) -> None:
        """Evaluate and wait for the end. An error inside Scheme ends quietly: the caller looks for the file."""
        with self._lock:
            assert self.process.stdin is not None and self.process.stdout is not None
            self.count += 1
            marker = f"duologue-{self.count}-done"
            try:
                self.process.stdin.write(f'{scheme}\n(format t "\\n{marker}\\n")(fflush nil)\n'.encode())
                self.process.stdin.flush()
            except BrokenPipeError:
                raise SynthesisError(f"{voice.key}: festival ended unexpectedly") from None
            seen, deadline = b"", time.monotonic() + TIMEOUT
            while marker.encode() not in seen:
                ready, _, _ = select.select([self.process.stdout], [], [], max(0.0, deadline - time.monotonic()))
                block = os.read(self.process.stdout.fileno(), 65536) if ready else b""
                if not block:
                    self.close()
                    raise SynthesisError(
                        f"{voice.key}: festival " + ("ended" if ready else f"took over {TIMEOUT:.0f} s")
                    )
                seen += block

    def close(self) -> None:
        if self.owner == os.getpid() and self.process.poll() is None:
            self.process.kill()
            self.process.wait()


def _read_wav(path: Path, voice: Voice) -> tuple[np.ndarray, int]:
    try:
        with wave.open(str(path)) as file:
            return np.frombuffer(file.readframes(file.getnframes()), dtype="<i2"), file.getframerate()
    except (wave.Error, EOFError, FileNotFoundError) as error:
        raise SynthesisError(f"{voice.key} wrote no readable WAV: {error}") from None
