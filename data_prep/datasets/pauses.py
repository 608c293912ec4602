"""Long recordings cut at their pauses, into pieces that a model or a recogniser hears at once."""

from __future__ import annotations

import numpy as np

_FRAME_S = 0.02  # of levels
_PAUSE_S = 0.3  # over which a pause is quiet
SHORTEST_S = 1.0  # of a piece


def cut_at_pauses(wave: np.ndarray, sample_rate: int, longest_s: float) -> list[tuple[int, int]]:
    """(start, end) in samples of pieces of at most ``longest_s`` (at least 2 s), one after the other, that are all of
    ``wave`` (n,): what is too long is cut where it is quietest, and each part again."""
    frame = int(_FRAME_S * sample_rate)
    power = np.square(wave[: len(wave) // frame * frame].astype(np.float64)).reshape(-1, frame).mean(1)  # (frames,)
    width = round(_PAUSE_S / _FRAME_S)
    level = np.convolve(power, np.ones(width) / width, "same")
    return [(start * frame, min(end * frame, len(wave)) if end < len(level) else len(wave))
            for start, end in _cut(level, 0, len(level), int(longest_s / _FRAME_S))]  # fmt: skip


def _cut(level: np.ndarray, start: int, end: int, most: int) -> list[tuple[int, int]]:
    """The same in frames."""
    if end - start <= most:
        return [(start, end)]
    least = min(round(SHORTEST_S / _FRAME_S), (end - start) // 2)
    at = start + least + int(np.argmin(level[start + least : end - least + 1]))
    return _cut(level, start, at, most) + _cut(level, at, end, most)
