"""Error rates while training: edit distance over sequences of anything."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np


def edit_distance(hypothesis: Sequence[Any], reference: Sequence[Any]) -> int:
    """The fewest insertions, deletions and substitutions that turn one sequence into the other."""
    row = np.arange(len(hypothesis) + 1)
    for count, item in enumerate(reference, 1):
        substituted = row[:-1] + np.array([item != other for other in hypothesis], dtype=np.int64)
        best = np.minimum(substituted, row[1:] + 1)
        # An insertion extends the cell to its left: the running minimum of (cell - position) does them all at once.
        joined = np.concatenate(([count], best)) - np.arange(len(hypothesis) + 1)
        row = np.minimum.accumulate(joined) + np.arange(len(hypothesis) + 1)
    return int(row[-1])


def error_rate(hypotheses: Sequence[Sequence[Any]], references: Sequence[Sequence[Any]]) -> float:
    """Edits over all pairs, divided by the length of all references."""
    edits = sum(edit_distance(h, r) for h, r in zip(hypotheses, references, strict=True))
    return edits / max(1, sum(len(r) for r in references))
