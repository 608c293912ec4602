"""A recording that the page asks about, read as every recording is: the browser sends it, samples go back."""

from __future__ import annotations

import numpy as np

from ...data_prep.audio import AudioSource, read_audio

RATE = 24_000  # Hz, of the protocol's sound


def sound_of(recording: AudioSource) -> np.ndarray:
    """A recording as samples (n,) at RATE.

    Raises:
        DuologueError: it cannot be read, or is too long.
    """
    return read_audio(recording, RATE)


def pcm16_of(recording: AudioSource) -> bytes:
    """The same as 16-bit samples.

    Raises:
        DuologueError: as above.
    """
    return (np.clip(sound_of(recording), -1, 1) * 32_767).astype("<i2").tobytes()
