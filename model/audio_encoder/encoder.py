"""What every audio encoder is: log-mel (B, M, T) at 100 Hz in, frames (B, T', D) at 50 Hz out."""

from __future__ import annotations

from fractions import Fraction
from typing import Protocol

from torch import Tensor, nn

from ..streaming import Streaming


class EncoderSizes(Protocol):
    """What an encoder's config says, whatever else it holds."""

    @property
    def n_mels(self) -> int:
        """M, bands of the log-mel."""

    @property
    def width(self) -> int:
        """D."""

    @property
    def heads(self) -> int:
        """Of attention; a training-only decoder has as many."""

    @property
    def positions(self) -> int:
        """Frames that training covers."""

    @property
    def chunk(self) -> int | None:
        """Frames that it encodes together as speech comes in. None: it needs the whole clip."""

    def build(self) -> Encoder:
        """The encoder of these sizes, untrained."""


class Encoder(Streaming):
    """(B, M, T) -> (B, ceil(T / 2), D)."""

    time_out = 1
    rate = Fraction(1, 2)
    config: EncoderSizes
    blocks: nn.ModuleList  # each gives frames (B, T', D)

    def forward(
        self, mel: Tensor, lengths: Tensor | None = None, offsets: Tensor | None = None, layer: int | None = None
    ) -> Tensor:
        """Encode whole clips.

        Args:
            mel: (B, M, T) at 100 Hz.
            lengths: (B,) mel frames of each clip; later frames are padding. ``None``: all are real.
            offsets: (B,) first position of each clip, in 50 Hz frames. ``None``: 0.
            layer: return the output of this many blocks. ``None``: all of it.
        """
        raise NotImplementedError


def layer_outputs(encoder: Encoder, mel: Tensor) -> list[Tensor]:
    """Log-mel (B, M, T) -> frames (B, T / 2, D) of no block, of one, of two, …, of all."""
    kept: list[Tensor] = []
    first = encoder.blocks[0].register_forward_pre_hook(lambda _, args: kept.append(args[0]))
    hooks = [block.register_forward_hook(lambda _, __, output: kept.append(output)) for block in encoder.blocks]
    encoder(mel)
    for hook in (first, *hooks):
        hook.remove()
    return kept
