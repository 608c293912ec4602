"""The inverse short-time Fourier transform as a decoder's last step: frames of spectrum -> samples, whole or streamed.

Spectra (B, n_fft / 2 + 1, T) in, samples (B, T * hop) out: windowed frames are added where they overlap, divided by the
windows' summed squares, and (n_fft - hop) / 2 samples are cut off at either end, so that frame t stands for the
samples t * hop to (t + 1) * hop. The look-ahead is what is cut off.

Source: Siuzdak 2023, "Vocos" (arXiv 2306.00814), section 3; "same" padding.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import DuologueError
from ..streaming import State, Streaming


@dataclass
class ISTFTState(State):
    """Sums that frames to come still add to."""

    overlap: Tensor  # (B, n_fft - hop)
    envelope: Tensor  # (1, n_fft - hop)
    skip: int  # samples still to be cut off at the beginning


class ISTFT(Streaming):
    """(B, n_fft / 2 + 1, T) complex -> (B, T * hop)."""

    def __init__(self, n_fft: int, hop: int) -> None:
        super().__init__()
        if hop < 1 or n_fft < 2 * hop or n_fft % 2 or (n_fft - hop) % 2:
            raise DuologueError(f"n_fft must be even, at least twice the hop, and as odd or even as it: {n_fft}, {hop}")
        self.n_fft, self.hop = n_fft, hop
        self.pad = (n_fft - hop) // 2
        self.window: Tensor
        self.register_buffer("window", torch.hann_window(n_fft), persistent=False)
        self.rate = Fraction(hop)
        self.latency = -(-self.pad // hop)

    def _add(self, frames: Tensor) -> Tensor:
        """(B, n_fft, T) -> (B, (T - 1) * hop + n_fft): each frame added where it belongs."""
        length = (frames.shape[-1] - 1) * self.hop + self.n_fft
        return F.fold(frames, (1, length), (1, self.n_fft), stride=(1, self.hop))[:, 0, 0]

    def _sums(self, spectrum: Tensor) -> tuple[Tensor, Tensor]:
        """Overlapping frames and overlapping squared windows, (B, n) and (1, n), T at least 1."""
        frames = torch.fft.irfft(spectrum, self.n_fft, dim=1) * self.window[:, None]  # (B, n_fft, T)
        squares = self.window.square()[None, :, None].expand(1, -1, spectrum.shape[-1])
        return self._add(frames), self._add(squares)

    def forward(self, spectrum: Tensor) -> Tensor:
        if spectrum.shape[-1] == 0:
            return self.window.new_zeros(spectrum.shape[0], 0)
        sums, envelope = self._sums(spectrum)
        kept = slice(self.pad, sums.shape[-1] - self.pad)
        return sums[:, kept] / envelope[:, kept]  # (B, T * hop)

    def init_state(self, batch_size: int = 1) -> ISTFTState:
        zeros = self.window.new_zeros(batch_size, self.n_fft - self.hop)
        return ISTFTState(overlap=zeros, envelope=zeros[:1].clone(), skip=self.pad)

    def step(self, spectrum: Tensor, state: ISTFTState) -> Tensor:
        frames = spectrum.shape[-1]
        if frames == 0:
            return self.window.new_zeros(spectrum.shape[0], 0)
        sums, envelope = self._sums(spectrum)
        held = state.overlap.shape[-1]
        sums[:, :held] += state.overlap
        envelope[:, :held] += state.envelope
        done = frames * self.hop
        state.overlap, state.envelope = sums[:, done:].clone(), envelope[:, done:].clone()
        first = min(state.skip, done)
        state.skip -= first
        return sums[:, first:done] / envelope[:, first:done]

    def flush(self, state: ISTFTState) -> Tensor:
        rest = slice(state.skip, self.pad)  # as long as what is cut off at the end, less what is still to be cut off
        if not state.envelope.any():
            return state.overlap[:, :0]
        return state.overlap[:, rest] / state.envelope[:, rest]
