"""CTC prefix beam search: the likeliest texts of speech, n-grams and hot words heard as well.

    log-probabilities (T, V + 1) of labels, the blank last -> hypotheses, the best first, with scores

A hypothesis is a text, not an alignment: the probabilities of all alignments that write it are added, those that end in
a blank apart from those that end in its last label. What else is known of texts (:class:`.fusions.Fusion`) is added to
their scores as they grow. When each label of a text was said, :func:`.token_times.aligned` tells; without a search,
:func:`.token_times.best_path` gives the best label of each frame.

Frames that are surely blank let no text grow: most frames of speech are such, and cost next to nothing (Chen et al.,
"Phone Synchronous Decoding with CTC Lattice", Interspeech 2016, section 3).

Source: Hannun et al., "First-Pass Large Vocabulary Continuous Speech Recognition using Bi-Directional Recurrent DNNs"
(arXiv 1408.2873), algorithm 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from ..errors import DuologueError
from .fusions import Fusion

_NEVER = -np.inf


@dataclass(frozen=True, kw_only=True)
class BeamConfig:
    """How far a search looks."""

    width: int = 8  # texts that are followed
    labels: int = 32  # that a text may go on with at a frame, the likeliest
    margin: float = 9.0  # nats below a frame's best label: those below are not tried; inf: all are
    sure: float = 0.99  # probability of the blank from which on a frame lets no text grow; 1: none is so sure
    bonus: float = 0.0  # for each label, against language models' liking for short texts

    def __post_init__(self) -> None:
        if self.width < 1 or self.labels < 1:
            raise DuologueError(f"a beam of width {self.width} and {self.labels} labels: both must be at least 1")
        if not self.margin > 0 or not np.isfinite(self.bonus):
            raise DuologueError(f"a beam's margin is {self.margin} and its bonus {self.bonus}: the margin must be "
                                "above 0, the bonus finite")  # fmt: skip
        if not 0 < self.sure <= 1:
            raise DuologueError(f"a beam's sure is {self.sure}; it must be above 0 and at most 1")


@dataclass(frozen=True, kw_only=True)
class Found:
    """A text. score: of CTC and of all that was fused. ctc: log-probability under CTC alone."""

    labels: tuple[int, ...]
    score: float
    ctc: float


@dataclass
class _Texts:
    """The texts that are followed, W of them, likeliest first among those that came in together.

    nodes: (parent, last label) of every text that was ever followed; known: their numbers. text, last, parent: (W,),
        of each its node, its last label, the node that it grew out of.
    by_blank, by_label: (W,) log-probabilities of the alignments so far. extra: (W,), what is fused. states: of fusions.
    """

    states: list[np.ndarray]
    nodes: list[tuple[int, int]] = field(default_factory=lambda: [(-1, -1)])
    known: dict[tuple[int, int], int] = field(default_factory=dict)
    text: np.ndarray = field(default_factory=lambda: np.zeros(1, np.int64))
    last: np.ndarray = field(default_factory=lambda: np.array([-1]))
    parent: np.ndarray = field(default_factory=lambda: np.array([-1]))
    by_blank: np.ndarray = field(default_factory=lambda: np.zeros(1))
    by_label: np.ndarray = field(default_factory=lambda: np.full(1, _NEVER))
    extra: np.ndarray = field(default_factory=lambda: np.zeros(1))

    def stay(self, frame: np.ndarray) -> None:
        """A frame (V + 1,) that lets no text grow."""
        total = np.logaddexp(self.by_blank, self.by_label)
        self.by_label = self.by_label + frame[self.last]  # of the empty text never
        self.by_blank = total + frame[-1]

    def go_on(self, frame: np.ndarray, labels: np.ndarray, config: BeamConfig, fusions: Sequence[Fusion]) -> None:
        """A frame (V + 1,) with labels (K,) that a text may grow by; the best are kept."""
        width, scores = len(self.text), frame[labels]
        total = np.logaddexp(self.by_blank, self.by_label)
        stay_blank = total + frame[-1]
        same = frame[self.last]
        stay_label = self.by_label + same
        repeats = self.last[:, None] == labels  # (W, K)
        grow = np.where(repeats, self.by_blank[:, None], total[:, None]) + scores
        into, of = np.nonzero(self.parent[:, None] == self.text)  # texts that another one grows into
        if len(into):
            label = self.last[into]
            before = np.where(self.last[of] == label, self.by_blank[of], total[of])
            stay_label[into] = np.logaddexp(stay_label[into], before + same[into])
            row, column = np.nonzero(label[:, None] == labels)
            grow[of[row], column] = _NEVER
        added = np.full(grow.shape, float(config.bonus))
        for fusion, state in zip(fusions, self.states, strict=True):
            added += fusion.scores(state, labels)
        extra = self.extra[:, None] + added
        stay = np.logaddexp(stay_blank, stay_label)
        ranks = np.concatenate([stay + self.extra, (grow + extra).ravel()])
        best = np.argsort(-ranks, kind="stable")[: config.width]
        best = best[ranks[best] > _NEVER]
        kept, new = best[best < width], best[best >= width] - width
        row, column = np.divmod(new, len(labels))
        label = labels[column]
        self.states = [
            np.concatenate([state[kept], fusion.follow(state[row], label)]) if len(new) else state[kept]
            for fusion, state in zip(fusions, self.states, strict=True)
        ]
        self.extra = np.concatenate([self.extra[kept], extra[row, column]])
        self.by_blank = np.concatenate([stay_blank[kept], np.full(len(new), _NEVER)])
        self.by_label = np.concatenate([stay_label[kept], grow[row, column]])
        parent = self.text[row]
        self.text = np.concatenate([self.text[kept], self._nodes(parent, label)])
        self.last, self.parent = np.concatenate([self.last[kept], label]), np.concatenate([self.parent[kept], parent])

    def _nodes(self, parents: np.ndarray, labels: np.ndarray) -> np.ndarray:
        """Those of texts that grew: a text that was dropped and comes back is the one that it was."""
        numbers = []
        for edge in zip(parents.tolist(), labels.tolist(), strict=True):
            number = self.known.setdefault(edge, len(self.nodes))
            if number == len(self.nodes):
                self.nodes.append(edge)
            numbers.append(number)
        return np.array(numbers, np.int64)

    def labels(self, node: int) -> tuple[int, ...]:
        """A text's labels."""
        out = []
        while node:
            node, label = self.nodes[node]
            out.append(label)
        return tuple(reversed(out))


def search(log_probs: np.ndarray, config: BeamConfig | None = None, fusions: Sequence[Fusion] = ()) -> list[Found]:
    """The likeliest texts, the best first; at most as many as the beam is wide.

    Args:
        log_probs: (T, V + 1), of labels and last the blank.
    """
    texts = _followed(log_probs, config or BeamConfig(), fusions, [fusion.begin() for fusion in fusions])
    extra = texts.extra
    for fusion, state in zip(fusions, texts.states, strict=True):
        extra = extra + fusion.finish(state)
    ctc = np.logaddexp(texts.by_blank, texts.by_label)
    return [Found(labels=texts.labels(int(texts.text[at])), score=float((ctc + extra)[at]), ctc=float(ctc[at]))
            for at in np.argsort(-(ctc + extra), kind="stable")]  # fmt: skip


def search_part(
    log_probs: np.ndarray,
    config: BeamConfig,
    fusions: Sequence[Fusion],
    before: Sequence[np.ndarray] | None,
    last: bool,
) -> tuple[tuple[int, ...], list[np.ndarray]]:
    """The likeliest labels of a part of a text, which begins and ends in a pause.

    Args:
        log_probs: (T, V + 1) of the part.
        before: what this function gave for the part before it; None: it is the first.
        last: whether the text ends with it.
    """
    texts = _followed(log_probs, config, fusions, before or [fusion.begin() for fusion in fusions])
    score = np.logaddexp(texts.by_blank, texts.by_label) + texts.extra
    for fusion, state in zip(fusions, texts.states, strict=True):
        score = score + (fusion.finish(state) if last else fusion.pause(state))
    best = int(np.argmax(score))
    return texts.labels(int(texts.text[best])), [state[best : best + 1] for state in texts.states]


def _followed(
    log_probs: np.ndarray, config: BeamConfig, fusions: Sequence[Fusion], begin: Sequence[np.ndarray]
) -> _Texts:
    texts = _Texts(list(begin))
    for frame, labels in zip(log_probs.astype(np.float64), likely(log_probs, config), strict=True):
        if len(labels):
            texts.go_on(frame, labels, config, fusions)
        else:
            texts.stay(frame)
    return texts


def likely(log_probs: np.ndarray, config: BeamConfig) -> list[np.ndarray]:
    """Of each frame of (T, V + 1), the labels that a text may grow by; none where it is surely blank."""
    open_ = np.flatnonzero(log_probs[:, -1] <= np.log(config.sure))
    found = [np.zeros(0, np.int64)] * len(log_probs)
    frames = log_probs[open_]
    near = frames[:, :-1] >= frames.max(1, keepdims=True, initial=_NEVER) - config.margin
    rows, labels = np.divmod(np.flatnonzero(near), max(1, near.shape[1]))
    each = np.split(labels, np.searchsorted(rows, np.arange(1, len(open_))))
    for at, some in zip(open_.tolist(), each, strict=False):
        if len(some) > config.labels:
            some = np.sort(some[np.argpartition(-log_probs[at, some], config.labels - 1)[: config.labels]])
        found[at] = some
    return found
