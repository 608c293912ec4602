"""What every adaptor is: encoder frames (B, T, D) at 50 Hz in, embeddings (B, T // k, D_llm) out.

Groups of k neighbouring frames become one embedding each; a remainder of fewer than k is dropped. A kind says in
``forward`` how; the base streams it.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Protocol

import torch
from torch import Tensor

from ..streaming import State, Streaming


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
        """k, frames to one embedding."""


@dataclass
class AdaptorState(State):
    """The frames of a group that is not yet whole: (B, < k, D)."""

    pending: Tensor


class Adaptor(Streaming):
    """(B, T, D) -> (B, T // k, D_llm)."""

    time_in, time_out = 1, 1

    def __init__(self, config: AdaptorSizes) -> None:
        super().__init__()
        self.config = config
        self.rate = Fraction(1, config.stack)

    def groups(self, x: Tensor) -> Tensor:
        """(B, T, D) -> (B, T // k, k, D), the remainder dropped."""
        whole = x.shape[1] // self.config.stack
        return x[:, : whole * self.config.stack].unflatten(1, (whole, self.config.stack))

    def init_state(self, batch_size: int = 1) -> AdaptorState:
        return AdaptorState(pending=next(self.parameters()).new_zeros(batch_size, 0, self.config.in_dim))

    def step(self, x: Tensor, state: AdaptorState) -> Tensor:
        x = torch.cat([state.pending, x], dim=1)
        state.pending = x[:, x.shape[1] // self.config.stack * self.config.stack :]
        return self(x)

    def flush(self, state: AdaptorState) -> Tensor:
        return state.pending.new_zeros(state.pending.shape[0], 0, self.config.out_dim)
