"""One envelope for both sources: the fraction of its power in each band that is periodic makes two filters of it.

Cepstra (B, S, C) of an envelope and logits (B, S, bands) in, cepstra (B, S, C) of the pulses' filter and of the noise's
out. Their powers add up to the envelope's at every frequency, so neither source can be turned down alone. The bands are
equally wide, from 0 Hz to half the sample rate; between their middles logits are interpolated.

Source: the aperiodicity of Morise et al. 2016, "WORLD" (IEICE Transactions E99-D(7)); the cepstrum of a minimum phase
from a logarithm of gains: Oppenheim and Schafer, "Discrete-Time Signal Processing", section 13.5.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

GRID = 64  # frequencies at which gains are computed, from which cepstra follow
LEAST = 6.0  # logits beyond it change nothing: either source keeps at least a 400th of the power


class Periodicity(nn.Module):
    """See the module's docstring; nothing to learn."""

    def __init__(self, bands: int, cepstrum: int) -> None:
        super().__init__()
        self.cepstrum = cepstrum
        at = (torch.arange(GRID) + 0.5) / GRID  # of half the sample rate
        place = (at * bands - 0.5).clamp(0, bands - 1)  # among the middles of the bands
        bins = torch.arange(bands)
        self.spread: Tensor
        self.register_buffer("spread", (1 - (place - bins[:, None]).abs()).clamp(min=0), persistent=False)
        order = torch.arange(min(cepstrum, GRID))
        fold = torch.cos(torch.pi * at[:, None] * order) * torch.where(order > 0, 2.0, 1.0) / GRID
        self.fold: Tensor
        self.register_buffer("fold", F.pad(fold, (0, cepstrum - len(order))), persistent=False)  # (GRID, cepstrum)

    def forward(self, envelope: Tensor, logits: Tensor, f0: Tensor) -> tuple[Tensor, Tensor]:
        """Envelope (B, S, C), logits (B, S, bands), f0 (B, S), 0 where all is noise -> cepstra of pulses and noise."""
        fine = logits.float().clamp(-LEAST, LEAST) @ self.spread  # (B, S, GRID)
        pulses, noise = (0.5 * F.logsigmoid(sign * fine) @ self.fold for sign in (1, -1))
        noise = torch.where(f0[..., None] > 0, noise, 0.0)
        return envelope + pulses, envelope + noise
