"""Finite scalar quantisation: each of a few numbers a frame is rounded to one of its levels; a code says which.

Embeddings (B, D, T) <-> codes (B, 1, T). A linear map makes D channels as many numbers as there are levels given, and
another makes D channels of the rounded ones. There is no codebook: nothing to be looked up, to collapse or to revive.
It learns by gradients, which pass rounding as if it were not there.

Source: Mentzer et al. 2023, "Finite Scalar Quantization: VQ-VAE Made Simple" (arXiv 2309.15505), section 3.1, appendix
A.1.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .quantiser import QuantiserConfig, check_codes

_EPS = 1e-3  # by which the outermost levels lie within reach


class FiniteScalarQuantiser(nn.Module):
    """See the module's docstring. The first of the levels changes quickest from one code to the next."""

    def __init__(self, config: QuantiserConfig) -> None:
        super().__init__()
        self.config = config
        self.inward, self.outward = nn.Linear(config.dim, len(config.levels)), nn.Linear(len(config.levels), config.dim)
        levels = torch.tensor(config.levels)
        self.levels: Tensor
        self.places: Tensor
        self.register_buffer("levels", levels, persistent=False)
        self.register_buffer("places", torch.cat([levels.new_ones(1), levels.cumprod(0)[:-1]]), persistent=False)

    def chosen(self, codebooks: int | None) -> int:
        """How many codebooks to use: one, as a code is one number.

        Raises:
            DuologueError: another number of them.
        """
        return self.config.chosen(codebooks)

    @property
    def entries(self) -> Tensor:
        """What the codes 0, 1, … stand for: (1, size, D)."""
        codes = torch.arange(self.config.size, device=self.levels.device)
        return self.outward(self._values(codes))[None]

    def straight_through(self, x: Tensor, rounded: bool = True) -> tuple[Tensor, Tensor]:
        """Embeddings (B, D, T) -> their quantised form (B, D, T), whose gradients pass rounding, and codes (B, T).

        rounded: False: the form before rounding, which is where training may begin.
        """
        with torch.autocast(x.device.type, enabled=False):
            bounded = self._bounded(x)
            digits = bounded.detach().round()
            out = self.outward((bounded + (digits - bounded).detach() if rounded else bounded) / self._half)
        return out.transpose(1, 2), self._codes(digits)

    def encode(self, x: Tensor, codebooks: int | None = None) -> Tensor:
        """Embeddings (B, D, T) -> codes (B, 1, T) int64."""
        self.chosen(codebooks)
        return self._codes(self._bounded(x).round())[:, None]

    def decode(self, codes: Tensor) -> Tensor:
        """Codes (B, 1, T) -> embeddings (B, D, T).

        Raises:
            DuologueError: more than one code a frame, or a code beyond the last.
        """
        self.chosen(codes.shape[1])
        check_codes(codes, self.config.size)
        out: Tensor = self.outward(self._values(codes[:, 0]))
        return out.transpose(1, 2)

    @property
    def _half(self) -> Tensor:
        return torch.div(self.levels, 2, rounding_mode="floor")

    def _bounded(self, x: Tensor) -> Tensor:
        """Embeddings (B, D, T) -> numbers (B, T, L) that round to -floor(level / 2) and upwards, ``level`` of them."""
        reach = (self.levels - 1) * (1 + _EPS) / 2
        offset = torch.where(self.levels % 2 == 0, 0.5, 0.0)  # an even number of levels has one more below 0 than above
        shift = torch.atanh(offset / reach)
        weight, bias = self.inward.weight.float(), self.inward.bias.float()  # a level is told in float32
        return torch.tanh(F.linear(x.transpose(1, 2).float(), weight, bias) + shift) * reach - offset

    def _codes(self, digits: Tensor) -> Tensor:
        return ((digits.nan_to_num().long() + self._half) * self.places).sum(-1)

    def _values(self, codes: Tensor) -> Tensor:
        """Codes (...) -> rounded numbers (..., L) from -1 to 1."""
        digits = torch.div(codes[..., None], self.places, rounding_mode="floor") % self.levels
        return ((digits - self._half) / self._half).to(self.outward.weight.dtype)
