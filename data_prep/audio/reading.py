"""Recordings -> float32 mono at the rate that is asked for. Every way in leads here; bad recordings are caught here.

libsndfile reads what it knows, FFmpeg the rest (pyav.py); files that were joined to one are read one by one. Each
failure is one :class:`DuologueError` line: no such file, a folder, an empty file, no samples, text called ``.wav``, a
FLAC or M4A that is cut short or damaged (part of it could be heard, but half a question is not the question), NaN or
infinite samples, more than :data:`MAX_SECONDS`. A WAV, Ogg or WebM that simply ends early is read up to where it ends,
as a recording that was stopped. Silence is a recording like any other.
"""

from __future__ import annotations

import contextlib
import io
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import pairwise
from typing import Any

import numpy as np

from ...model.errors import DuologueError
from .arrays import array_track, pair_of
from .channels import average, carrying
from .formats import FORMATS, MOST_LINKS, demuxer, links
from .libsndfile import sndfile_track
from .pyav import av_track
from .sources import MAX_PIPED, AudioSource, File, opened, part_of
from .track import Track

MAX_SECONDS = 600.0
MIN_RATE, MAX_RATE = 1_000, 768_000  # Hz: below and above, a header is wrong rather than the microphone unusual
MAX_CHANNELS = 64
MAX_SAMPLES_PER_S = 384_000  # of all channels, over the longest recording: eight at 48 kHz, two at 192 kHz
ID3V1 = 128  # bytes of such a tag
KEPT_SAMPLES = 2**24  # of a recording of several channels, decoded; of a longer one, it is decoded twice


def read_audio(
    source: AudioSource,
    sample_rate: int = 16_000,
    *,
    longest: float = MAX_SECONDS,
    whole: bool = False,
    channel: int | None = None,
    name: str | None = None,
) -> np.ndarray:
    """Read any recording as mono at ``sample_rate``.

    Args:
        source: a path (of a file, a pipe or a device), the bytes of a file, a file that is open for reading bytes (from
            its beginning, if it can seek), or samples with their rate: ``(rate in Hz, samples)``, ``(samples, rate)``,
            ``{"array": samples, "sampling_rate": rate}``. Samples: of numpy or torch on any device, (n,),
            (n, channels) or (channels, n), whichever axis is shorter; integers at full scale or floats in [-1, 1].
        sample_rate: rate of the result in Hz.
        longest: seconds; a longer recording is refused.
        whole: refuse a WAV that ends before its header says so, too.
        channel: hear this one alone, from 0.
        name: what messages call it; else its path.

    Returns:
        (n,) float32 in [-1, 1]. Channels that carry sound are averaged (channels.py); float samples beyond 1 are
        scaled down, not clipped.

    Raises:
        DuologueError: for every input named in this module's docstring.
    """
    with _opened(source, MAX_PIPED, name) as (name, tracks):
        early = next((track.ends_early for track in tracks if track.ends_early), "")
        if whole and early:
            raise DuologueError(f"{name} is cut short: {early}")
        pieces = [piece for _, piece in _mono(name, tracks, sample_rate, longest, channel)]
    waveform = np.concatenate(pieces) if pieces else np.zeros(0, np.float32)
    if not len(waveform):
        raise DuologueError(f"{name} has no samples (0 s): record something")
    peak = float(np.abs(waveform).max())
    if not math.isfinite(peak):
        raise DuologueError(f"{name} has samples too large to be sound")
    return waveform / np.float32(peak) if peak > 1 else waveform


def read_pieces(source: AudioSource, sample_rate: int) -> Iterator[tuple[float, np.ndarray]]:
    """A recording of any length in pieces, so that it need not fit in memory.

    Yields:
        The fraction of the recording read so far (0 where its length is unknown), and the next piece of it, (n,)
        float32 in [-1, 1], mono at ``sample_rate``. Unlike :func:`read_audio`, which knows the whole, it clips float
        samples beyond 1.

    Raises:
        DuologueError: for every input named in this module's docstring; there is no longest recording.
    """
    with _opened(source, None) as (name, tracks):
        announced = sum((track.announced or math.inf) / max(1, track.rate) for track in tracks)
        samples = 0
        for seconds, piece in _mono(name, tracks, sample_rate, math.inf):
            samples += len(piece)
            yield min(1.0, seconds / announced), np.clip(piece, -1.0, 1.0)
        if not samples:
            raise DuologueError(f"{name} has no samples (0 s): record something")


@contextlib.contextmanager
def _opened(source: AudioSource, most_piped: int | None, name: str | None = None) -> Iterator[tuple[str, list[Track]]]:
    """A recording's name for messages, and its sound, ready to be decoded."""
    pair = pair_of(source)
    if pair is not None:
        yield name or "the recording", [array_track(*pair)]
        return
    with opened(source, _is_known, most_piped, name) as file:
        if file.size == 0:
            raise DuologueError(f"{file.name} is empty (0 bytes): give a recording")
        try:
            yield file.name, _tracks(file)
        except OSError as error:  # a disk that fails, a network that is gone
            raise DuologueError(f"cannot read {file.name}: {error.strerror or error}") from None


def _is_known(head: bytes) -> bool:
    """Whether a file that begins so may be a recording."""
    file = File(name="", handle=io.BytesIO(head), size=len(head))
    return demuxer(file.handle) is not None or sndfile_track(file) is not None


def _tracks(file: File) -> list[Track]:
    """The sound of a file: one track, or several of a chain."""
    kind = demuxer(file.handle)
    starts = links(file.handle, file.size, kind)
    if len(starts) > MOST_LINKS:
        raise DuologueError(f"{file.name} is a chain of more than {MOST_LINKS} recordings")
    end = file.size - (ID3V1 if kind == "flac" and _is_tagged(file) else 0)
    parts = [file] if [*starts, end] == [0, file.size] else [part_of(file, *ends) for ends in pairwise([*starts, end])]
    tracks = []
    for part in parts:
        track = sndfile_track(part) if kind != "mp3" else None
        if kind is not None and (track is None or track.announced == 0):  # 0: a WAV that nobody closed, or an empty one
            track = av_track(part, kind) or track
        if track is None:
            if kind is None:
                raise DuologueError(f"{file.name} is not a recording that can be read: give {FORMATS}")
            raise DuologueError(
                f"{file.name} has no sound that can be read, or is cut short or damaged: give {FORMATS}"
            )
        tracks.append(track)
    return tracks


def _is_tagged(file: File) -> bool:
    """Whether it ends with an ID3v1 tag, which some programs put behind a FLAC, and libFLAC takes for damage."""
    file.handle.seek(max(0, file.size - ID3V1))
    return file.handle.read(3) == b"TAG"


@dataclass
class _Decoded:
    """How much of a recording has been decoded, against what may be."""

    name: str
    longest: float  # s
    seconds: Fraction = Fraction()  # exact: ten minutes in blocks are no more than ten minutes
    samples: int = 0  # of all channels

    def count(self, frames: int, track: Track) -> None:
        """Add frames. A header may be wrong about the length, so both are counted: what it says and what comes."""
        self.seconds += Fraction(frames, track.rate)
        self.samples += frames * track.channels
        if self.seconds > self.longest:
            raise DuologueError(
                f"{self.name} lasts {float(self.seconds):.6g} s: at most {self.longest:.0f} s can be read at once"
            )
        if self.samples > self.longest * MAX_SAMPLES_PER_S:
            raise DuologueError(
                f"{self.name} has {track.channels} channels at {track.rate} Hz for {float(self.seconds):.0f} s: "
                f"at most {self.longest * MAX_SAMPLES_PER_S / 1e6:.0f} million samples can be read at once"
            )


def _mono(
    name: str, tracks: list[Track], sample_rate: int, longest: float, channel: int | None = None
) -> Iterator[tuple[float, np.ndarray]]:
    """(seconds so far, the next piece (n,) of the mono signal at ``sample_rate``)."""
    decoded, resampler = _Decoded(name, longest), _Resampler(sample_rate)
    for track in tracks:
        _check_header(track, replace(decoded))
        if not 0 <= (channel or 0) < track.channels:
            raise DuologueError(f"{name} has {track.channels} channels; there is no channel {channel}")
        one = channel is not None or track.channels == 1
        chosen, blocks = (np.array([channel or 0]), track.blocks()) if one else _compared(track, decoded)
        for block in blocks:
            decoded.count(len(block), track)
            part = average(block, chosen)  # (n,)
            finite = np.isfinite(part)
            if not finite.all():
                at = float(decoded.seconds) - (len(part) - int(np.argmin(finite))) / track.rate
                raise DuologueError(f"{name} has a sample that is no number (NaN or infinite) at {at:.3f} s")
            yield float(decoded.seconds), resampler.push(part, track.rate)
    yield float(decoded.seconds), resampler.flush()


def _check_header(track: Track, decoded: _Decoded) -> None:
    if not MIN_RATE <= track.rate <= MAX_RATE:
        raise DuologueError(
            f"{decoded.name} has a sample rate of {track.rate} Hz: from {MIN_RATE} to {MAX_RATE} Hz can be read"
        )
    if not 1 <= track.channels <= MAX_CHANNELS:
        raise DuologueError(f"{decoded.name} has {track.channels} channels: from 1 to {MAX_CHANNELS} can be read")
    decoded.count(track.announced or 0, track)


def _compared(track: Track, decoded: _Decoded) -> tuple[np.ndarray, Iterable[np.ndarray]]:
    """Which channels carry sound over all of a track, and its blocks: those just decoded, if they are few."""
    kept: list[np.ndarray] = []
    decoded, before = replace(decoded), decoded.samples

    def blocks() -> Iterator[np.ndarray]:
        for block in track.blocks():
            decoded.count(len(block), track)
            kept.append(block)
            if decoded.samples - before > KEPT_SAMPLES:
                kept.clear()
            yield block

    chosen = carrying(blocks(), track.channels)
    return chosen, kept if decoded.samples - before <= KEPT_SAMPLES else track.blocks()


class _Resampler:
    """Pieces at one rate, or at several one after the other, to pieces at ``wanted``."""

    def __init__(self, wanted: int) -> None:
        self._wanted = self._rate = wanted
        self._stream: Any = None  # soxr.ResampleStream, of which mypy knows nothing

    def push(self, piece: np.ndarray, rate: int) -> np.ndarray:
        """(n,) at ``rate`` -> what is ready of the result."""
        if rate == self._rate:
            return piece if self._stream is None else self._stream.resample_chunk(piece)
        rest = self.flush()
        self._rate = rate
        if rate != self._wanted:
            import soxr

            self._stream = soxr.ResampleStream(rate, self._wanted, 1, dtype="float32", quality="HQ")
        return np.concatenate([rest, self.push(piece, rate)])

    def flush(self) -> np.ndarray:
        """The rest, after the last piece."""
        stream, self._stream = self._stream, None
        return np.zeros(0, np.float32) if stream is None else stream.resample_chunk(np.zeros(0, np.float32), last=True)
