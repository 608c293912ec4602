"""Full-Duplex-Bench's measures of one dialogue, from words with their times and from segments of speech.

Take-over (TOR): 0 without words, or with at most three words within less than a second; otherwise 1. Latency: first
word minus the end of the user's turn, not below 0, of dialogues that were taken over. Back-channels: a segment of
speech longer than 3 s is a take-over; a shorter one is a back-channel, or a take-over by its words. Version 1.5: how
long the two speak at once after the user has begun, and how long after the user the model begins again.

Sources: Lin et al., "Full-Duplex-Bench" (arXiv 2503.04721), section 4, and its version 1.5 (arXiv 2507.23159); where
the papers are silent, what their published scripts do, which is said in each place.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ....checkpoints.recognisers.recogniser import TimedWord

Segment = tuple[float, float]  # s

SHORT_S, FEW_WORDS = 1.0, 3
LONG_S = 3.0
BIN_S = 0.2
_LITTLE = 1e-10  # in every bin, so that none is empty


def taken_over(words: Sequence[TimedWord]) -> bool:
    """TOR of what was said, from its first to its last word."""
    if not words:
        return False
    return words[-1].end_s - words[0].start_s >= SHORT_S or len(words) > FEW_WORDS


def latency(words: Sequence[TimedWord], user_end_s: float) -> float | None:
    """Seconds from the end of the user's turn to the first word, 0 where it began before; None without a take-over."""
    return max(0.0, words[0].start_s - user_end_s) if taken_over(words) else None


def after(words: Sequence[TimedWord], moment_s: float) -> list[TimedWord]:
    """The words that begin after a moment: a user interruption is judged by these alone."""
    return [word for word in words if word.start_s >= moment_s]


def back_channels(segments: Sequence[Segment], words: Sequence[TimedWord]) -> tuple[list[Segment], bool]:
    """(the back-channels, whether the turn was taken over) of a model that listens.

    Segments up to the first that is longer than LONG_S count as back-channels, take-overs by their words included. A
    shorter segment takes over with more than three words, or a second, or with three words in less. As the published
    script has it, the last of them decides (an earlier one does not, if a later one is short).
    """
    found: list[Segment] = []
    taken = False
    for start, end in segments:
        if end - start > LONG_S:
            return found, True
        inside = [word for word in words if word.end_s > start and word.start_s <= end]
        taken = len(inside) > FEW_WORDS or end - start >= SHORT_S or len(inside) == FEW_WORDS
        found.append((start, end))
    return found, taken


def frequency(found: Sequence[Segment], duration_s: float) -> float:
    """Back-channels a second."""
    return len(found) / duration_s if duration_s > 0 else 0.0


def back_channel_times(found: Sequence[Segment], duration_s: float) -> np.ndarray:
    """When they fall: (n,) shares of BIN_S bins, which sum to 1."""
    bins = np.zeros(int(duration_s / BIN_S) + 1)
    for start, end in found:
        bins[int(start / BIN_S) : int(end / BIN_S) + 1] += 1
    bins += _LITTLE
    return bins / bins.sum()


def divergence(found: Sequence[Segment], duration_s: float, people: Sequence[float]) -> float:
    """Jensen-Shannon distance (natural logarithm, square root) to when people gave back-channels; 1 if there are none.

    people: their distribution over equal bins of the dialogue, stretched to BIN_S bins by linear interpolation.
    """
    from scipy.spatial.distance import jensenshannon

    if not found:
        return 1.0
    times = back_channel_times(found, duration_s)
    stretched = np.interp(np.linspace(0, 1, len(times)), np.linspace(0, 1, len(people)), people)
    return float(jensenshannon(times, stretched))


def stop_latency(model: Sequence[Segment], user: Segment) -> float | None:
    """Seconds for which both speak, from the user's beginning on (v1.5). None if the model was not speaking then.

    The overlap of the segment that is being spoken when the user begins with the user's own: a model that stops at once
    has 0, one that never stops the whole of the user's speech.
    """
    start, end = user
    speaking = next(((a, b) for a, b in model if a <= start < b), None)
    return None if speaking is None else min(speaking[1], end) - start


def response_latency(model: Sequence[Segment], user: Segment) -> float | None:
    """Seconds from the end of the user's speech to the next beginning of the model's (v1.5). None if it is silent."""
    return next((a - user[1] for a, _ in model if a >= user[1]), None)
