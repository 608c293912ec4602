"""Labels for an encoder that nobody has told anything: log-mels through a random matrix, the nearest of random entries.

Nothing here ever learns. Mel bands are first brought to mean 0 and deviation 1 over the data, without which most frames
would fall on the same few entries.

Source: Chiu et al. 2022, "Self-supervised Learning with Random-projection Quantizer" (BEST-RQ, arXiv 2202.01855),
section 3.1; several of them at once: Zhang et al. 2023, "Google USM" (arXiv 2303.01037).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...model.errors import DuologueError


@dataclass(frozen=True, kw_only=True)
class RandomQuantiserConfig:
    size: int = 1024  # entries of a codebook (BEST-RQ: 8192)
    dim: int = 16  # of what is compared with them
    codebooks: int = 4  # each with a matrix of its own, predicted side by side

    def __post_init__(self) -> None:
        for name in ("size", "dim", "codebooks"):
            if getattr(self, name) < 1:
                raise DuologueError(f"random quantiser {name} is {getattr(self, name)}; it must be at least 1")


class RandomQuantiser(nn.Module):
    """Standardised log-mel (B, M, T) -> labels (B, T // stack, K) int64; ``stack`` mel frames make one label."""

    def __init__(self, config: RandomQuantiserConfig, n_mels: int, stack: int, seed: int) -> None:
        super().__init__()
        c, self.stack = config, stack
        generator = torch.Generator().manual_seed(seed)
        inputs = n_mels * stack
        bound = math.sqrt(6 / (inputs + c.dim))  # Xavier's
        projection = (2 * torch.rand(c.codebooks, inputs, c.dim, generator=generator) - 1) * bound
        entries = F.normalize(torch.randn(c.codebooks, c.size, c.dim, generator=generator), dim=-1)
        self.projection: Tensor
        self.entries: Tensor
        self.register_buffer("projection", projection)  # (K, stack M, dim)
        self.register_buffer("entries", entries)  # (K, size, dim)

    @torch.no_grad()
    def forward(self, mel: Tensor) -> Tensor:
        frames = mel.shape[2] // self.stack
        x = mel[..., : frames * self.stack].transpose(1, 2).reshape(mel.shape[0], frames, -1)  # (B, T', stack M)
        with torch.autocast(x.device.type, enabled=False):  # near entries differ by less than bf16 resolves
            labels = []
            for projection, entries in zip(self.projection, self.entries, strict=True):
                # Both normalised, the nearest is the one of the largest cosine; the length of x plays no part in it.
                labels.append((x.float() @ projection @ entries.T).argmax(-1))  # (B, T')
        return torch.stack(labels, dim=-1)  # (B, T', K)
