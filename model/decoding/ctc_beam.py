"""CTC prefix beam search: the likeliest texts of speech, n-grams and hot words heard as well.

    log-probabilities (T, V + 1) of labels, the blank last -> hypotheses, the best first, with scores

A hypothesis is a text, not an alignment: the probabilities of all alignments that write it are added, those that end in
a blank apart from those that end in its last label. What else is known of texts (:class:`.fusions.Fusion`) is added to
their scores as they grow (:mod:`.beam`). When each label of a text was said, :func:`.token_times.aligned` tells;
without a search, :func:`.token_times.best_path` gives the best label of each frame.

Frames that are surely blank let no text grow: most frames of speech are such, and cost next to nothing (Chen et al.,
"Phone Synchronous Decoding with CTC Lattice", Interspeech 2016, section 3).

Source: Hannun et al., "First-Pass Large Vocabulary Continuous Speech Recognition using Bi-Directional Recurrent DNNs"
(arXiv 1408.2873), algorithm 1.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .beam import NEVER, BeamConfig, Found, Texts
from .fusions import Fusion


class _Alignments:
    """Of the texts that are followed, by_blank, by_label: (W,) log-probabilities of their alignments so far."""

    def __init__(self, texts: Texts) -> None:
        self.texts = texts
        self.by_blank, self.by_label = np.zeros(1), np.full(1, NEVER)

    def stay(self, frame: np.ndarray) -> None:
        """A frame (V + 1,) that lets no text grow."""
        total = np.logaddexp(self.by_blank, self.by_label)
        self.by_label = self.by_label + frame[self.texts.last]  # of the empty text never
        self.by_blank = total + frame[-1]

    def go_on(self, frame: np.ndarray, labels: np.ndarray, config: BeamConfig) -> None:
        """A frame (V + 1,) with labels (K,) that a text may grow by; the best are kept."""
        texts, scores = self.texts, frame[labels]
        total = np.logaddexp(self.by_blank, self.by_label)
        stay_blank = total + frame[-1]
        same = frame[texts.last]
        stay_label = self.by_label + same
        repeats = texts.last[:, None] == labels  # (W, K)
        grow = np.where(repeats, self.by_blank[:, None], total[:, None]) + scores
        into, of = np.nonzero(texts.parent[:, None] == texts.text)  # texts that another one grows into
        if len(into):
            label = texts.last[into]
            before = np.where(texts.last[of] == label, self.by_blank[of], total[of])
            stay_label[into] = np.logaddexp(stay_label[into], before + same[into])
            row, column = np.nonzero(label[:, None] == labels)
            grow[of[row], column] = NEVER
        kept, row, column = texts.choose(np.logaddexp(stay_blank, stay_label), grow, labels, config)
        self.by_blank = np.concatenate([stay_blank[kept], np.full(len(row), NEVER)])
        self.by_label = np.concatenate([stay_label[kept], grow[row, column]])


def search(log_probs: np.ndarray, config: BeamConfig | None = None, fusions: Sequence[Fusion] = ()) -> list[Found]:
    """The likeliest texts, the best first; at most as many as the beam is wide.

    Args:
        log_probs: (T, V + 1), of labels and last the blank.
    """
    found = _followed(log_probs, config or BeamConfig(), Texts(fusions))
    ctc = np.logaddexp(found.by_blank, found.by_label)
    score = ctc + found.texts.finished()
    return [Found(labels=found.texts.labels(at), score=float(score[at]), ctc=float(ctc[at]))
            for at in np.argsort(-score, kind="stable").tolist()]  # fmt: skip


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
    found = _followed(log_probs, config, Texts(fusions, before))
    best = int(np.argmax(np.logaddexp(found.by_blank, found.by_label) + found.texts.finished(last)))
    return found.texts.labels(best), [state[best : best + 1] for state in found.texts.states]


def _followed(log_probs: np.ndarray, config: BeamConfig, texts: Texts) -> _Alignments:
    found = _Alignments(texts)
    for frame, labels in zip(log_probs.astype(np.float64), likely(log_probs, config), strict=True):
        if len(labels):
            found.go_on(frame, labels, config)
        else:
            found.stay(frame)
    return found


def likely(log_probs: np.ndarray, config: BeamConfig) -> list[np.ndarray]:
    """Of each frame of (T, V + 1), the labels that a text may grow by; none where it is surely blank."""
    open_ = np.flatnonzero(log_probs[:, -1] <= np.log(config.sure))
    found = [np.zeros(0, np.int64)] * len(log_probs)
    frames = log_probs[open_]
    near = frames[:, :-1] >= frames.max(1, keepdims=True, initial=NEVER) - config.margin
    rows, labels = np.divmod(np.flatnonzero(near), max(1, near.shape[1]))
    each = np.split(labels, np.searchsorted(rows, np.arange(1, len(open_))))
    for at, some in zip(open_.tolist(), each, strict=False):
        if len(some) > config.labels:
            some = np.sort(some[np.argpartition(-log_probs[at, some], config.labels - 1)[: config.labels]])
        found[at] = some
    return found
