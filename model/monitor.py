"""The duplex monitor: what the language model's state at a place of speech says about the speech so far.

(B, T, D) states in, (B, T, 3) logits out: to be answered now, nothing to answer, not finished. It reads what the model
computes anyway while it listens, so a conversation that is monitored costs no second model.

Sources: the three states are VITA's (arXiv 2408.05211), section 3.3, and Freeze-Omni's (arXiv 2411.00774), section 2.5,
which predicts them with a head on the language model's states while speech comes in.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

import torch.nn.functional as F
from torch import Tensor, nn

from .errors import DuologueError


class Verdict(Enum):
    """What the monitor makes of the speech so far."""

    QUERY = "query"  # to be answered, now
    NOISE = "noise"  # nothing to answer: a cough, a television, someone else, "uh-huh"
    WAIT = "wait"  # not finished


VERDICTS = tuple(Verdict)  # in the order of the logits


@dataclass(frozen=True, kw_only=True)
class MonitorConfig:
    """Sizes of the monitor."""

    in_dim: int  # D, the language model's width
    hidden_dim: int = 128

    def __post_init__(self) -> None:
        if min(self.in_dim, self.hidden_dim) < 1:
            raise DuologueError(f"monitor widths are {self.in_dim} and {self.hidden_dim}; they must be at least 1")


class Monitor(nn.Module):
    """(B, T, D) -> (B, T, 3)."""

    def __init__(self, config: MonitorConfig) -> None:
        super().__init__()
        self.config = config
        self.linear1 = nn.Linear(config.in_dim, config.hidden_dim)
        self.linear2 = nn.Linear(config.hidden_dim, len(VERDICTS))

    def forward(self, x: Tensor) -> Tensor:
        return self.linear2(F.relu(self.linear1(x)))
