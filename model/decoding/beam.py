"""Beams: the texts that a search follows, whichever way it scores them, and what else is known of them.

A search of CTC's posteriors (:mod:`.ctc_beam`) lets texts stay or grow frame by frame; one of what a language model
writes (:mod:`.token_beam`) lets all of them grow by a token each time. What is fused (:class:`.fusions.Fusion`), which
texts are kept and what their labels are is the same for both.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..errors import DuologueError
from .fusions import Fusion

NEVER = -np.inf


@dataclass(frozen=True, kw_only=True)
class BeamConfig:
    """How far a search looks."""

    width: int = 8  # texts that are followed
    labels: int = 32  # that a text may go on with at a frame, the likeliest
    margin: float = 9.0  # nats below a frame's best label: those below are not tried; inf: all are
    sure: float = 0.99  # probability of the blank from which on a frame lets no text grow; 1: none is so sure
    near: float = 6.0  # nats below the best text: where a language model writes, those below are dropped; inf: none
    bonus: float = 0.0  # for each label, against language models' liking for short texts

    def __post_init__(self) -> None:
        if self.width < 1 or self.labels < 1:
            raise DuologueError(f"a beam of width {self.width} and {self.labels} labels: both must be at least 1")
        if not self.margin > 0 or not self.near > 0 or not np.isfinite(self.bonus):
            raise DuologueError(f"a beam's margin is {self.margin}, near {self.near} and its bonus {self.bonus}: the "
                                "first two must be above 0, the bonus finite")  # fmt: skip
        if not 0 < self.sure <= 1:
            raise DuologueError(f"a beam's sure is {self.sure}; it must be above 0 and at most 1")


@dataclass(frozen=True, kw_only=True)
class Found:
    """A text. score: of CTC and of all that was fused. ctc: log-probability under CTC alone."""

    labels: tuple[int, ...]
    score: float
    ctc: float


class Texts:
    """The texts that are followed, W of them, likeliest first among those that came in together.

    text, last, parent: (W,), of each its node, its last label, the node that it grew out of. extra: (W,), what is
        fused. Nodes are (parent, last label) of every text that was ever followed.
    """

    def __init__(self, fusions: Sequence[Fusion], before: Sequence[np.ndarray] | None = None) -> None:
        """before: states of the fusions behind what was said before; None: nothing was."""
        self.fusions = fusions
        self.states = list(before or [fusion.begin() for fusion in fusions])
        self.text, self.last, self.parent = np.zeros(1, np.int64), np.array([-1]), np.array([-1])
        self.extra = np.zeros(1)
        self._nodes: list[tuple[int, int]] = [(-1, -1)]
        self._known: dict[tuple[int, int], int] = {}

    def choose(
        self, stay: np.ndarray, grow: np.ndarray, labels: np.ndarray, config: BeamConfig
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Keep the best of the texts that stay as they are, with scores (W,), and of those that grow by labels (K,),
        with scores (W, K), to all of which what is fused is added.

        Returns:
            Which texts stayed; which ones grew, and by which of the labels: the texts now, in this order.
        """
        width, added = len(self.text), np.full(grow.shape, float(config.bonus))
        for fusion, state in zip(self.fusions, self.states, strict=True):
            added += fusion.scores(state, labels)
        extra = self.extra[:, None] + added
        ranks = np.concatenate([stay + self.extra, (grow + extra).ravel()])
        best = np.argsort(-ranks, kind="stable")[: config.width]
        best = best[ranks[best] > NEVER]
        kept, new = best[best < width], best[best >= width] - width
        row, column = np.divmod(new, max(1, len(labels)))
        label = labels[column]
        self.states = [
            np.concatenate([state[kept], fusion.follow(state[row], label)]) if len(new) else state[kept]
            for fusion, state in zip(self.fusions, self.states, strict=True)
        ]
        self.extra = np.concatenate([self.extra[kept], extra[row, column]])
        parent = self.text[row]
        self.text = np.concatenate([self.text[kept], self._numbers(parent, label)])
        self.last, self.parent = np.concatenate([self.last[kept], label]), np.concatenate([self.parent[kept], parent])
        return kept, row, column

    def only(self, chosen: np.ndarray) -> None:
        """Follow these of the texts alone, by their numbers."""
        self.states = [state[chosen] for state in self.states]
        self.text, self.last, self.parent = self.text[chosen], self.last[chosen], self.parent[chosen]
        self.extra = self.extra[chosen]

    def finished(self, last: bool = True) -> np.ndarray:
        """(W,), what is fused where all of them end here; ``last`` false: or go on behind a pause."""
        extra = self.extra
        for fusion, state in zip(self.fusions, self.states, strict=True):
            extra = extra + (fusion.finish(state) if last else fusion.pause(state))
        return extra

    def labels(self, at: int) -> tuple[int, ...]:
        """A text's labels."""
        out, node = [], int(self.text[at])
        while node:
            node, label = self._nodes[node]
            out.append(label)
        return tuple(reversed(out))

    def _numbers(self, parents: np.ndarray, labels: np.ndarray) -> np.ndarray:
        """Nodes of texts that grew: a text that was dropped and comes back is the one that it was."""
        numbers = []
        for edge in zip(parents.tolist(), labels.tolist(), strict=True):
            number = self._known.setdefault(edge, len(self._nodes))
            if number == len(self._nodes):
                self._nodes.append(edge)
            numbers.append(number)
        return np.array(numbers, np.int64)
