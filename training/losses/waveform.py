"""What stages that learn to make a waveform have in common: spectral losses, pitch, and discriminators later on.

``adversary=true`` brings discriminators in after ``discriminator_after`` steps. Spectral losses alone make speech
intelligible; discriminators make it sound recorded. A source-filter generator also learns the pitch of the recordings,
and is given it while it learns the rest.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from ...model.errors import DuologueError
from ...model.speech_decoder.source_filter import Controls
from ..loop.task import Batch, Discriminator, Task
from ..recipe import Recipe
from .discriminators import DiscriminatorConfig, Discriminators
from .perceptual import PerceptualConfig, PerceptualLoss
from .spectral import SpectralLoss, SpectralLossConfig, periodicity_loss, pitch_losses


@dataclass(frozen=True, kw_only=True)
class WaveformRecipe(Recipe):
    """Data and loss weights."""

    data: tuple[str, ...]
    dev_data: tuple[str, ...] = ()
    crop_ms: int
    spectral: SpectralLossConfig
    pitch_weight: float = 5.0  # of a source-filter generator: mean distance of log pitches where there is a voice
    voicing_weight: float = 0.5  # of the same: cross-entropy of whether there is one
    periodicity_weight: float = 1.0  # of one with bands: cross-entropy of how much of each repeats
    perceptual: PerceptualConfig = field(default_factory=PerceptualConfig)  # by what a frozen speech encoder hears
    adversary: bool = False
    discriminator_after: int = 0  # steps with spectral losses alone
    discriminator: DiscriminatorConfig

    def check_rate(self, sample_rate: int, whose: str) -> None:
        """Raises DuologueError unless the spectral losses are of this rate."""
        if self.spectral.sample_rate != sample_rate:
            raise DuologueError(
                f"spectral.sample_rate is {self.spectral.sample_rate}; it must be the {whose}'s, {sample_rate}"
            )


class WaveformTask(Task):
    """Its losses. A stage adds the modules, the batches (with "samples" (B, n)), and :meth:`make`."""

    def __init__(self, recipe: WaveformRecipe) -> None:
        super().__init__()
        torch.manual_seed(recipe.seed)
        self.weights = recipe
        self.adversarial, self.discriminator_after = recipe.adversary, recipe.discriminator_after
        self.spectral = SpectralLoss(recipe.spectral)
        self.perceptual: PerceptualLoss | None = None
        if recipe.perceptual.encoder:
            self.perceptual = PerceptualLoss(recipe.perceptual, recipe.spectral.sample_rate)

    def make(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor], Tensor]:
        """The loss without discriminators, its metrics, and what was made: samples (B, n)."""
        raise NotImplementedError

    def compare(self, made: Tensor, recorded: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Samples (B, n) each -> the spectral and perceptual losses together, and the metrics of both."""
        loss, metrics = self.spectral(made, recorded)
        if self.perceptual is not None:
            heard = self.perceptual(made, recorded)
            loss, metrics = loss + self.weights.perceptual.weight * heard, {**metrics, "perceptual": heard.detach()}
        return loss, metrics

    def pitch_loss(
        self, loss: Tensor, controls: Controls, hertz: Tensor, fractions: Tensor | None = None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss with that of a source-filter generator's pitch and periodic fractions, and the metrics of those."""
        pitch, voicing = pitch_losses(controls, hertz)
        loss = loss + self.weights.pitch_weight * pitch + self.weights.voicing_weight * voicing
        metrics = {"pitch": pitch.detach(), "voicing": voicing.detach()}
        if fractions is not None:
            metrics["periodicity"] = periodicity_loss(controls, fractions)
            loss = loss + self.weights.periodicity_weight * metrics["periodicity"]
        return loss, {name: value.detach() for name, value in metrics.items()}

    def make_discriminator(self) -> Discriminator:
        torch.manual_seed(self.weights.seed + 1)
        return Discriminators(self.weights.discriminator)

    def forward(self, batch: Batch) -> Any:
        loss, metrics, made = self.make(batch)
        return (loss, metrics, made, batch["samples"]) if self.adversarial else (loss, metrics)
