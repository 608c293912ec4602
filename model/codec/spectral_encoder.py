"""An encoder that reads spectra: waveform -> embeddings, by a short-time Fourier transform and ConvNeXt blocks.

Samples (B, 1, n) in, embeddings (B, D, ceil(n / hop)) out. Frame t is the logarithm of the power spectrum of the
``n_fft`` samples that end where the frame does; a last frame cut short is filled up with silence. Nothing looks ahead.
Where a codec is judged by spectra, and decodes to whatever phases it likes, an encoder may leave phases out as well:
beside a SEANet, which works at the sample rate, nothing has to be learnt before a spectrum is seen.

Source: the decoder of Siuzdak 2023, "Vocos" (arXiv 2306.00814), section 3, turned around; ConvNeXt blocks: Liu et al.
2022 (arXiv 2201.03545).
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import DuologueError
from ..layers.conv import ConvState, StreamingConv1d, channels_last
from ..streaming import State, Streaming
from .vocos import NORM_EPS, ConvNeXtBlock

FLOOR = 1e-5  # of powers: white noise at about -74 dBFS


@dataclass(frozen=True, kw_only=True)
class SpectralEncoderConfig:
    """Sizes."""

    dim: int = 64  # D, of the embeddings
    width: int = 256
    ffn_dim: int = 512
    layers: int = 5
    kernel: int = 7  # frames
    n_fft: int = 640  # samples of a transform
    hop: int = 216  # samples an embedding

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if value < 1:
                raise DuologueError(f"spectral encoder {name} must be at least 1, got {value}")
        if self.n_fft < self.hop or self.n_fft % 2:
            raise DuologueError(f"spectral encoder n_fft must be even, at least the hop {self.hop}; got {self.n_fft}")


@dataclass
class SpectralEncoderState(State):
    """Samples that spectra to come still see, and the convolutions."""

    held: Tensor  # (B, n_fft - hop to n_fft - 1)
    embed: ConvState
    blocks: list[ConvState]


class SpectralEncoder(Streaming):
    """Samples (B, 1, n) -> embeddings (B, D, ceil(n / hop))."""

    def __init__(self, config: SpectralEncoderConfig) -> None:
        super().__init__()
        c = self.config = config
        self.embed = StreamingConv1d(c.n_fft // 2 + 1, c.width, 3, causal=True)
        self.blocks = nn.ModuleList(
            ConvNeXtBlock(c.width, c.ffn_dim, c.kernel, True, 1 / c.layers) for _ in range(c.layers)
        )
        self.norm = nn.LayerNorm(c.width, eps=NORM_EPS)
        self.head = nn.Linear(c.width, c.dim)
        self.window: Tensor
        self.register_buffer("window", torch.hann_window(c.n_fft), persistent=False)
        self.rate = Fraction(1, c.hop)
        self.latency = c.hop - 1

    def forward(self, x: Tensor) -> Tensor:
        state = self.init_state(x.shape[0])
        return self.step(F.pad(x, (0, -x.shape[-1] % self.config.hop)), state)

    def init_state(self, batch_size: int = 1) -> SpectralEncoderState:
        c = self.config
        return SpectralEncoderState.of(self, batch_size, held=self.window.new_zeros(batch_size, c.n_fft - c.hop))

    def step(self, x: Tensor, state: SpectralEncoderState) -> Tensor:
        c = self.config
        samples = torch.cat([state.held, x[:, 0].float()], dim=1)
        frames = (samples.shape[1] - (c.n_fft - c.hop)) // c.hop
        state.held = samples[:, frames * c.hop :].clone()
        if frames == 0:
            return x.new_zeros(x.shape[0], c.dim, 0)
        with torch.autocast(x.device.type, enabled=False):
            spectra = torch.fft.rfft(samples.unfold(1, c.n_fft, c.hop) * self.window)  # (B, T, bins)
            power = spectra.real.square() + spectra.imag.square()
            seen = 0.25 * (power + FLOOR).log() + 1  # between about -2 and 4
        y = self.embed.step(channels_last(seen.transpose(1, 2)), state.embed)  # (B, C, T)
        for block, held in zip(self.blocks, state.blocks, strict=True):
            y = block(y, held)
        embeddings: Tensor = self.head(self.norm(y.transpose(1, 2)))  # (B, T, D)
        return embeddings.transpose(1, 2)

    def flush(self, state: SpectralEncoderState) -> Tensor:
        """A frame cut short, filled up with silence."""
        c = self.config
        waiting = state.held.shape[1] - (c.n_fft - c.hop)
        silence = state.held.new_zeros(state.held.shape[0], 1, -waiting % c.hop)
        return self.step(silence, state)
