"""MiLe loss: cross-entropy in which a token counts the more, the less certain the model is of what comes there.

Most tokens of a text follow from those before, and a mean is of these; what is hard to learn is rare in it.

Source: Su et al., "MiLe Loss: a New Loss for Mitigating the Bias of Learning Difficulties in Generative Language
Models" (arXiv 2310.19531), section 3.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def entropy_weights(logits: Tensor, gamma: float) -> Tensor:
    """(1 + H)^gamma of each distribution (N, V) -> (N,), where H is its entropy in nats; nothing learns from it."""
    log_probs = logits.detach().log_softmax(-1)
    return (1 - (log_probs.exp() * log_probs).sum(-1)) ** gamma


def cross_entropy(
    logits: Tensor, wanted: Tensor, weights: Tensor, gamma: float = 0.0, label_smoothing: float = 0.0
) -> Tensor:
    """The mean cross-entropy of tokens (N,) by their weights (N,), logits (N, V) -> (); 0 where none counts.

    gamma: 0: plain; otherwise the weights are multiplied by :func:`entropy_weights` and their sum stays, so that a
    learning rate keeps its meaning.
    """
    losses = F.cross_entropy(logits, wanted, reduction="none", label_smoothing=label_smoothing)
    if gamma:
        weights = weights * entropy_weights(logits, gamma)
    return (losses * weights).sum() / weights.sum().clamp(min=1e-6)
