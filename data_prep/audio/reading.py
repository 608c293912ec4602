"""Sound from files: any recording -> float32 mono at the rate that is asked for.

This is the edge where bad recordings are caught. Each is one :class:`DuologueError` line: no such file, a folder, an
empty file, no samples, text called ``.wav``, a FLAC that is cut short or damaged (part of it could be heard, but half a
question is not the question), NaN or infinite samples, more than :data:`MAX_SECONDS`. A WAV or Ogg that simply ends
early is read up to where it ends, as a recording that was stopped. Silence is a recording like any other.
"""

from __future__ import annotations

import io
import math
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from ...model.errors import DuologueError

AudioSource = str | os.PathLike[str] | bytes | tuple[int, np.ndarray]

MAX_SECONDS = 600.0
MIN_RATE, MAX_RATE = 1_000, 768_000  # Hz: below and above, a header is wrong rather than the microphone unusual
_BLOCK = 65_536  # frames decoded at a time, so that a small file of much silence cannot fill the memory


def read_audio(source: AudioSource, sample_rate: int = 16_000) -> np.ndarray:
    """Read any recording as mono at ``sample_rate``.

    Args:
        source: a path, the bytes of a file, or ``(rate in Hz, samples)`` with samples (n,) or (n, channels), integers
            at full scale or floats in [-1, 1]. Files: whatever libsndfile reads (WAV, FLAC, Ogg Vorbis, Opus, MP3, …).
        sample_rate: rate of the result in Hz.

    Returns:
        (n,) float32 in [-1, 1]. Channels are averaged; float samples beyond 1 are scaled down, not clipped.

    Raises:
        DuologueError: for every input named in this module's docstring.
    """
    if isinstance(source, tuple):
        rate, samples = source
        return _finish("the recording", rate, _blocks_of_array(samples), sample_rate)
    if isinstance(source, bytes):
        return _read_file("the recording", io.BytesIO(source), len(source), sample_rate)
    path = Path(source)
    if path.is_dir():
        raise DuologueError(f"{path} is a folder, not a recording: give a WAV, FLAC, Ogg or MP3 file")
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            return _read_file(str(path), file, size, sample_rate)
    except FileNotFoundError:
        raise DuologueError(f"no such file: {path}") from None
    except OSError as error:
        raise DuologueError(f"cannot read {path}: {error.strerror or error}") from None


def _read_file(name: str, file: io.BytesIO | io.BufferedReader, size: int, sample_rate: int) -> np.ndarray:
    import soundfile

    if size == 0:
        raise DuologueError(f"{name} is empty (0 bytes): give a recording")
    try:
        sound = soundfile.SoundFile(file)
    except soundfile.LibsndfileError:
        raise DuologueError(f"{name} is not a recording that can be read: give WAV, FLAC, Ogg or MP3") from None
    with sound:
        _check_length(name, sound.frames, sound.samplerate)
        return _finish(name, sound.samplerate, _blocks_of_file(name, sound), sample_rate)


def _blocks_of_file(name: str, sound: object) -> Iterator[np.ndarray]:
    """The file's frames in blocks of (n, channels) float32."""
    import soundfile

    assert isinstance(sound, soundfile.SoundFile)
    announced, whole = sound.frames, 0
    try:
        while len(block := sound.read(_BLOCK, dtype="float32", always_2d=True)):
            whole += len(block)
            yield block
    except soundfile.LibsndfileError:
        pass  # libFLAC names neither the place nor the reason; the count below says what the user can act on
    else:
        if whole >= announced or sound.format != "FLAC":
            return
    raise DuologueError(
        f"{name} is cut short or damaged: at most {whole / sound.samplerate:.2f} s of the "
        f"{announced / sound.samplerate:.2f} s that its header announces can be read"
    )


def _blocks_of_array(samples: np.ndarray) -> Iterator[np.ndarray]:
    samples = np.asarray(samples)
    if samples.ndim not in (1, 2):
        raise DuologueError(f"a recording has the shape (samples,) or (samples, channels), not {samples.shape}")
    if samples.dtype.kind == "u":
        full = (np.iinfo(samples.dtype).max + 1) / 2
        samples = (samples.astype(np.float64) - full) / full
    elif samples.dtype.kind == "i":
        samples = samples.astype(np.float64) / (np.iinfo(samples.dtype).max + 1.0)
    elif samples.dtype.kind != "f":
        raise DuologueError(f"samples are integers or floats, not {samples.dtype}")
    yield samples.astype(np.float32)[:, None] if samples.ndim == 1 else samples.astype(np.float32)


def _check_length(name: str, frames: int, rate: int, longest: float = MAX_SECONDS) -> None:
    if not MIN_RATE <= rate <= MAX_RATE:
        raise DuologueError(f"{name} has a sample rate of {rate} Hz: from {MIN_RATE} to {MAX_RATE} Hz can be read")
    if frames > longest * rate:
        raise DuologueError(f"{name} lasts {frames / rate:.0f} s: at most {longest:.0f} s can be heard at once")


def _finish(name: str, rate: int, blocks: Iterator[np.ndarray], sample_rate: int) -> np.ndarray:
    """Blocks of (n, channels) at ``rate`` -> (n,) at ``sample_rate``."""
    mono = list(_mono(name, rate, blocks, sample_rate, MAX_SECONDS))
    waveform = np.concatenate(mono) if mono else np.zeros(0, np.float32)
    if not len(waveform):
        raise DuologueError(f"{name} has no samples (0 s): record something")
    peak = float(np.abs(waveform).max())
    if not math.isfinite(peak):
        raise DuologueError(f"{name} has samples too large to be sound")
    return waveform / np.float32(peak) if peak > 1 else waveform


def _mono(name: str, rate: int, blocks: Iterator[np.ndarray], sample_rate: int, longest: float) -> Iterator[np.ndarray]:
    """Blocks of (n, channels) at ``rate`` -> pieces of the mono signal at ``sample_rate``."""
    import soxr

    _check_length(name, 0, rate, longest)
    resample = soxr.ResampleStream(rate, sample_rate, 1, dtype="float32", quality="HQ") if rate != sample_rate else None
    frames = 0
    for block in blocks:  # (n, channels)
        frames += len(block)
        _check_length(name, frames, rate, longest)  # a header may be wrong about the length
        if not block.size:
            continue
        if not np.isfinite(block).all():
            bad = frames - len(block) + int(np.argmin(np.isfinite(block).all(axis=1)))
            raise DuologueError(f"{name} has a sample that is no number (NaN or infinite) at {bad / rate:.3f} s")
        part = block.mean(axis=1, dtype=np.float64).astype(np.float32)  # (n,)
        yield resample.resample_chunk(part) if resample else part
    if frames and resample:
        yield resample.resample_chunk(np.zeros(0, np.float32), last=True)


def read_pieces(path: str | os.PathLike[str], sample_rate: int) -> Iterator[tuple[float, np.ndarray]]:
    """A recording of any length in pieces, so that it need not fit in memory.

    Yields:
        The share of the recording read so far, and the next piece of it, (n,) float32 in [-1, 1], mono at
        ``sample_rate``. Unlike :func:`read_audio`, which knows the whole, it clips float samples beyond 1.

    Raises:
        DuologueError: for every input named in this module's docstring; there is no longest recording.
    """
    import soundfile

    name = str(path)
    if Path(path).is_dir():
        raise DuologueError(f"{name} is a folder, not a recording: give a WAV, FLAC, Ogg or MP3 file")
    if not Path(path).is_file():
        raise DuologueError(f"no such file: {name}")
    try:
        sound = soundfile.SoundFile(path)
    except soundfile.LibsndfileError:
        raise DuologueError(f"{name} is not a recording that can be read: give WAV, FLAC, Ogg or MP3") from None
    with sound:
        samples = 0
        for piece in _mono(name, sound.samplerate, _blocks_of_file(name, sound), sample_rate, np.inf):
            samples += len(piece)
            yield sound.tell() / max(1, sound.frames), np.clip(piece, -1.0, 1.0)
        if not samples:
            raise DuologueError(f"{name} has no samples (0 s): record something")
