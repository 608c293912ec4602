"""Vector quantisation: embeddings <-> the numbers of the nearest entries of one codebook, or of several in turn.

Embeddings (B, D, T) <-> codes (B, K, T). With several codebooks each quantises what the ones before it left over, so
that the first few of them are a coarser code of the same sound: a bit rate that can be chosen at run time. Frames do
not depend on one another, so a stream has no state here.

Source: van den Oord et al. 2017 (arXiv 1711.00937), section 3.1; residual codebooks: Zeghidour et al. 2021,
"SoundStream" (arXiv 2107.03312), section III-C.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from ..errors import DuologueError

ROWS = 4096  # vectors whose distances are held at a time


@dataclass(frozen=True, kw_only=True)
class QuantiserConfig:
    dim: int = 512  # D
    size: int = 4096  # entries of a codebook
    codebooks: int = 1  # K
    # Of numbers that are rounded one by one, and no codebook (finite_scalar.py); their product is the size.
    levels: tuple[int, ...] = field(default=(), metadata={"newer": True})

    def __post_init__(self) -> None:
        if self.levels and (min(self.levels) < 3 or math.prod(self.levels) != self.size):
            levels = ",".join(map(str, self.levels))
            raise DuologueError(
                f"quantiser levels are {levels}, for {math.prod(self.levels)} codes; each must be at least 3, and the "
                f"size, {self.size}, their product, for example 8,8,8,8 for 4096"
            )
        if self.levels and self.codebooks != 1:
            raise DuologueError(f"quantiser codebooks is {self.codebooks}; with levels it must be 1")
        for name in ("dim", "size", "codebooks"):
            if getattr(self, name) < 1:
                raise DuologueError(f"quantiser {name} must be at least 1, got {getattr(self, name)}")

    def chosen(self, codebooks: int | None) -> int:
        """How many codebooks to use; ``None``: all.

        Raises:
            DuologueError: more than there are, or none.
        """
        there = self.codebooks
        if codebooks is not None and not 1 <= codebooks <= there:
            raise DuologueError(f"codebooks is {codebooks}; this codec has {there}, so it must be 1 to {there}")
        return there if codebooks is None else codebooks


def nearest(x: Tensor, codebook: Tensor) -> Tensor:
    """(N, D) vectors, (size, D) entries -> (N,) int64 numbers of the nearest entries."""
    codebook = codebook.float()
    square = codebook.square().sum(1)
    found = []
    with torch.autocast(x.device.type, enabled=False):  # near neighbours differ by less than bf16 resolves
        for rows in x.float().split(ROWS):
            distance = torch.addmm(square, rows, codebook.T, alpha=-2)  # |x|² is the same for all
            found.append(distance.argmin(dim=1))
    return torch.cat(found)


def check_codes(codes: Tensor, size: int) -> None:
    """Raises DuologueError for a code that is none of ``size``."""
    if codes.numel() and not 0 <= int(codes.min()) <= int(codes.max()) < size:
        raise DuologueError(f"codes go from {int(codes.min())} to {int(codes.max())}; they must be 0 to {size - 1}")


class Quantiser(nn.Module):
    """See the module's docstring. The entries are no matter of gradients: training moves them by averages."""

    def __init__(self, config: QuantiserConfig) -> None:
        super().__init__()
        self.config = config
        entries = torch.randn(config.codebooks, config.size, config.dim) / math.sqrt(config.dim)
        self.entries = nn.Parameter(entries, requires_grad=False)  # (K, size, D)

    def chosen(self, codebooks: int | None) -> int:
        """See :meth:`QuantiserConfig.chosen`."""
        return self.config.chosen(codebooks)

    def encode(self, x: Tensor, codebooks: int | None = None) -> Tensor:
        """Embeddings (B, D, T) -> codes (B, K, T) int64."""
        rest = x.transpose(1, 2).flatten(0, 1).float()  # (B T, D)
        codes = []
        for entries in self.entries[: self.chosen(codebooks)]:
            codes.append(nearest(rest, entries))
            rest = rest - entries[codes[-1]]
        return torch.stack(codes).unflatten(1, (x.shape[0], x.shape[2])).transpose(0, 1)  # (B, K, T)

    def decode(self, codes: Tensor) -> Tensor:
        """Codes (B, K, T) of the first K codebooks -> embeddings (B, D, T).

        Raises:
            DuologueError: more codebooks than there are, or a code that is no entry's number.
        """
        used = self.chosen(codes.shape[1])
        check_codes(codes, self.config.size)
        return sum(self.entries[k][codes[:, k]] for k in range(used)).transpose(1, 2)  # type: ignore[union-attr]
