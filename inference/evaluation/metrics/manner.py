"""How a marked reading differs from a plain one of the same words, by their samples alone: pauses, rate, emphasis.

Both are (n,) float32 at one rate. Loudness is taken in windows of 40 ms, every 10 ms.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ....data_prep.speech.pitch import pitch

STEP_S, WINDOW_S = 0.01, 0.04
QUIET_DB = -60.0  # of full scale: below it nothing is heard
_ALIKE_DB = 2.0  # by which two readings of the same sound differ at most, over _FRAMES
_FRAMES = 10
_FAINT_DB = -45.0  # below it, no difference counts


def loudness(wave: np.ndarray, rate: int, window_s: float = WINDOW_S) -> np.ndarray:
    """dB of full scale, (frames,), QUIET_DB at least."""
    step, half = round(STEP_S * rate), round(window_s * rate) // 2
    power = np.concatenate([[0.0], np.square(np.pad(wave, half).astype(np.float64)).cumsum()])
    starts = np.arange(0, len(wave), step)
    found: np.ndarray = 10 * np.log10(np.maximum((power[starts + 2 * half] - power[starts]) / (2 * half), 1e-12))
    return found.clip(min=QUIET_DB)


def longest_quiet(wave: np.ndarray, rate: int) -> tuple[float, float]:
    """Where the longest stretch begins, within the speech, in which nothing is heard, and how long it is; seconds."""
    silent = np.abs(wave) < 10 ** (QUIET_DB / 20)
    edges = np.flatnonzero(np.diff(np.concatenate([[False], silent, [False]]).astype(int)))
    runs = [(end - start, start) for start, end in edges.reshape(-1, 2).tolist() if start > 0 and end < len(wave)]
    length, start = max(runs, default=(0, 0))
    return start / rate, length / rate


def speech_s(wave: np.ndarray, rate: int) -> float:
    """Seconds from the first sound to the last."""
    heard = np.flatnonzero(np.abs(wave) > 10 ** (QUIET_DB / 20))
    return float(heard[-1] - heard[0] + 1) / rate if len(heard) else 0.0


@dataclass(frozen=True, kw_only=True)
class Stretch:
    """What differs in the marked reading: seconds of it in the plain one; times as long, dB louder, times as high (1
    where there is no voice)."""

    seconds: float
    longer: float
    louder_db: float
    higher: float


def changed(plain: np.ndarray, marked: np.ndarray, rate: int) -> Stretch:
    """The one stretch of the readings outside of which they sound alike."""
    before, after = loudness(plain, rate), loudness(marked, rate)
    shortest = min(len(before), len(after))
    start = _alike(before[:shortest], after[:shortest])
    end = _alike(before[::-1][: shortest - start], after[::-1][: shortest - start])
    step = round(STEP_S * rate)
    theirs, ours = (wave[start * step : (count - end) * step]
                    for wave, count in ((plain, len(before)), (marked, len(after))))  # fmt: skip
    if not len(theirs) or not len(ours):
        return Stretch(seconds=0.0, longer=1.0, louder_db=0.0, higher=1.0)
    louder = 10 * np.log10(max(np.square(ours).mean(), 1e-12) / max(np.square(theirs).mean(), 1e-12))
    heights = [_height(wave, rate) for wave in (theirs, ours)]
    return Stretch(
        seconds=len(theirs) / rate, longer=len(ours) / len(theirs), louder_db=float(louder),
        higher=heights[1] / heights[0] if all(heights) else 1.0,
    )  # fmt: skip


def _alike(one: np.ndarray, other: np.ndarray) -> int:
    """How many of the first frames sound alike; single ones may differ, as noise does."""
    apart = np.where(np.maximum(one, other) < _FAINT_DB, 0.0, np.abs(one - other)).clip(max=3 * _ALIKE_DB)
    means = np.convolve(apart, np.ones(_FRAMES) / _FRAMES, "valid") if len(apart) >= _FRAMES else apart
    different = np.flatnonzero(means > _ALIKE_DB)
    if not len(different):
        return len(one)
    first = int(different[0])
    return first + int((apart[first : first + _FRAMES] > _ALIKE_DB).argmax())


def _height(wave: np.ndarray, rate: int) -> float:
    """The median pitch, Hz; 0 where there is no voice."""
    hertz = pitch(wave, rate, rate // 100)
    voiced = hertz[hertz > 0]
    return float(np.median(voiced)) if len(voiced) else 0.0
