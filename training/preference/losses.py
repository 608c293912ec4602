"""Losses that tell a better answer from a worse one to the same question.

    log-probabilities (P, 2) of P pairs, the better answer first, and a frozen reference's -> losses (P,)

:func:`dpo_loss` wants the better answer to gain more on the reference than the worse one. :func:`margin_loss` and
:func:`unlikelihood` need no reference: they push a bad answer down beside cross-entropy on a good one.

Sources: Rafailov et al., "Direct Preference Optimization" (arXiv 2305.18290), equation 7; label smoothing: Mitchell, "A
note on DPO with noisy preferences" (2023); log-probabilities a token: Lambert et al., "Tülu 3" (arXiv 2411.15124),
section 5.1; a margin: Zhao et al., "SLiC-HF" (arXiv 2305.10425), equation 1; unlikelihood: Welleck et al. (arXiv
1908.04319), section 5.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def dpo_loss(log_probs: Tensor, reference: Tensor, beta: float, label_smoothing: float = 0.0) -> Tensor:
    """The negative log-likelihood of the preferences, (P, 2) and (P, 2) -> (P,), nats.

    beta: how much a preference counts beside staying near the reference: the smaller, the farther the model may go.
    label_smoothing: the fraction of pairs that are taken to be labelled the wrong way round.
    """
    rewards = log_probs - reference
    logits = beta * (rewards[:, 0] - rewards[:, 1])
    return -(1 - label_smoothing) * F.logsigmoid(logits) - label_smoothing * F.logsigmoid(-logits)


def margin_loss(log_probs: Tensor, margin: float) -> Tensor:
    """How much of ``margin`` nats the better answer lacks before the worse one, (P, 2) -> (P,)."""
    return F.relu(margin - log_probs[:, 0] + log_probs[:, 1])


def unlikelihood(log_probs: Tensor) -> Tensor:
    """What each token (N,) of bad answers costs by its log-probability: -log(1 - p), (N,) nats.

    The slope is bounded: where p is nearly 1, 1 - p counts as 1e-4 at least.
    """
    return -torch.log(-torch.expm1(log_probs.clamp(max=-1e-4)))
