"""How long each unit lasts: units with repeats merged carry no timing, so the vocoder predicts it.

Sits between unit embeddings and the waveform generator. (B, C, U) in, log-durations (B, 1, U) out, one for each unit.
After fairseq's VariancePredictor as used by its CodeGenerator (Lee et al. 2022, "Direct speech-to-speech translation
with discrete units", section 3.3): two convolutions over neighbouring units, each with ReLU and layer norm.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..layers.conv import ConvState, StreamingConv1d, feed
from ..streaming import Composite, State

LONGEST = 500  # frames (10 s at 20 ms); only a broken predictor says more, and it must not exhaust the memory


def durations_from_log(log_durations: Tensor) -> Tensor:
    """Whole frames, at least one, from log(duration + 1)."""
    return torch.round(torch.exp(log_durations) - 1).nan_to_num(nan=1, posinf=LONGEST).clamp(1, LONGEST).long()


@dataclass
class DurationState(State):
    """What the two convolutions hold."""

    conv1: ConvState
    conv2: ConvState


class DurationPredictor(Composite):
    """(B, C, U) unit embeddings -> (B, 1, U) log(duration + 1), durations in frames. Sees kernel - 1 units ahead."""

    def __init__(self, in_dim: int, hidden: int, kernel: int, dropout: float = 0.5) -> None:
        super().__init__()
        self.in_channels = in_dim
        self.conv1 = StreamingConv1d(in_dim, hidden, kernel)
        self.norm1 = nn.LayerNorm(hidden)
        self.conv2 = StreamingConv1d(hidden, hidden, kernel)
        self.norm2 = nn.LayerNorm(hidden)
        self.proj = nn.Linear(hidden, 1)
        self.dropout = nn.Dropout(dropout)
        self.latency = self.conv1.latency + self.conv2.latency

    def _normalise(self, norm: nn.LayerNorm, x: Tensor) -> Tensor:
        return self.dropout(norm(torch.relu(x).transpose(1, 2))).transpose(1, 2)  # (B, hidden, U)

    def _project(self, x: Tensor) -> Tensor:
        return self.proj(x.transpose(1, 2)).transpose(1, 2)  # (B, 1, U)

    def forward(self, x: Tensor) -> Tensor:
        x = self._normalise(self.norm1, self.conv1(x))
        return self._project(self._normalise(self.norm2, self.conv2(x)))

    def init_state(self, batch_size: int = 1) -> DurationState:
        return DurationState.of(self, batch_size)

    def run(self, x: Tensor, state: DurationState, last: bool) -> Tensor:
        x = self._normalise(self.norm1, feed(self.conv1, x, state.conv1, last))
        return self._project(self._normalise(self.norm2, feed(self.conv2, x, state.conv2, last)))
