"""Teach a CTC adaptor to make fewer word errors: those expected over the texts of its own beam. Learns the adaptor.

It goes on with a trained adaptor (``adaptor=RUN``). At each step a beam search finds the likeliest ``beam.width`` texts
of each clip as the adaptor hears it then; the loss is the word errors expected over these, and ``ctc_weight`` times
CTC's, which keeps what is not in the lists. With ``keywords=FILE`` (a word a line, perhaps with its weight behind a
colon) an error at one of them counts as ``keyword_weight`` errors.

Sources: Prabhavalkar et al. (arXiv 1712.01818), section 3; Seed-ASR (arXiv 2407.04675), section 3.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from ...checkpoints.files import expanded, read_text
from ...model.decoding.beam import BeamConfig
from ...model.decoding.ctc_beam import search
from ...model.decoding.labels import plain_words
from ...model.errors import DuologueError
from ..loop.task import Batch
from ..losses.word_errors import expected_errors, sequence_log_probs, weighted_errors
from ..presets import preset
from .ctc_adaptor import CTCAdaptorRecipe, CTCAdaptorTask


@dataclass(frozen=True, kw_only=True)
class MWERRecipe(CTCAdaptorRecipe):
    """Which hypotheses there are, and what an error weighs."""

    beam: BeamConfig = field(default_factory=lambda: BeamConfig(width=4))
    ctc_weight: float = 0.1  # of CTC's loss a token, beside the expected errors a word
    keywords: str | None = None  # a file: a word a line, or WORD:WEIGHT
    keyword_weight: float = 3.0  # of an error at one that has no weight of its own

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.beam.width < 2:
            raise DuologueError(f"beam.width is {self.beam.width}; expected errors need at least 2 hypotheses")

    def build(self) -> MWERTask:
        """The task of this recipe.

        Raises:
            DuologueError: there is no language model, or no adaptor to go on with.
        """
        if not any(entry.startswith("adaptor=") for entry in self.start):
            raise DuologueError("recipe mwer needs adaptor=FOLDER: what ctc_adaptor has trained, to go on with")
        self.check_source()
        return MWERTask(self)


def recipe(name: str = "mini") -> MWERRecipe:
    """The stage's recipe, by the name of a preset."""
    return MWERRecipe(stage="mwer", out="runs/mwer", **preset(name, "mwer"))


class MWERTask(CTCAdaptorTask):
    """The same clips, with the words of each."""

    def __init__(self, recipe: MWERRecipe) -> None:
        super().__init__(recipe)
        self.mwer = recipe
        self.weights = {} if recipe.keywords is None else read_weights(recipe.keywords, recipe.keyword_weight)

    def forward(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        logits, frames = self.logits(batch)
        ctc = self.ctc(logits, frames, batch["labels"], batch["label_lengths"])
        log_probs = logits.float().log_softmax(-1)  # (B, U, V + 1)
        texts = self.hypotheses(log_probs, frames)
        rows = batch["labels"].split(batch["label_lengths"].tolist())
        said = [self.labels.decode(row.tolist()).split() for row in rows]
        errors = torch.zeros(len(texts), max(map(len, texts)))
        for row, each, words in zip(errors, texts, said, strict=True):
            for at, labels in enumerate(each):
                row[at] = weighted_errors(self.labels.decode(labels).split(), words, self.weights)
        errors = errors.to(log_probs.device)
        count = max(1, sum(map(len, said)))
        loss = expected_errors(sequence_log_probs(log_probs, frames, texts), errors).sum() / count
        shown = {"ctc": ctc.detach(), "first": errors[:, 0].sum() / count, "expected": loss.detach()}
        return loss + self.mwer.ctc_weight * ctc, shown

    def hypotheses(self, log_probs: Tensor, frames: Tensor) -> list[list[tuple[int, ...]]]:
        """The likeliest texts of each clip, as labels, the best first: (B, U, V + 1), and (B,) real frames."""
        rows = log_probs.detach().cpu().numpy()
        return [
            [found.labels for found in search(row[:length], self.mwer.beam)]
            for row, length in zip(rows, frames.tolist(), strict=True)
        ]


def read_weights(path: str, usual: float) -> dict[str, float]:
    """The weight of each word of a file: a word a line, perhaps with its weight behind a colon; # begins a remark.

    Raises:
        DuologueError: the file cannot be read or has no words; a line is not one word; a weight is no number above 0.
    """
    found = dict[str, float]()
    for number, line in enumerate(read_text(expanded(Path(path))).splitlines(), 1):
        if not (text := line.partition("#")[0].strip()):
            continue
        word, colon, own = text.partition(":")
        try:
            weight = float(own) if colon else usual
        except ValueError:
            weight = 0.0
        if len(plain_words(word).split()) != 1 or not 0 < weight < float("inf"):
            raise DuologueError(f"{path}, line {number}: {text!r} must be one word, or WORD:WEIGHT, the weight above 0")
        found[plain_words(word)] = weight
    if not found:
        raise DuologueError(f"{path}: there are no words in it; write a word a line, or WORD:WEIGHT")
    return found
