"""How the entries of a quantiser learn: not by gradients, but as running averages of the vectors that chose them.

They begin as the centres of k-means; each moves to the mean of its vectors, averaged over updates with a decay; an
entry that nothing chose for ``dead_after`` updates becomes a vector of the batch. Sums and counts of all batches of a
step, in all processes, go into one update, so that the entries do not depend on how many processes share a step.

Source: van den Oord et al. 2017 (arXiv 1711.00937), appendix A.1; k-means and dead entries: Zeghidour et al. 2021,
"SoundStream" (arXiv 2107.03312), section III-C.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...model.codec.quantiser import Quantiser, QuantiserConfig, nearest
from ...model.errors import DuologueError


@dataclass(frozen=True, kw_only=True)
class CodebookConfig:
    decay: float = 0.99
    dead_after: int = 50  # updates without a vector
    kmeans_iterations: int = 20  # (WavTokenizer: 200)
    kmeans_vectors: int = 8  # for each entry
    candidates: int = 256  # vectors of a batch that dead entries may become

    def __post_init__(self) -> None:
        if not 0 < self.decay < 1:
            raise DuologueError(f"codebook decay is {self.decay}; it must be between 0 and 1, for example 0.99")
        for name in ("dead_after", "kmeans_vectors", "candidates"):
            if getattr(self, name) < 1:
                raise DuologueError(f"codebook {name} is {getattr(self, name)}; it must be at least 1")


def kmeans(vectors: Tensor, size: int, iterations: int, generator: torch.Generator) -> Tensor:
    """(N, D) vectors -> (size, D) centres. Of fewer than ``size`` vectors some centres are copies, a little moved."""
    order = torch.randperm(len(vectors), generator=generator).to(vectors.device)
    centres = vectors[order.repeat(-(-size // len(vectors)))[:size]].clone()
    if len(vectors) < size:
        noise = torch.randn(centres.shape, generator=generator).to(vectors)
        centres += 1e-3 * vectors.std() * noise
    for _ in range(iterations):
        codes = nearest(vectors, centres)
        sums = torch.zeros_like(centres).index_add_(0, codes, vectors)
        counts = torch.bincount(codes, minlength=size)[:, None]
        centres = torch.where(counts > 0, sums / counts.clamp(min=1), centres)
    return centres


class Codebooks(nn.Module):
    """The averages that move a quantiser's entries, and how well the entries are used."""

    def __init__(self, sizes: QuantiserConfig, config: CodebookConfig, batches: int, seed: int) -> None:
        """``batches``: how many batches all processes together put into one update."""
        super().__init__()
        self.config, self.seed, self.batches = config, seed, batches
        self.counts: Tensor
        self.sums: Tensor
        self.chosen_at: Tensor
        self.revived_at: Tensor
        self.updates: Tensor
        shape = (sizes.codebooks, sizes.size)
        self.register_buffer("counts", torch.zeros(shape))  # vectors an update, on average
        self.register_buffer("sums", torch.zeros(*shape, sizes.dim))
        self.register_buffer("chosen_at", torch.full(shape, -config.dead_after))  # the last update that chose it
        self.register_buffer("revived_at", torch.zeros(shape, dtype=torch.long))
        self.register_buffer("updates", torch.zeros((), dtype=torch.long))
        self.waiting: list[list[tuple[Tensor, Tensor]]] = []  # for each batch of this step: vectors, codes, by codebook

    @property
    def initialised(self) -> bool:
        return bool(self.counts.any())

    @torch.no_grad()
    def initialise(self, quantiser: Quantiser, vectors: Tensor) -> None:
        """Entries from (N, D) vectors by k-means, each further codebook from what the ones before leave over."""
        generator = torch.Generator().manual_seed(self.seed)
        rest = vectors.float()
        for entries in quantiser.entries:
            entries.copy_(kmeans(rest, len(entries), self.config.kmeans_iterations, generator))
            rest = rest - entries[nearest(rest, entries)]
        if _together():
            torch.distributed.broadcast(quantiser.entries.data, src=0)
        self.counts.fill_(1 - self.config.decay)
        self.sums.copy_(quantiser.entries * (1 - self.config.decay))

    def quantise(self, quantiser: Quantiser, x: Tensor, codebooks: int) -> tuple[Tensor, Tensor]:
        """Embeddings (B, D, T) -> their quantised form (B, D, T), gradients passed straight through, and a loss.

        The loss draws embeddings to the entries that they choose. In training the choice is kept for the next update.
        ``codebooks`` is the same for all batches of a step.
        """
        rest = x.transpose(1, 2).flatten(0, 1).float()  # (B T, D)
        quantised, loss = torch.zeros_like(rest), x.new_zeros((), dtype=torch.float32)
        seen = []
        for entries in quantiser.entries[:codebooks]:
            codes = nearest(rest.detach(), entries)
            chosen = entries[codes]
            loss = loss + (rest - chosen).square().mean() / codebooks
            seen.append((rest.detach(), codes))
            quantised, rest = quantised + chosen, rest - chosen
        if self.training:
            self.waiting.append(seen)
            if len(self.waiting) * _processes() >= self.batches:
                self._update(quantiser)
                self.waiting = []
        through = quantised.unflatten(0, (x.shape[0], x.shape[2])).transpose(1, 2)  # (B, D, T)
        return x + (through - x).detach(), loss

    @torch.no_grad()
    def _update(self, quantiser: Quantiser) -> None:
        """Move the entries by what the waiting batches of all processes chose."""
        decay = self.config.decay
        self.updates += 1
        for k in range(len(self.waiting[0])):
            entries = quantiser.entries[k]
            found = torch.zeros(len(entries), 1 + entries.shape[1], device=entries.device)  # counts beside sums
            offered = []
            for turn, batch in enumerate(self.waiting):
                vectors, codes = batch[k]
                found.index_add_(0, codes, F.pad(vectors, (1, 0), value=1.0))
                offered.append(_gathered(self._drawn(vectors, k, turn)))
            if _together():
                torch.distributed.all_reduce(found)
            if not torch.isfinite(found).all():  # a bad batch leaves no trace
                continue
            counts, sums = found[:, 0], found[:, 1:]
            self.counts[k].mul_(decay).add_(counts, alpha=1 - decay)
            self.sums[k].mul_(decay).add_(sums, alpha=1 - decay)
            self.chosen_at[k][counts > 0] = self.updates
            self._revive(k, torch.cat(offered))
            entries.copy_(self.sums[k] / self.counts[k][:, None])

    def _drawn(self, vectors: Tensor, k: int, turn: int) -> Tensor:
        """Some of a batch's vectors, by a draw that depends on which batch of which step it is, and on nothing else."""
        batch = turn * _processes() + (torch.distributed.get_rank() if _together() else 0)
        order = np.random.default_rng((self.seed, int(self.updates), batch, k)).permutation(len(vectors))
        return vectors[torch.from_numpy(order[: self.config.candidates]).to(vectors.device)]

    def _revive(self, k: int, vectors: Tensor) -> None:
        """Entries that nothing chose for long become vectors, counted as if each had been chosen once just now."""
        latest = torch.maximum(self.chosen_at[k], self.revived_at[k])
        dead = torch.nonzero(self.updates - latest >= self.config.dead_after)[: len(vectors), 0]
        weight = 1 - self.config.decay
        self.sums[k][dead] = vectors[: len(dead)] * weight
        self.counts[k][dead] = weight
        self.revived_at[k][dead] = self.updates

    def metrics(self) -> dict[str, Tensor]:
        """Of the first codebook: the fraction of entries chosen lately, and the perplexity of the choice."""
        lately = self.updates - self.chosen_at[0] < self.config.dead_after
        return {"utilisation": lately.float().mean(), "perplexity": perplexity(self.counts[0])}


def perplexity(counts: Tensor) -> Tensor:
    """Of a choice that was made so often: as many entries, chosen equally often, would be as hard to guess."""
    chance = counts / counts.sum()
    return torch.exp(-(chance * chance.clamp(min=1e-12).log()).sum())


def _together() -> bool:
    return torch.distributed.is_available() and torch.distributed.is_initialized()


def _processes() -> int:
    return torch.distributed.get_world_size() if _together() else 1


def _gathered(vectors: Tensor) -> Tensor:
    """Those of all processes, in the order of their ranks."""
    if not _together():
        return vectors
    rows = [torch.empty_like(vectors) for _ in range(_processes())]
    torch.distributed.all_gather(rows, vectors.contiguous())
    return torch.cat(rows)
