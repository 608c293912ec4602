"""The duplex monitor: what the language model's state at a position of speech says about the speech so far.

(B, T, D) states in, (B, T, 3) logits out: to be answered now, nothing to answer, not finished. It reads what the model
computes anyway while it listens, so a conversation that is monitored costs no second model.

A second one, the word monitor, reads the one state behind the transcript, where the language model knows the words:
what sounds like a question in a noisy room seldom reads like one as well, and where one of the two errs the other
mostly does not. :func:`fuse` makes one opinion of both.

Sources: the three states are VITA's (arXiv 2408.05211), section 3.3, whose language model tells them as its first token
behind the speech, and Freeze-Omni's (arXiv 2411.00774), section 2.5, which predicts them with a head on the language
model's states while speech comes in.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import DuologueError


class TurnState(Enum):
    """What the monitor makes of the speech so far."""

    QUERY = "query"  # to be answered, now
    NOISE = "noise"  # nothing to answer: a cough, a television, someone else, "uh-huh"
    WAIT = "wait"  # not finished


TURN_STATES = tuple(TurnState)  # in the order of the logits
CERTAIN = (0.93, 0.55, 0.6)  # in the same order: from which probability on each counts, where nothing was measured
_TRUST = 0.98  # the surest that the word monitor is believed to be


@dataclass(frozen=True, kw_only=True)
class MonitorConfig:
    """Sizes of the monitor."""

    in_dim: int  # D, the language model's width
    hidden_dim: int = 128
    # Its tensors say from which probability on each turn state counts, as stage duplex has measured it.
    calibrated: bool = field(default=False, metadata={"newer": True})

    def __post_init__(self) -> None:
        if min(self.in_dim, self.hidden_dim) < 1:
            raise DuologueError(f"monitor widths are {self.in_dim} and {self.hidden_dim}; they must be at least 1")


class Monitor(nn.Module):
    """(B, T, D) -> (B, T, 3)."""

    certain: Tensor  # (3,) of a calibrated monitor: from which probability on each turn state counts

    def __init__(self, config: MonitorConfig) -> None:
        super().__init__()
        self.config = config
        if config.calibrated:
            self.register_buffer("certain", torch.tensor(CERTAIN))
        self.linear1 = nn.Linear(config.in_dim, config.hidden_dim)
        self.linear2 = nn.Linear(config.hidden_dim, len(TURN_STATES))

    def forward(self, x: Tensor) -> Tensor:
        return self.linear2(F.relu(self.linear1(x)))

    @property
    def thresholds(self) -> tuple[float, ...]:
        """From which probability on each turn state counts, in the order of TURN_STATES."""
        return tuple(self.certain.tolist()) if self.config.calibrated else CERTAIN


def fuse(heard: Tensor, read: Tensor | None) -> Tensor:
    """(3,) what both monitors think, as probabilities in the order of TURN_STATES.

    heard: (3,) the monitor's, at the last position of speech.
    read: (3,) the word monitor's; None: not read yet. It tells a turn from what needs no answer (the product of both
        opinions, as of experts who err apart: Hinton, Neural Computation 14, 2002), not whether a turn is over.
    """
    if read is None:
        return heard
    noise = read[TURN_STATES.index(TurnState.NOISE)].clamp(1 - _TRUST, _TRUST)
    weights = torch.stack([noise if turn_state is TurnState.NOISE else 1 - noise for turn_state in TURN_STATES])
    both = heard * weights
    return both / both.sum()
