"""Speech adaptor: k neighbouring frames are concatenated and passed through two linear layers.

Source: LLaMA-Omni (arXiv 2409.06666), section 2.3.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import DuologueError
from .adaptor import GroupAdaptor


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


class StackAdaptor(GroupAdaptor):
    """(B, T, D) -> (B, T // k, D_llm)."""

    def __init__(self, config: StackConfig) -> None:
        super().__init__(config)
        self.linear1 = nn.Linear(config.in_dim * config.stack, config.hidden_dim)
        self.linear2 = nn.Linear(config.hidden_dim, config.out_dim)

    def forward(self, x: Tensor) -> Tensor:
        x = self.groups(x).flatten(2)  # (B, T // k, k D)
        return self.linear2(F.relu(self.linear1(x)))  # (B, T // k, D_llm)
