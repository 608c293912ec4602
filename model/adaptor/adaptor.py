"""What every adaptor is: encoder frames (B, T, D) at 50 Hz in, embeddings (B, T // stack, D_llm) out."""

from __future__ import annotations

from typing import Protocol

from ..streaming import Streaming


class AdaptorSizes(Protocol):
    """What an adaptor's config says, whatever else it holds."""

    @property
    def in_dim(self) -> int:
        """D, the encoder's width."""

    @property
    def out_dim(self) -> int:
        """D_llm."""

    @property
    def stack(self) -> int:
        """Frames to one embedding."""


class Adaptor(Streaming):
    """(B, T, D) -> (B, T // stack, D_llm)."""

    time_in, time_out = 1, 1
    config: AdaptorSizes
