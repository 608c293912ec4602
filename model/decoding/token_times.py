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

import torch
from torch import Tensor

from ..adaptor.adaptor import HeardToken

# A transcript's ids -> each with its time, in seconds from the beginning of the turn, and its probability.
TokenTimes = Callable[[Sequence[int]], list[HeardToken]]
_REPEATED = -1e4  # nats: the same token twice without a blank between, only where there is no place for one
_NEVER = -1e9


def aligned(labels: Tensor, blank: int, position_s: float, ids: Sequence[int]) -> list[HeardToken]:
    """Tokens with their times.

    Args:
        labels: (T, V) log-probabilities. position_s: seconds of one position. ids: at most T of them.
    """
    if not ids:
        return []
    row = torch.full((2 * len(ids) + 1,), blank)
    row[1::2] = torch.tensor(list(ids))
    scores = labels[:, row].double().cpu()  # (T, S): blanks and tokens in turn
    skip = torch.full((len(row),), _NEVER, dtype=torch.float64)  # from the token before, over the blank
    skip[3::2] = torch.where(row[3::2] == row[1:-2:2], _REPEATED, 0.0)
    best, came = torch.full_like(skip, _NEVER), []
    best[:2] = scores[0, :2]
    for now in scores[1:]:
        before = torch.stack([best, _later(best, 1), _later(best, 2) + skip])  # (3, S)
        best, steps = before.max(0)
        came.append(steps)
        best = best + now
    at = len(row) - 1 if best[-1] >= best[-2] else len(row) - 2
    path = [at]
    for steps in reversed(came):
        at -= int(steps[at])
        path.append(at)
    places: dict[int, list[int]] = {}
    for position, at in enumerate(reversed(path)):
        places.setdefault(at, []).append(position)
    return [
        HeardToken(
            token=token, start=position_s * places[at][0], end=position_s * (places[at][-1] + 1),
            confidence=float(scores[places[at], at].exp().mean()),
        )
        for token, at in zip(ids, range(1, len(row), 2), strict=True)
    ]  # fmt: skip


def _later(values: Tensor, places: int) -> Tensor:
    return torch.cat([values.new_full((places,), _NEVER), values[:-places]])
