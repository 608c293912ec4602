"""CTC prefix beam search: the likeliest texts of speech, n-grams and hot words heard as well.

    log-probabilities (T, V + 1) of labels, the blank last -> hypotheses, the best first, with scores

A hypothesis is a text, not an alignment: the probabilities of all alignments that write it are added, those that end in
a blank apart from those that end in its last label. What else is known of texts (:class:`Fusion`) is added to their
scores as they grow. When each label of a text was said, :func:`.token_times.aligned` tells.

Source: Hannun et al., "First-Pass Large Vocabulary Continuous Speech Recognition using Bi-Directional Recurrent DNNs"
(arXiv 1408.2873), algorithm 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from ..errors import DuologueError
from .hot_words import HotWords
from .ngrams.backoff import END, MARKS, NGramLM

_NEVER = -np.inf


@dataclass(frozen=True, kw_only=True)
class BeamConfig:
    """How far a search looks."""

    width: int = 8  # texts that are followed
    labels: int = 32  # that a text may go on with at a frame, the likeliest
    margin: float = 12.0  # nats below a frame's best label: those below are not tried; inf: all are
    bonus: float = 0.0  # for each label, against language models' liking for short texts

    def __post_init__(self) -> None:
        if self.width < 1 or self.labels < 1:
            raise DuologueError(f"a beam of width {self.width} and {self.labels} labels: both must be at least 1")
        if not self.margin > 0 or not np.isfinite(self.bonus):
            raise DuologueError(f"a beam's margin is {self.margin} and its bonus {self.bonus}: the margin must be "
                                "above 0, the bonus finite")  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Found:
    """A text. score: of CTC and of all that was fused. ctc: log-probability under CTC alone."""

    labels: tuple[int, ...]
    score: float
    ctc: float


class Fusion(Protocol):
    """What else is known of texts. A state is an array with a row for each text."""

    def begin(self) -> np.ndarray:
        """The state of one empty text, with one row."""

    def scores(self, states: np.ndarray, labels: np.ndarray) -> np.ndarray:
        """What each label (K,) would add to each of W texts: (W, K)."""

    def follow(self, states: np.ndarray, labels: np.ndarray) -> np.ndarray:
        """The states of W texts, each gone on with its label (W,)."""

    def finish(self, states: np.ndarray) -> np.ndarray:
        """What the end of the text adds (W,)."""


class HotWordFusion:
    """Hot words. A state is the automaton's."""

    def __init__(self, words: HotWords) -> None:
        self.words = words

    def begin(self) -> np.ndarray:
        return np.zeros(1, np.int64)

    def scores(self, states: np.ndarray, labels: np.ndarray) -> np.ndarray:
        every = np.repeat(states, len(labels)), np.tile(labels, len(states))
        return self.words.advance(*every)[0].reshape(len(states), len(labels))

    def follow(self, states: np.ndarray, labels: np.ndarray) -> np.ndarray:
        return self.words.advance(states, labels)[1]

    def finish(self, states: np.ndarray) -> np.ndarray:
        return self.words.finish(states)


class TokenFusion:
    """An n-gram model over labels.

    Args:
        words: (V,) the model's word for each label. weight: of its log-probabilities.
    """

    def __init__(self, model: NGramLM, words: np.ndarray, weight: float = 0.5) -> None:
        self.model, self.words, self.weight = model, words, weight

    def begin(self) -> np.ndarray:
        return self.model.begin()

    def scores(self, states: np.ndarray, labels: np.ndarray) -> np.ndarray:
        every = np.repeat(states, len(labels), 0), np.tile(self.words[labels], len(states))
        return self.weight * self.model.advance(*every)[0].reshape(len(states), len(labels))

    def follow(self, states: np.ndarray, labels: np.ndarray) -> np.ndarray:
        return self.model.advance(states, self.words[labels])[1]

    def finish(self, states: np.ndarray) -> np.ndarray:
        return self.weight * self.model.advance(states, np.full(len(states), MARKS.index(END)))[0]


class WordFusion:
    """An n-gram model over words, which a text's word is given to once the next one begins, or the text ends.

    Args:
        texts: what each label adds to a text; one that begins with a space begins a word.
        weight: of the model's log-probabilities. bonus: for each word.
    """

    def __init__(self, model: NGramLM, texts: Sequence[str], weight: float = 0.5, bonus: float = 0.0) -> None:
        self.model, self.texts, self.weight, self.bonus = model, texts, weight, bonus
        self.begins = np.array([text[:1].isspace() for text in texts])

    def begin(self) -> np.ndarray:
        state = np.empty((1, 2), object)  # the model's state, the word so far
        state[0, 0], state[0, 1] = self.model.begin()[0], ""
        return state

    def scores(self, states: np.ndarray, labels: np.ndarray) -> np.ndarray:
        return self._word(states)[0][:, None] * self.begins[labels]

    def follow(self, states: np.ndarray, labels: np.ndarray) -> np.ndarray:
        new = states.copy()
        if self.begins[labels].any():
            said = self._word(states)[1]
            for at in np.flatnonzero(self.begins[labels]):
                new[at, 0], new[at, 1] = said[at], ""
        for row, label in enumerate(labels.tolist()):
            new[row, 1] += self.texts[label]
        return new

    def finish(self, states: np.ndarray) -> np.ndarray:
        scores, said = self._word(states)
        return scores + self.weight * self.model.advance(said, np.full(len(said), MARKS.index(END)))[0]

    def _word(self, states: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """What the words so far are worth (W,), and the model's states behind them (W, N); no word: 0, as before."""
        words, before = [self._written(text) for text in states[:, 1]], np.stack(list(states[:, 0]))
        scores, after = self.model.advance(before, self.model.ids(words))
        there = np.array([bool(word) for word in words])
        return np.where(there, self.weight * scores + self.bonus, 0.0), np.where(there[:, None], after, before)

    def _written(self, text: str) -> str:
        """As the model writes words."""
        text = text.strip()
        return text if self.model.units != "plain" else "".join(c for c in text.lower() if c.isalnum() or c in "_'’")


def search(log_probs: np.ndarray, config: BeamConfig | None = None, fusions: Sequence[Fusion] = ()) -> list[Found]:
    """The likeliest texts, the best first; at most as many as the beam is wide.

    Args:
        log_probs: (T, V + 1), of labels and last the blank.
    """
    config = config or BeamConfig()
    blank = log_probs.shape[1] - 1
    nodes: list[tuple[int, int]] = [(-1, -1)]  # (parent, last label) of every text that was ever followed
    known: dict[tuple[int, int], int] = {}
    texts = np.zeros(1, np.int64)  # (W,), as nodes
    last, parent = np.array([-1]), np.array([-1])  # (W,)
    by_blank, by_label = np.zeros(1), np.full(1, _NEVER)  # (W,) log-probabilities of the alignments so far
    extra = np.zeros(1)  # (W,), what is fused
    states = [fusion.begin() for fusion in fusions]
    for frame in log_probs.astype(np.float64):
        labels = _likely(frame[:blank], frame.max() - config.margin, config.labels)
        total = np.logaddexp(by_blank, by_label)
        stay_blank = total + frame[blank]
        stay_label = by_label + np.where(last >= 0, frame[last], _NEVER)
        grow = np.where(last[:, None] == labels, by_blank[:, None], total[:, None]) + frame[labels]  # (W, K)
        rows = {text: at for at, text in enumerate(texts.tolist())}
        for at, above in enumerate(parent.tolist()):  # texts that another one grows into
            if (of := rows.get(above)) is not None:
                before = by_blank[of] if last[of] == last[at] else total[of]
                stay_label[at] = np.logaddexp(stay_label[at], before + frame[last[at]])
                grow[of, labels == last[at]] = _NEVER
        added = np.full(grow.shape, config.bonus)
        for fusion, state in zip(fusions, states, strict=True):
            added += fusion.scores(state, labels)
        stay = np.logaddexp(stay_blank, stay_label)
        ranks = np.concatenate([stay + extra, (grow + extra[:, None] + added).ravel()])
        best = np.argsort(-ranks, kind="stable")[: config.width]
        best = best[ranks[best] > _NEVER]
        kept, new = best[best < len(texts)], best[best >= len(texts)] - len(texts)
        rows_, columns = new // max(len(labels), 1), new % max(len(labels), 1)
        fresh = []
        for edge in zip(texts[rows_].tolist(), labels[columns].tolist(), strict=True):
            if edge not in known:
                known[edge] = len(nodes)
                nodes.append(edge)
            fresh.append(known[edge])
        states = [
            np.concatenate([state[kept], fusion.follow(state[rows_], labels[columns])]) if len(new) else state[kept]
            for fusion, state in zip(fusions, states, strict=True)
        ]
        extra = np.concatenate([extra[kept], (extra[:, None] + added)[rows_, columns]])
        by_blank = np.concatenate([stay_blank[kept], np.full(len(new), _NEVER)])
        by_label = np.concatenate([stay_label[kept], grow[rows_, columns]])
        last, parent = np.concatenate([last[kept], labels[columns]]), np.concatenate([parent[kept], texts[rows_]])
        texts = np.concatenate([texts[kept], np.array(fresh, np.int64)])
    for fusion, state in zip(fusions, states, strict=True):
        extra = extra + fusion.finish(state)
    ctc = np.logaddexp(by_blank, by_label)
    return [Found(labels=_labels(nodes, int(texts[at])), score=float((ctc + extra)[at]), ctc=float(ctc[at]))
            for at in np.argsort(-(ctc + extra), kind="stable")]  # fmt: skip


def _likely(scores: np.ndarray, least: float, most: int) -> np.ndarray:
    """The labels of at least so high a score; of many the best."""
    found = np.flatnonzero(scores >= least)
    if len(found) > most:
        found = found[np.argpartition(-scores[found], most - 1)[:most]]
    return np.sort(found)


def _labels(nodes: list[tuple[int, int]], node: int) -> tuple[int, ...]:
    out = []
    while node:
        node, label = nodes[node]
        out.append(label)
    return tuple(reversed(out))
