"""The unit decoder's loss."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

IGNORE = -100  # fills up target units on the right


def ctc_unit_frames(lengths: Tensor, units: Tensor, upsample: int) -> Tensor:
    """Frames (B,) of each reply for the CTC loss: λ a token, or as many as it has units if these are more.

    Args:
        lengths: (B,) tokens of each reply.
        units: (B, U) target units, padded with IGNORE.
    """
    return torch.maximum(lengths * upsample, (units != IGNORE).sum(dim=1))


def ctc_unit_loss(logits: Tensor, frames: Tensor, units: Tensor) -> Tensor:
    """CTC loss of the unit decoder, summed over the units of the batch and divided by their number.

    Padding is excluded by both lengths: counted in, it teaches the decoder to say nothing at all. A reply whose units
    and repeats do not fit into its frames contributes 0.

    Source: LLaMA-Omni (arXiv 2409.06666), section 2.4; CTC: Graves et al. (ICML 2006).

    Args:
        logits: (B, F, units + 1), the blank last.
        frames: (B,) real frames of each reply.
        units: (B, U) target units, padded with IGNORE.
    """
    counts = (units != IGNORE).sum(dim=1)  # (B,)
    log_probs = logits.float().log_softmax(dim=-1).transpose(0, 1)  # (F, B, units + 1)
    blank = logits.shape[-1] - 1
    loss = F.ctc_loss(
        log_probs, units[units != IGNORE], frames, counts, blank=blank, reduction="sum", zero_infinity=True
    )
    return loss / counts.sum().clamp(min=1)
