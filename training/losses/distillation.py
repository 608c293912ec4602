"""To say what a teacher says: every token's distribution is the target, which says what else might have been said.

One or several teachers of a smaller student (:func:`joint`, recipe ``distil``), or a frozen language model, which reads
the words that the student hears (:func:`in_writing`): little speech then teaches much, and the language model's way of
answering stays as it was.

Sources: Hinton et al. (arXiv 1503.02531), section 2: the temperature, its square, and several teachers; DiVA (arXiv
2410.02678), section 3; Ultravox (github.com/fixie-ai/ultravox), which softens both by a temperature of 2.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ..data.turns import Row, pack


class Target(NamedTuple):
    """What a student is to say at N positions.

    log_probs: (N, V), at the temperature; or (N, k + 1): of the likeliest k tokens, and last of all others together.
    tokens: (N, k), which ones; None: log_probs has all.
    """

    log_probs: Tensor
    tokens: Tensor | None = None

    def divergence(self, student: Tensor, temperature: float) -> Tensor:
        """Kullback-Leibler divergence (N,) of a student's logits (N, V) from it, nats; times the square of the
        temperature, so that its gradient does not shrink. A student's further tokens are left out."""
        if self.tokens is None:
            student = student[:, : self.log_probs.shape[1]]
        found = (student.float() / temperature).log_softmax(-1)
        if self.tokens is not None:
            others = found.scatter(1, self.tokens, -torch.inf).logsumexp(-1, keepdim=True)
            found = torch.cat([found.gather(1, self.tokens), others], dim=1)
        wanted = self.log_probs.float()
        return temperature**2 * F.kl_div(found, wanted, reduction="none", log_target=True).sum(-1)

    def likeliest(self, count: int) -> Target:
        """The same of the likeliest ``count`` tokens, the others as one; itself where there are not more."""
        if self.log_probs.shape[1] <= count + 1:
            return self
        top, tokens = self.log_probs.topk(count, dim=-1)
        others = self.log_probs.scatter(1, tokens, -torch.inf).logsumexp(-1, keepdim=True)
        return Target(torch.cat([top, others], dim=1), tokens)


def joint(teachers: Sequence[Tensor], weights: Sequence[float], temperature: float, of_logits: bool = False) -> Target:
    """What several teachers say together, from the logits (N, V) of each, and weights that make one.

    The mean of their distributions at the temperature: the divergence from it differs from the mean divergence from
    each by what no student changes. Or of their logits.
    """
    scaled = torch.stack([logits.float() / temperature for logits in teachers])  # (teachers, N, V)
    fractions = scaled.new_tensor(weights)[:, None, None]
    if of_logits:
        return Target((fractions * scaled).sum(0).log_softmax(-1))
    return Target((scaled.log_softmax(-1) + fractions.log()).logsumexp(0))


def divergence(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """Of one teacher's logits (N, V), see :class:`Target`: (N,)."""
    return joint([teacher], [1.0], temperature).divergence(student, temperature)


def in_writing(rows: list[Row], width: int) -> dict[str, Tensor]:
    """What a teacher reads where a student hears ``rows``, in the order of their batch: the same in writing.

    Returns:
        written_ids, written_segments, written_weights: packed, as :func:`pack` gives them.
        pairs: (N,) where each counted position of the rows stands among those in writing.
        worded: (N,) whether the position's row has words: a teacher has nothing to say of a clip without any.
    """
    written = [row.in_writing() for row in rows]
    batch, packed = pack(written, width)
    counts = {id(row): sum(weight > 0 for weight in row.weights) for row in written}
    starts, at = dict[int, int](), 0
    for row in packed:
        starts[id(row)] = at
        at += counts[id(row)]
    found = {f"written_{name}": batch[name] for name in ("ids", "segments", "weights")}
    found["pairs"] = torch.cat([torch.arange(counts[id(row)]) + starts[id(row)] for row in written])
    worded = torch.tensor([bool(row.spoken) or not row.clips for row in rows])
    return found | {"worded": worded.repeat_interleave(torch.tensor([counts[id(row)] for row in written]))}
