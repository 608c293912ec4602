"""espeak-ng, many languages, accents and variants: the program, or espeakng-loader's library; 13 ms a sentence.

Either is started for each sentence and is given the same options. They say the same words in the same
manner; samples agree only where the versions do.

    python -m duologue.data_prep.speech.engines.espeak -v en-us -w FILE TEXT    either of them on a command line
"""

from __future__ import annotations

import functools
import importlib.util
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np

from ..engine import Language, Prosody, SynthesisError, Voice, run_program
from ..language import language_of

LETTER_A = "[['eI]]"
SCRIPT = Path(__file__).with_name("espeak_library.py")


def require() -> None:
    if espeak_command() is None:
        how = "Debian: apt-get install espeak-ng; or pip install espeakng-loader"
        raise SynthesisError(f"not installed: espeak-ng ({how})")


def language(voice: Voice) -> Language:
    return language_of(voice.name.partition("+")[0])


def speak(text: str, voice: Voice, prosody: Prosody | None) -> tuple[np.ndarray, int]:
    accent, _, variant = voice.name.partition("+")
    if accent not in espeak_accents() or (variant and variant not in espeak_variants()):
        raise SynthesisError(f"espeak-ng has no voice {voice.name!r}: `espeak-ng --voices` lists languages")
    program = espeak_command()
    assert program is not None, "callers have asked require"
    command = [*program, "-v", voice.name, "--stdout"]
    if prosody is not None:
        command += ["-p", str(round(prosody.pitch)), "-s", str(round(prosody.rate))]
    wav = run_program([*command, "--", text], voice)
    if len(wav) < 46:
        raise SynthesisError(f"{voice.key} gave no speech for {text!r}")
    # the header's lengths are not filled in on a pipe, so the samples are all that follows its 44 bytes
    return np.frombuffer(wav[44 : 44 + (len(wav) - 44) // 2 * 2], dtype="<i2"), int.from_bytes(wav[24:28], "little")


def espeak_command() -> list[str] | None:
    """What a command line of espeak-ng's begins with; None where neither the program nor the package is installed."""
    program = shutil.which("espeak-ng")
    return library_command() if program is None else [program, *_steady(program)]


def library_command() -> list[str] | None:
    """The same of the library alone, whatever programs there are."""
    package = importlib.util.find_spec("espeakng_loader")
    if package is None or package.origin is None:
        return None
    return [sys.executable, "-I", "-S", str(SCRIPT), str(Path(package.origin).parent)]  # without site-packages: faster


@functools.cache
def _steady(program: str) -> list[str]:
    """From 1.52 on breath is noise with the time of day for a seed, unless -D is given; before, -D is unknown."""
    options = subprocess.run([program, "--help"], capture_output=True, check=False).stdout
    return ["-D"] if b"\n-D" in options else []


def _listed(*language: str) -> list[str]:
    """Lines of the voices of a language, or of all."""
    command = espeak_command()
    assert command is not None, "callers have asked require"
    done = subprocess.run([*command, "=".join(("--voices", *language))], capture_output=True, text=True, check=True)
    return done.stdout.splitlines()[1:]


@functools.cache
def espeak_accents() -> frozenset[str]:
    return frozenset(line.split()[1] for line in _listed()) | {"en"}


@functools.cache
def espeak_variants() -> frozenset[str]:
    return frozenset(line.split("!v/")[1].split("   ")[0].strip() for line in _listed("variant") if "!v/" in line)


if __name__ == "__main__":
    found = espeak_command()
    sys.exit("espeak-ng is not installed" if found is None else subprocess.call([*found, *sys.argv[1:]]))
