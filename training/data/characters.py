"""Text as characters for CTC: what an encoder is trained and probed on before there are any words."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ...data_prep.text.plain_text import spoken_words
from ...data_prep.text.spoken import is_letter
from ...model.errors import DuologueError
from ..augment.augment import AugmentConfig, augment
from ..loop.task import Batch
from .corpus import Corpus, Plan, pad, to_float

CHARACTERS = " abcdefghijklmnopqrstuvwxyz'"  # CTC label i + 1; 0 is the blank
LABELS = len(CHARACTERS) + 1


def labels_of(texts: list[str]) -> tuple[Tensor, Tensor]:
    """The labels of all texts one behind another, and (B,) how many of them each has.

    Raises:
        DuologueError: a text has a letter or number that is no label; only punctuation is left out.
    """
    for text in texts:
        if strange := next((c for c in text if c not in CHARACTERS and is_letter(c)), None):
            raise DuologueError(f"the text {text[:60]!r} has {strange!r}; labels are a to z, ' and spaces")
    rows = [torch.tensor([CHARACTERS.index(c) + 1 for c in text if c in CHARACTERS]).long() for text in texts]
    return torch.cat(rows), torch.tensor([len(row) for row in rows])


def ctc_batch(
    corpus: Corpus,
    plan: Plan,
    number: int,
    seed: int,
    augmentation: AugmentConfig | None,
    noises: Sequence[np.ndarray] | None = None,
) -> tuple[Batch, list[str]]:
    """The plan's batch ``number``: "samples" (B, n), "lengths" (B,), "labels", "label_lengths"; and what is said in it.

    Each clip is augmented by a random generator of its own, another one in each epoch.
    """
    epoch, items = plan(number)
    waves, texts = [], []
    for item in items:
        clip = corpus[int(item)]
        wave = to_float(clip.pcm)
        if augmentation is not None:
            wave = augment(wave, np.random.default_rng((seed, epoch, int(item))), augmentation, noises)
        waves.append(wave)
        texts.append(spoken_words(clip.meta))
    samples, lengths = pad(waves)
    labels, label_lengths = labels_of(texts)
    return {"samples": samples, "lengths": lengths, "labels": labels, "label_lengths": label_lengths}, texts


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
