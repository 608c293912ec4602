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
from ...model.audio_encoder.encoder import Encoder, layer_outputs
from ...model.audio_encoder.mel import LogMel
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


def listener(loss: str, encoder: str, sample_rate: int) -> tuple[LogMel, Encoder]:
    """A frozen encoder, by the setting ``LOSS.encoder``, that hears speech of a sample rate.

    Raises:
        DuologueError: no encoder there, or one of another sample rate.
    """
    mel, heard_by = load_encoder(encoder)
    if mel.config.sample_rate != sample_rate:
        raise DuologueError(
            f"{loss}.encoder {encoder} hears {mel.config.sample_rate} Hz; what is made has {sample_rate} Hz"
        )
    return mel.requires_grad_(False), heard_by.requires_grad_(False)


class PerceptualLoss(nn.Module):
    """See the module's docstring. Nothing in it learns.

    Raises:
        DuologueError: no encoder there, one of another sample rate, or one with fewer blocks.
    """

    def __init__(self, config: PerceptualConfig, sample_rate: int) -> None:
        super().__init__()
        self.config = config
        self.mel, self.encoder = listener("perceptual", config.encoder, sample_rate)
        if config.blocks > len(self.encoder.blocks):
            raise DuologueError(
                f"perceptual.blocks is {config.blocks}; the encoder {config.encoder} has {len(self.encoder.blocks)}"
            )
        self.encoder.blocks = self.encoder.blocks[: config.blocks]

    def forward(self, made: Tensor, recorded: Tensor) -> Tensor:
        crops = self.config.crops or len(made)
        with torch.no_grad():
            wanted = layer_outputs(self.encoder, self.mel(recorded[:crops]))
        loss = made.new_zeros((), dtype=torch.float32)
        for a, b in zip(layer_outputs(self.encoder, self.mel(made[:crops])), wanted, strict=True):
            loss = loss + (a.float() - b.float()).abs().mean() / b.float().abs().mean() / len(wanted)
        return loss
