"""A stretch of sound at one rate with the same channels throughout: what a decoder makes of a file."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

BLOCK = 65_536  # frames decoded at a time, so that a small file of much silence cannot fill the memory


@dataclass(frozen=True, kw_only=True)
class Track:
    """Sound that can be decoded again and again.

    rate: Hz. announced: frames, if a header says how many. ends_early: how a file that ends before its header says so
    differs from that; "" for a whole one, or where nothing is announced.
    blocks: decodes from the beginning: (n, channels) float32; it raises DuologueError where the sound is damaged.
    """

    rate: int
    channels: int
    announced: int | None
    blocks: Callable[[], Iterator[np.ndarray]]
    ends_early: str = ""
