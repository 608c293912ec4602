"""Long recordings cut at their pauses, between words, into pieces that a model hears at once."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np

from ...checkpoints.recognisers.recogniser import TimedWord

_FRAME_S = 0.02  # of levels
_PAUSE_S = 0.1  # over which a pause is quiet
_SLACK_S = 0.1  # how far the times of words may be wrong
SHORTEST_S = 1.0  # of a piece


def cut_between(
    words: Sequence[TimedWord], wave: np.ndarray, sample_rate: int, longest_s: float
) -> list[tuple[int, int, list[TimedWord]]]:
    """(start, end) in samples of pieces of at most ``longest_s`` (at least 2 s), and the words in each.

    The pieces are all of ``wave`` (n,), one after the other. What is too long is cut where it is quietest between two
    words, or where it is quietest if there is no such place, and each part again.
    """
    frame = int(_FRAME_S * sample_rate)
    power = np.square(wave[: len(wave) // frame * frame].astype(np.float64)).reshape(-1, frame).mean(1)  # (frames,)
    width = round(_PAUSE_S / _FRAME_S)
    level = np.convolve(power, np.ones(width) / width, "same")
    between = np.zeros(len(level), bool)
    for before, after in itertools.pairwise(words):
        first, last = sorted((before.end_s, after.start_s))
        between[_at(first - _SLACK_S) : _at(last + _SLACK_S)] = True
    edges = [start * frame for start, _ in _cut(level, between, 0, len(level), int(longest_s / _FRAME_S))]
    pieces = list(zip(edges, [*edges[1:], len(wave)], strict=True))
    middles = [(word.start_s + word.end_s) / 2 * sample_rate for word in words]
    return [
        (start, end, [word for word, middle in zip(words, middles, strict=True) if _within(middle, start, end, wave)])
        for start, end in pieces
    ]


def _cut(level: np.ndarray, between: np.ndarray, start: int, end: int, most: int) -> list[tuple[int, int]]:
    """(start, end) of pieces of at most so many frames."""
    if end - start <= most:
        return [(start, end)]
    least = min(round(SHORTEST_S / _FRAME_S), (end - start) // 2)
    places = np.arange(start + least, end - least + 1)
    allowed = places[between[places]]
    places = allowed if len(allowed) else places
    at = int(places[np.argmin(level[places])])
    return _cut(level, between, start, at, most) + _cut(level, between, at, end, most)


def _at(seconds: float) -> int:
    return max(0, round(seconds / _FRAME_S))


def _within(middle: float, start: int, end: int, wave: np.ndarray) -> bool:
    """Whether a word is in a piece; one that ends behind the recording is in the last."""
    return start <= middle < end or (end == len(wave) and middle >= end)
