"""When each token of a transcript was said: forced alignment to what CTC finds in the speech.

    log-probabilities (T, V) at the positions of speech, the transcript's ids -> a time and a probability for each id

The likeliest path of CTC through the speech that writes exactly these tokens (Viterbi). CTC's labels are short peaks
that tend to stand behind the onset of what they mean, so a time is good to a position or two, and a token lasts until
the path leaves it.

Source: Graves et al., "Connectionist Temporal Classification" (ICML 2006), section 4.1, with the maximum in the place
of the sum.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from ..adaptor.adaptor import HeardToken

# A transcript's ids -> each with its time, in seconds from the beginning of the turn, and its probability.
TokenTimes = Callable[[Sequence[int]], list[HeardToken]]
_REPEATED = -1e4  # nats: the same token twice without a blank between, only where there is no place for one
_NEVER = -1e9


def best_path(log_probs: Tensor) -> list[HeardToken]:
    """The labels of the likeliest alignment: the best of each frame of (T, V + 1), a run of the same once, no blanks,
    which are last. Times are in frames."""
    best, labels = log_probs.max(-1)
    kinds, run, lengths = labels.unique_consecutive(return_inverse=True, return_counts=True)
    sure = best.new_zeros(len(kinds)).index_add(0, run, best.exp()) / lengths
    ends = lengths.cumsum(0)
    rows = zip(kinds.tolist(), (ends - lengths).tolist(), ends.tolist(), sure.tolist(), strict=True)
    return [HeardToken(token=label, start=start, end=end, confidence=confidence)
            for label, start, end, confidence in rows if label < log_probs.shape[1] - 1]  # fmt: skip


def aligned(labels: Tensor, blank: int, position_s: float, ids: Sequence[int]) -> list[HeardToken]:
    """Tokens with their times.

    Args:
        labels: (T, V) log-probabilities. position_s: seconds of one position. ids: at most T of them.
    """
    if not ids:
        return []
    row = np.full(2 * len(ids) + 1, blank)
    row[1::2] = ids
    scores = labels[:, torch.from_numpy(row)].double().cpu().numpy()  # (T, S): blanks and tokens in turn
    skip = np.full(len(row), _NEVER)  # from the token before, over the blank
    skip[3::2] = np.where(row[3::2] == row[1:-2:2], _REPEATED, 0.0)
    before, came = np.full((3, len(row)), _NEVER), np.zeros(scores.shape, np.int64)
    best = before[0]
    best[:2] = scores[0, :2]
    for at, now in enumerate(scores[1:], 1):
        before[1, 1:], before[2, 2:] = best[:-1], best[:-2] + skip[2:]
        came[at] = before.argmax(0)
        best[:] = before.max(0) + now
    at = len(row) - 1 if best[-1] >= best[-2] else len(row) - 2
    places: dict[int, list[int]] = {}
    for position in range(len(scores) - 1, -1, -1):
        places.setdefault(at, []).append(position)
        at -= int(came[position, at])
    return [
        HeardToken(
            token=token, start=position_s * places[at][-1], end=position_s * (places[at][0] + 1),
            confidence=float(np.exp(scores[places[at], at]).mean()),
        )
        for token, at in zip(ids, range(1, len(row), 2), strict=True)
    ]  # fmt: skip
