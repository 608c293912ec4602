"""Speech adaptor: encoder frames to LLM embeddings. (B, T, D) at 50 Hz in, (B, T // k, D_llm) at 50 / k Hz out.

k neighbouring frames are concatenated and passed through two linear layers; a remainder of fewer than k is dropped.

Source: LLaMA-Omni (arXiv 2409.06666), section 2.3.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import DuologueError
from ..streaming import State
from .adaptor import Adaptor


@dataclass(frozen=True, kw_only=True)
class StackConfig:
    """Sizes of the adaptor."""

    in_dim: int  # D, the encoder's width
    hidden_dim: int = 2048
    out_dim: int = 4096  # D_llm
    stack: int = 5  # k: frames to one embedding

    def build(self) -> StackAdaptor:
        """The adaptor of these sizes, untrained."""
        return StackAdaptor(self)

    def __post_init__(self) -> None:
        if self.stack < 1:
            raise DuologueError(f"adaptor stack is {self.stack}; it must be at least 1")


@dataclass
class AdaptorState(State):
    """The frames of a group that is not yet whole: (B, < k, D)."""

    pending: Tensor


class StackAdaptor(Adaptor):
    """(B, T, D) -> (B, T // k, D_llm)."""

    config: StackConfig

    def __init__(self, config: StackConfig) -> None:
        super().__init__()
        self.config = config
        self.rate = Fraction(1, config.stack)
        self.linear1 = nn.Linear(config.in_dim * config.stack, config.hidden_dim)
        self.linear2 = nn.Linear(config.hidden_dim, config.out_dim)

    def forward(self, x: Tensor) -> Tensor:
        batch, frames, dim = x.shape
        groups = frames // self.config.stack
        x = x[:, : groups * self.config.stack].reshape(batch, groups, dim * self.config.stack)  # (B, T // k, k D)
        return self.linear2(F.relu(self.linear1(x)))  # (B, T // k, D_llm)

    def init_state(self, batch_size: int = 1) -> AdaptorState:
        return AdaptorState(pending=self.linear1.weight.new_zeros(batch_size, 0, self.config.in_dim))

    def step(self, x: Tensor, state: AdaptorState) -> Tensor:
        x = torch.cat([state.pending, x], dim=1)
        state.pending = x[:, x.shape[1] // self.config.stack * self.config.stack :]
        return self(x)

    def flush(self, state: AdaptorState) -> Tensor:
        return state.pending.new_zeros(state.pending.shape[0], 0, self.config.out_dim)
