"""Sound into files: a waveform, whole or in pieces -> a 16-bit mono WAV."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from ...checkpoints.files import appearing
from ...model.errors import DuologueError

LARGEST_WAV = 2**32 - 4096  # bytes; a longer one is written as RF64


def write_wav(path: str | os.PathLike[str], waveform: np.ndarray, sample_rate: int) -> None:
    """Write ``waveform`` (n,) float in [-1, 1] as a 16-bit mono WAV; the file appears whole or not at all.

    Raises:
        DuologueError: when the folder does not exist or cannot be written to, or the name does not end in ``.wav``.
    """
    with writing_wav(path, sample_rate, len(waveform)) as write:
        write(waveform)


def require_wav(path: str | os.PathLike[str]) -> None:
    """Raises DuologueError where no WAV can be written: at the edge, before there is something to lose."""
    path = Path(path)
    if path.suffix.lower() != ".wav":
        raise DuologueError(f"{path}: sound is written as WAV, so give a name that ends in .wav")
    if path.is_dir():
        raise DuologueError(f"{path} is a folder: give the name of a file in it")
    if not Path(os.path.realpath(path)).parent.is_dir():
        raise DuologueError(f"cannot write {path}: there is no folder {Path(os.path.realpath(path)).parent}")


@contextmanager
def writing_wav(path: str | os.PathLike[str], sample_rate: int, samples: int) -> Iterator[Callable[[np.ndarray], None]]:
    """What appends (n,) float to a WAV of so many samples, which appears whole or not at all. Raises as `write_wav`."""
    import soundfile

    require_wav(path)
    container = "WAV" if 2 * samples < LARGEST_WAV else "RF64"
    with appearing(path) as file:
        target = _Target(file)

        def write(waveform: np.ndarray) -> None:
            sound.write(np.clip(waveform, -1.0, 1.0))
            target.check()

        with soundfile.SoundFile(target, "w", sample_rate, 1, "PCM_16", format=container) as sound:
            yield write
        target.check()


class _Target:
    """A file for libsndfile, which cannot take an exception: the first one is kept for `check`."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._error: OSError | None = None

    def check(self) -> None:
        if self._error is not None:
            raise self._error

    def write(self, data: Any) -> int:
        self._try(lambda: self._file.write(data))
        return len(data)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        return self._try(lambda: self._file.seek(offset, whence))

    def tell(self) -> int:
        return self._try(self._file.tell)

    def _try(self, work: Callable[[], int]) -> int:
        if self._error is None:
            try:
                return work()
            except OSError as error:  # a full disk, a file-size limit
                self._error = error
        return 0
