"""What a language model makes of pairs of answers: how likely each is, token by token and in all."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from ...model.language_model.causal_lm import LLM
from ..losses.mile import entropy_weights
from .pairs import OWN

TIE = 1e-4  # nats: what a sum differs by in another batch


class Compared(NamedTuple):
    """What the model makes of a batch of P pairs. N: the tokens that count for anything.

    sums, lengths: (P, 2) log-probability and tokens of the better and the worse answer.
    log_probs, weights: (N,) of each token, and how much it counts in the cross-entropy.
    bad: (N,) whether only a worse answer has it.
    """

    sums: Tensor
    lengths: Tensor
    log_probs: Tensor
    weights: Tensor
    bad: Tensor


def compare(llm: LLM, hidden: Tensor, batch: dict[str, Any], mile: float = 0.0) -> Compared:
    """Of a batch of packed pairs (see :func:`.pairs.pack_pairs`), from its states (B, L, D); ``mile``: see
    :func:`entropy_weights`."""
    answers, weights = batch["answers"][:, 1:], batch["weights"][:, 1:]
    wanted = (answers > 0) | (weights > 0)  # only positions that count: the rest need no logits
    logits = llm.head(hidden[:, :-1][wanted]).float()  # (N, V)
    log_probs = logits.log_softmax(-1).gather(1, batch["ids"][:, 1:][wanted][:, None])[:, 0]
    counted, segments = (answers[wanted] > 0).to(log_probs), batch["segments"][:, 1:][wanted]
    sums, lengths = log_probs.new_zeros(2, 2 * len(batch["pairs"]))
    sums = sums.index_add(0, segments, log_probs * counted)[batch["pairs"]]
    lengths = lengths.index_add(0, segments, counted)[batch["pairs"]]
    weights = weights[wanted]
    if mile:
        weights = weights * entropy_weights(logits, mile)
    bad = torch.isin(segments, batch["pairs"][:, 1]) & (answers[wanted] == OWN)
    return Compared(sums, lengths.clamp(min=1), log_probs, weights, bad)


def wins(scores: Tensor) -> Tensor:
    """Whether the first of two scores (P, 2) is the higher: 1, 0, or 0.5 where they tie."""
    ahead = scores[:, 0] - scores[:, 1]
    return torch.where(ahead.abs() <= TIE, 0.5, (ahead > 0).float())
