"""Voice activity: samples (B, n) at 16 kHz in, the probability of speech (B, n // 512) out, one every 32 ms.

Silero's network, with what it remembers outside of it. A window of 512 samples, the 64 before it and 64 mirrored
behind it become four spectra, which four convolutions make one vector of; an LSTM carries it on. So windows are
independent but for the LSTM, and a whole clip is one batch of windows. A remainder below 512 samples is dropped.

Source: Silero Team, "Silero VAD" (github.com/snakers4/silero-vad, MIT), version 6; the weights come with its package.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..streaming import State, Streaming

SAMPLE_RATE = 16_000  # Hz
WINDOW = 512  # samples
_CONTEXT = 64  # samples before a window, and mirrored behind it
_BINS = 129
_HOP, _FFT = 128, 256  # samples
_WIDTH = 128


@dataclass
class VADState(State):
    """What the LSTM carries, (B, 128) each, and the samples (B, 64 to 575) that the next window begins with."""

    hidden: Tensor
    cell: Tensor
    held: Tensor


class VAD(Streaming):
    """(B, n) -> (B, n // 512), probabilities."""

    rate = Fraction(1, WINDOW)
    time_in = time_out = 1

    def __init__(self) -> None:
        super().__init__()
        self.stft_conv = nn.Conv1d(1, 2 * _BINS, _FFT, stride=_HOP, bias=False)  # windowed cosines, then sines
        self.conv1 = nn.Conv1d(_BINS, _WIDTH, 3, padding=1)
        self.conv2 = nn.Conv1d(_WIDTH, _WIDTH // 2, 3, stride=2, padding=1)
        self.conv3 = nn.Conv1d(_WIDTH // 2, _WIDTH // 2, 3, stride=2, padding=1)
        self.conv4 = nn.Conv1d(_WIDTH // 2, _WIDTH, 3, padding=1)
        self.lstm = nn.LSTM(_WIDTH, _WIDTH, batch_first=True)
        self.final_conv = nn.Conv1d(_WIDTH, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.step(x, self.init_state(x.shape[0]))

    def init_state(self, batch_size: int = 1) -> VADState:
        weight = self.conv1.weight
        hidden, cell = weight.new_zeros(2, batch_size, _WIDTH)
        return VADState(hidden=hidden, cell=cell, held=weight.new_zeros(batch_size, _CONTEXT))

    def step(self, x: Tensor, state: VADState) -> Tensor:
        held = torch.cat([state.held, x], dim=1)  # (B, 64 + …)
        batch, count = held.shape[0], (held.shape[1] - _CONTEXT) // WINDOW
        state.held = held[:, count * WINDOW :].clone()
        if count == 0:
            return x.new_zeros(batch, 0)
        windows = held.unfold(1, _CONTEXT + WINDOW, WINDOW).reshape(batch * count, 1, -1)  # (B N, 1, 576)
        spectra = self.stft_conv(F.pad(windows, (0, _CONTEXT), "reflect"))  # (B N, 258, 4)
        y = (spectra[:, :_BINS].square() + spectra[:, _BINS:].square()).sqrt()  # (B N, 129, 4)
        y = self.conv2(self.conv1(y).relu()).relu()  # (B N, 64, 2)
        y = self.conv4(self.conv3(y).relu()).relu()  # (B N, 128, 1)
        y, carried = self.lstm(y.view(batch, count, _WIDTH), (state.hidden[None], state.cell[None]))
        state.hidden, state.cell = (each[0] for each in carried)
        return self.final_conv(y.relu().transpose(1, 2)).sigmoid()[:, 0]  # (B, N)

    def flush(self, state: VADState) -> Tensor:
        return state.held.new_zeros(state.held.shape[0], 0)
