"""What a frozen speech encoder hears of made speech, against what it hears of the recording.

Samples (B, n) at the encoder's rate in, a scalar out: over the encoder's convolutions and its first blocks, the mean
distance of the two outputs in relation to the size of the recording's. What tells one word from another weighs more
there than in spectra, where a vowel's first harmonics outweigh every consonant.

Source: the deep feature losses of Germain et al. 2019, "Speech Denoising with Deep Feature Losses" (Interspeech 2019),
section 2.2.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ...checkpoints.parts import load_encoder
from ...model.audio_encoder.encoder import layer_outputs
from ...model.errors import DuologueError


@dataclass(frozen=True, kw_only=True)
class PerceptualConfig:
    encoder: str = ""  # an imported Whisper, a run or a model whose encoder listens; empty: nobody does
    blocks: int = 1  # of it that are used
    crops: int = 0  # of a batch that it hears, the first ones; 0: all
    weight: float = 2.0

    def __post_init__(self) -> None:
        for name, least in (("blocks", 1), ("crops", 0)):
            if getattr(self, name) < least:
                raise DuologueError(f"perceptual.{name} is {getattr(self, name)}; it must be at least {least}")


class PerceptualLoss(nn.Module):
    """See the module's docstring. Nothing in it learns.

    Raises:
        DuologueError: no encoder there, one of another sample rate, or one with fewer blocks.
    """

    def __init__(self, config: PerceptualConfig, sample_rate: int) -> None:
        super().__init__()
        self.config = config
        self.mel, self.encoder = load_encoder(config.encoder)
        if self.mel.config.sample_rate != sample_rate:
            raise DuologueError(
                f"perceptual.encoder {config.encoder} hears {self.mel.config.sample_rate} Hz; what is made has "
                f"{sample_rate} Hz"
            )
        if config.blocks > len(self.encoder.blocks):
            raise DuologueError(
                f"perceptual.blocks is {config.blocks}; the encoder {config.encoder} has {len(self.encoder.blocks)}"
            )
        self.encoder.blocks = self.encoder.blocks[: config.blocks]
        self.requires_grad_(False)

    def forward(self, made: Tensor, recorded: Tensor) -> Tensor:
        crops = self.config.crops or len(made)
        with torch.no_grad():
            wanted = layer_outputs(self.encoder, self.mel(recorded[:crops]))
        loss = made.new_zeros((), dtype=torch.float32)
        for a, b in zip(layer_outputs(self.encoder, self.mel(made[:crops])), wanted, strict=True):
            loss = loss + (a.float() - b.float()).abs().mean() / b.float().abs().mean() / len(wanted)
        return loss
