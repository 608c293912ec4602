"""To say of speech what a frozen language model says of the same words in writing.

For every token of an answer, the teacher's distribution behind the question in writing is the student's target behind
the question in speech. Unlike an answer's tokens alone it says what else might have been said, so that little speech
teaches much, and the language model's way of answering stays as it was.

Sources: DiVA (arXiv 2410.02678), section 3; Ultravox (github.com/fixie-ai/ultravox), which softens both by a
temperature of 2; the temperature and its square are of Hinton et al. (arXiv 1503.02531), section 2.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ..data.turns import Row, pack


def divergence(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """Kullback-Leibler divergence of the student's distributions from the teacher's, logits (N, V) each -> (N,), nats;
    times the square of the temperature, so that its gradient does not shrink."""
    wanted = (teacher.float() / temperature).log_softmax(-1)
    found = (student.float() / temperature).log_softmax(-1)
    return temperature**2 * F.kl_div(found, wanted, reduction="none", log_target=True).sum(-1)


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
