"""Sound files by libsndfile: WAV, FLAC, Ogg, MP3, AIFF, AU and whatever else it knows."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from ...model.errors import DuologueError
from .sources import File, part_of
from .track import BLOCK, Track

if TYPE_CHECKING:
    import soundfile

_UNKNOWN = 2**40  # frames: more than any header can announce (FLAC's has 36 bits) stands for an unknown length


def sndfile_track(file: File) -> Track | None:
    """The sound of a file; None if libsndfile does not know its form."""
    import soundfile

    try:
        with _open(file) as sound:
            rate, channels, form = sound.samplerate, sound.channels, sound.format
            announced = sound.frames if sound.frames < _UNKNOWN else None
            cut = _announced_bytes(sound.extra_info)
            if sound.subtype.startswith("MPEG"):  # its decoder writes to stderr; FFmpeg's does not
                return None
    except (soundfile.SoundFileError, ValueError):
        return None

    def blocks() -> Iterator[np.ndarray]:
        found = 0
        try:
            with _open(file) as sound:
                while len(block := sound.read(BLOCK, dtype="float32", always_2d=True)):
                    found += len(block)
                    yield block
        except soundfile.SoundFileError:
            pass  # libFLAC names neither the place nor the reason; the counts say what the user can act on
        else:
            if form != "FLAC" or announced is None or found >= announced:
                return
        of = "" if announced is None else f" of the {announced / rate:.2f} s that its header announces"
        raise DuologueError(f"{file.name} is cut short or damaged: at most {found / rate:.2f} s{of} can be read")

    ends_early = f"{cut[1]} bytes of sound, its header announces {cut[0]}" if cut else ""
    return Track(rate=rate, channels=channels, announced=announced, blocks=blocks, ends_early=ends_early)


def _open(file: File) -> soundfile.SoundFile:
    if file.descriptor is None:
        return _sequential()(part_of(file, 0, file.size).handle)
    file.handle.seek(0)
    return _sequential()(file.descriptor, closefd=False)  # without a call of Python for each piece


@functools.cache
def _sequential() -> type[soundfile.SoundFile]:
    import soundfile

    class Sequential(soundfile.SoundFile):
        """A sound file that is read from its beginning to its end."""

        def seekable(self) -> bool:
            """Never: else soundfile seeks after each block, and fails at the end of a FLAC of unknown length."""
            return False

    return Sequential


def _announced_bytes(log: str) -> tuple[int, int] | None:
    """(announced, found) bytes of a WAV that ends early, from libsndfile's log; None for a whole one.

    A WAV that came through a pipe announces what nobody can have known, 2^31 - 1 or thereabouts, and is whole.
    """
    found = re.search(r"^data : (\d+) \(should be (\d+)\)", log, flags=re.MULTILINE)
    announced, there = (int(found[1]), int(found[2])) if found else (0, 0)
    return (announced, there) if there < announced < 0x7FFF0000 else None
