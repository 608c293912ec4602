"""Frame-wise features that units are clustered from, 50 Hz: the encoder's middle layers, or MFCC as the fallback.

Frame j describes samples 320 j to 320 (j + 1), so a clip of n samples has n // 320 frames, whatever makes them.
"""

from __future__ import annotations

import math
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...checkpoints.units import HOP, SAMPLE_RATE, fingerprint
from ...model.audio_encoder.encoder import Encoder
from ...model.audio_encoder.mel import LogMel, mel_filters
from ...model.errors import DuologueError


class Features(Protocol):
    """What turns a waveform into frames, and says which weights did it."""

    @property
    def description(self) -> dict[str, Any]:
        """Everything that decides the features, as JSON: compared when units are loaded."""

    def __call__(self, waveform: Tensor) -> Tensor:
        """(n,) float32 in [-1, 1] at 16 kHz -> (n // 320, D)."""


class MfccFeatures(nn.Module):
    """Mel-frequency cepstra and their differences: (n,) -> (n // 320, 2 * coefficients).

    Davis and Mermelstein, "Comparison of parametric representations for monosyllabic word recognition" (1980). The
    window of 32 ms is centred on the frame; differences are slopes over five frames.
    """

    window: Tensor
    filters: Tensor
    cosines: Tensor

    def __init__(self, coefficients: int = 13, n_mels: int = 40, n_fft: int = 512) -> None:
        super().__init__()
        if not 0 < coefficients <= n_mels:
            raise DuologueError(f"{coefficients} cepstral coefficients of {n_mels} mel bands: expected 1 to {n_mels}")
        self.coefficients, self.n_mels, self.n_fft = coefficients, n_mels, n_fft
        self.register_buffer("window", torch.hann_window(n_fft))
        self.register_buffer("filters", mel_filters(SAMPLE_RATE, n_fft, n_mels))
        bands = torch.arange(n_mels) + 0.5
        angles = math.pi / n_mels * torch.outer(torch.arange(coefficients), bands)
        self.register_buffer("cosines", torch.cos(angles) * math.sqrt(2 / n_mels))  # (C, M)

    @property
    def description(self) -> dict[str, Any]:
        return {"kind": "mfcc", "coefficients": self.coefficients, "n_mels": self.n_mels, "n_fft": self.n_fft}

    @torch.no_grad()
    def forward(self, waveform: Tensor) -> Tensor:
        frames = len(waveform) // HOP
        if frames == 0:
            return waveform.new_zeros(0, 2 * self.coefficients)
        side = (self.n_fft - HOP) // 2
        padded = F.pad(waveform[: frames * HOP], (side, self.n_fft - HOP - side))
        windows = padded.unfold(0, self.n_fft, HOP) * self.window  # (T, n_fft)
        power = torch.fft.rfft(windows).abs().square()  # (T, F)
        log_mel = (power @ self.filters.T).clamp(min=1e-8).log()  # (T, M)
        cepstra = log_mel @ self.cosines.T  # (T, C)
        around = F.pad(cepstra.T[None], (2, 2), mode="replicate")[0].T  # (T + 4, C)
        slopes = (2 * (around[4:] - around[:-4]) + around[3:-1] - around[1:-3]) / 10  # (T, C)
        return torch.cat([cepstra, slopes], dim=1)  # (T, 2 C)


WHOLE = ((0, 0),)
PASSES = ((0, 0), (61, 2), (140, 4), (233, 6))


class EncoderFeatures:
    """A layer of our own encoder, averaged over several starting positions so that position does not leak into it.

    Each pass differs in the position that the first frame is told to have, and in how many frames of silence precede
    the clip (its frames then meet the encoder's chunks elsewhere). An encoder of whole clips, as Whisper's, knows none
    but those that begin at 0, and sees them once.

    Args:
        layer: how many blocks; 0 is the convolutions' output.
        passes: (position offset, frames of silence before) in 50 Hz frames, one a pass. ``None``: four, or the one.
    """

    def __init__(
        self,
        mel: LogMel,
        encoder: Encoder,
        layer: int,
        passes: tuple[tuple[int, int], ...] | None = None,
    ) -> None:
        if passes is None:
            passes = WHOLE if encoder.config.chunk is None else PASSES
        if not 0 <= layer <= len(encoder.blocks):
            raise DuologueError(f"layer {layer}: the encoder has 0 to {len(encoder.blocks)}")
        if not passes or any(before < 0 or offset < 0 for offset, before in passes):
            raise DuologueError(f"passes {passes}: expected at least one pair of numbers from 0 on")
        self.mel, self.encoder, self.layer, self.passes = mel, encoder, layer, passes
        self.fingerprint = fingerprint(encoder)

    @property
    def description(self) -> dict[str, Any]:
        passes = [list(one) for one in self.passes]
        return {"kind": "encoder", "weights": self.fingerprint, "layer": self.layer, "passes": passes}

    @torch.no_grad()
    def __call__(self, waveform: Tensor) -> Tensor:
        frames = len(waveform) // HOP
        most = max(before for _, before in self.passes)
        padded = [F.pad(waveform[: frames * HOP], (HOP * before, HOP * (most - before))) for _, before in self.passes]
        offsets = torch.tensor([offset for offset, _ in self.passes])
        lengths = torch.tensor([2 * (frames + before) for _, before in self.passes])  # mel frames
        hidden = self.encoder(self.mel(torch.stack(padded)), lengths, offsets, self.layer)  # (P, T + most, D)
        aligned = [row[before : before + frames] for row, (_, before) in zip(hidden, self.passes, strict=True)]
        return torch.stack(aligned).mean(0)  # (T, D)
