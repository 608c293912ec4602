"""Text as characters for CTC: what an ear is trained and probed on before there are any words."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

CHARACTERS = " abcdefghijklmnopqrstuvwxyz'"  # CTC label i + 1; 0 is the blank
LABELS = len(CHARACTERS) + 1


def labels_of(texts: list[str]) -> tuple[Tensor, Tensor]:
    """The labels of all texts one behind another, and (B,) how many of them each has."""
    rows = [
        torch.tensor([CHARACTERS.index(c) + 1 for c in text if c in CHARACTERS], dtype=torch.long) for text in texts
    ]
    return torch.cat(rows), torch.tensor([len(row) for row in rows])


def ctc_loss(logits: Tensor, frames: Tensor, labels: Tensor, label_lengths: Tensor) -> Tensor:
    """CTC loss a character, from (B, T, LABELS) and (B,) real frames. A clip too short for its text contributes 0."""
    log_probs = logits.float().log_softmax(-1).transpose(0, 1)  # (T, B, LABELS)
    loss = F.ctc_loss(log_probs, labels, frames, label_lengths, reduction="sum", zero_infinity=True)
    return loss / label_lengths.sum()


def greedy(logits: Tensor, frames: Tensor) -> list[str]:
    """The best label a frame, repeats merged, blanks dropped: (B, T, LABELS) -> texts."""
    best = logits.argmax(-1).cpu()  # (B, T)
    texts = []
    for row, length in zip(best, frames.tolist(), strict=True):
        merged = torch.unique_consecutive(row[:length])
        texts.append("".join(CHARACTERS[int(i) - 1] for i in merged if i > 0).strip())
    return texts
