"""Sound into files: a waveform -> a 16-bit mono WAV."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from ...checkpoints.files import appearing
from ...model.errors import DuologueError


def write_wav(path: str | os.PathLike[str], waveform: np.ndarray, sample_rate: int) -> None:
    """Write ``waveform`` (n,) float in [-1, 1] as a 16-bit mono WAV; the file appears whole or not at all.

    Raises:
        DuologueError: when the folder does not exist or cannot be written to, or the name does not end in ``.wav``.
    """
    import soundfile

    path = Path(path)
    if path.suffix.lower() != ".wav":
        raise DuologueError(f"{path}: speech is written as WAV, so give a name that ends in .wav")
    if path.is_dir():
        raise DuologueError(f"{path} is a folder: give the name of a file in it")
    with appearing(path) as file:
        soundfile.write(file, np.clip(waveform, -1.0, 1.0), sample_rate, format="WAV", subtype="PCM_16")
