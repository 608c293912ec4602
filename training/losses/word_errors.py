"""Minimum word error rate: the word errors that are expected over a list of hypotheses, as a loss.

    log-probabilities (B, U, V + 1), hypotheses of each clip -> their sequence log-probabilities (B, N) by CTC
    these, and the errors (B, N) of each hypothesis -> expected errors (B,)

The probabilities are renormalised over the list, so that nothing outside of it is learnt from: the list must hold what
the model takes for likely, as a beam search finds it. An error at a keyword may weigh more.

Sources: Prabhavalkar et al., "Minimum Word Error Rate Training for Attention-Based Sequence-to-Sequence Models" (arXiv
1712.01818), section 3; weights of keywords: Seed-ASR (arXiv 2407.04675), section 3.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

IMPOSSIBLE = float("-inf")  # the log-probability of a place in a list without a hypothesis


def weighted_errors(hypothesis: Sequence[str], reference: Sequence[str], weights: Mapping[str, float]) -> float:
    """The least weight of insertions, deletions and substitutions that turn one sequence of words into the other.

    A deleted or inserted word weighs ``weights[word]``, one that is not among them 1; a substitution as much as the
    heavier of its two words: a keyword that was missed, and one that was not said.
    """
    inserted = np.array([weights.get(word, 1.0) for word in hypothesis])
    before = np.concatenate(([0.0], inserted.cumsum()))  # (H + 1,)
    row = before
    for word in reference:
        weight = weights.get(word, 1.0)
        wrong = np.array([other != word for other in hypothesis], dtype=np.float64)
        best = np.minimum(row[:-1] + wrong * np.maximum(inserted, weight), row[1:] + weight)
        # An insertion extends the cell to its left: the running minimum of (cell - insertions) does them all at once.
        joined = np.concatenate(([row[0] + weight], best)) - before
        row = np.minimum.accumulate(joined) + before
    return float(row[-1])


def sequence_log_probs(log_probs: Tensor, frames: Tensor, hypotheses: Sequence[Sequence[Sequence[int]]]) -> Tensor:
    """The log-probability of each hypothesis under CTC, (B, N), by the forward algorithm; IMPOSSIBLE where a clip has
    fewer than N.

    Args:
        log_probs: (B, U, V + 1), the blank last. frames: (B,) real ones.
        hypotheses: of each clip the labels of each hypothesis; they must fit into its frames.
    """
    clips, width, blank = len(hypotheses), max(map(len, hypotheses)), log_probs.shape[2] - 1
    # Only the labels of its own hypotheses matter to a clip. CTC over these alone, renormalised at each frame, and what
    # the renormalising took away.
    kinds = [sorted({label for one in each for label in one}) for each in hypotheses]
    most = max(map(len, kinds))
    chosen = torch.full((clips, most + 1), blank)  # of fewer labels: the blank again, which changes nothing
    index, lengths = list[int](), torch.zeros(clips, width, dtype=torch.long)
    for clip, (each, known) in enumerate(zip(hypotheses, kinds, strict=True)):
        chosen[clip, : len(known)] = torch.tensor(known, dtype=torch.long)
        places = {label: place for place, label in enumerate(known)}
        for at, one in enumerate(each):
            index += [places[label] for label in one]
            lengths[clip, at] = len(one)
    chosen = chosen.to(log_probs.device)
    few = log_probs.gather(2, chosen[:, None].expand(-1, log_probs.shape[1], -1))  # (B, U, K + 1)
    kept = few.logsumexp(-1)  # (B, U)
    real = torch.arange(kept.shape[1], device=kept.device) < frames.to(kept.device)[:, None]
    rows = (few - kept[..., None]).transpose(0, 1).repeat_interleave(width, 1)  # (U, B N, K + 1)
    labels = torch.tensor(index, dtype=torch.long, device=few.device)
    loss = F.ctc_loss(rows, labels, frames.cpu().repeat_interleave(width), lengths.flatten(), most, reduction="none")
    found = (kept * real).sum(1, keepdim=True) - loss.view(clips, width)
    there = torch.arange(width) < torch.tensor([len(each) for each in hypotheses])[:, None]
    return found.masked_fill(~there.to(found.device), IMPOSSIBLE)


def expected_errors(scores: Tensor, errors: Tensor) -> Tensor:
    """The expected errors (B,) above the list's mean, the probabilities renormalised over the list.

    The mean is a baseline: it changes the value, not the gradient. A list of one hypothesis teaches nothing.

    Args:
        scores: (B, N) log-probabilities, IMPOSSIBLE where there is no hypothesis. errors: (B, N).
    """
    there = scores > IMPOSSIBLE
    mean = (errors * there).sum(1, keepdim=True) / there.sum(1, keepdim=True)
    return (scores.softmax(1) * (errors - mean)).sum(1)
