"""A back-off n-gram model: log-probabilities of words behind contexts, many of them in one array operation.

Letters: V words, N the order, n rows. An n-gram of order m is a row of table m. Its key is the row of its first m - 1
words in table m - 1, times V, plus its last word; a table is sorted by its keys. So a context's continuations lie side
by side, and an n-gram's row is found by binary search.

    log p(w | h) = the entry of (h, w), if there is one; otherwise back-off weight of h + log p(w | h without its first)

Source: Katz, "Estimation of Probabilities from Sparse Data" (IEEE ASSP 1987), for the back-off form; all smoothings of
:mod:`.smoothing` are written in it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ...errors import DuologueError

UNKNOWN, BEGIN, END = "<unk>", "<s>", "</s>"
MARKS = (UNKNOWN, BEGIN, END)  # the first words of every vocabulary
IMPOSSIBLE = -99 * np.log(10)  # how ARPA writes a probability of 0
UNITS = ("words", "plain", "tokens")  # words as written; lower-case without punctuation; ids of a tokenizer


@dataclass(frozen=True, kw_only=True)
class Table:
    """The n-grams of one order.

    keys: (n,) int64, rising. log_probs, backoffs: (n,) float64, natural logarithms.
    """

    keys: np.ndarray
    log_probs: np.ndarray
    backoffs: np.ndarray


@dataclass(frozen=True)
class NGramLM:
    """An n-gram model.

    words: V, with MARKS first. tables: one of each order, N of them; the first has a row for each word.
    units: what a word is, one of UNITS.
    """

    words: tuple[str, ...]
    tables: tuple[Table, ...]
    units: str = "words"

    def __post_init__(self) -> None:
        if self.words[: len(MARKS)] != MARKS:
            raise DuologueError(f"a vocabulary must begin with {' '.join(MARKS)}, not {' '.join(self.words[:3])}")
        if self.units not in UNITS:
            raise DuologueError(f"units are {self.units!r}; they must be one of {', '.join(UNITS)}")
        if not self.tables or len(self.tables[0].keys) != len(self.words):
            raise DuologueError("an n-gram model needs a unigram for each word")

    @property
    def order(self) -> int:
        """N."""
        return len(self.tables)

    @cached_property
    def index(self) -> dict[str, int]:
        """{word: its id}."""
        return {word: at for at, word in enumerate(self.words)}

    def ids(self, words: Sequence[str]) -> np.ndarray:
        """(n,) ids; unknown words are ``<unk>``."""
        return np.array([self.index.get(word, 0) for word in words], np.int64)

    def knows(self, word: str) -> bool:
        """Whether a word has a probability of its own."""
        return word in self.index

    # A state is a row (N,): the row of the last k words in table k, for k from 0 (always 0) to N - 1; -1: not in it.

    def begin(self, n: int = 1, sentence: bool = True) -> np.ndarray:
        """States (n, N): at the beginning of a sentence, or of nothing known."""
        states = np.full((n, self.order), -1, np.int64)
        states[:, 0] = 0
        return self.advance(states, np.full(n, MARKS.index(BEGIN)))[1] if sentence else states

    def advance(self, states: np.ndarray, words: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """States (n, N), a word (n,) for each -> natural log-probabilities (n,), states (n, N) behind the words."""
        size, found = len(self.words), np.full((len(states), self.order + 1), -1, np.int64)
        found[:, 0], found[:, 1] = 0, words
        for m in range(2, self.order + 1):
            found[:, m] = _rows(self.tables[m - 1].keys, states[:, m - 1] * size + words, states[:, m - 1] >= 0)
        return self._log_probs(states, found), found[:, : self.order]

    def _log_probs(self, states: np.ndarray, found: np.ndarray) -> np.ndarray:
        """Of n-grams that end in a word, found (n, N + 1), behind states (n, N)."""
        longest = self.order - (found[:, :0:-1] >= 0).argmax(1)  # (n,), 1 at least
        scores = np.zeros(len(found))
        for m in range(1, self.order + 1):
            here = longest == m
            scores[here] = self.tables[m - 1].log_probs[found[here, m]]
        for k in range(1, self.order):  # the contexts that were too long
            backed = (longest <= k) & (states[:, k] >= 0)
            scores[backed] += self.tables[k - 1].backoffs[states[backed, k]]
        return scores

    def score(self, sentences: Sequence[Sequence[str]]) -> tuple[np.ndarray, np.ndarray]:
        """Each word of sentences, and their ends -> natural log-probabilities (n,), ids (n,)."""
        ends = np.array([MARKS.index(END)])
        marked = [part for words in sentences for part in (np.array([MARKS.index(BEGIN)]), self.ids(words), ends)]
        ids = np.concatenate(marked) if marked else np.zeros(0, np.int64)
        size, found = len(self.words), np.full((len(ids), self.order + 1), -1, np.int64)
        found[:, 0], found[:, 1] = 0, ids
        starts = ids == MARKS.index(BEGIN)
        for m in range(2, self.order + 1):
            before = np.concatenate([[-1], found[:-1, m - 1]])[: len(ids)]
            found[:, m] = _rows(self.tables[m - 1].keys, before * size + ids, (before >= 0) & ~starts)
        states = np.concatenate([found[:1, : self.order], found[:-1, : self.order]])
        kept = ~starts
        return self._log_probs(states[kept], found[kept]), ids[kept]

    def distribution(self, state: np.ndarray) -> np.ndarray:
        """Behind one state (N,): the probability of every word (V,); of ``<s>`` 0."""
        log_probs, size = self.tables[0].log_probs.copy(), len(self.words)
        for k in range(1, self.order):
            if state[k] >= 0:
                table = self.tables[k]
                first, last = np.searchsorted(table.keys, [state[k] * size, (state[k] + 1) * size])
                log_probs += self.tables[k - 1].backoffs[state[k]]
                log_probs[table.keys[first:last] - state[k] * size] = table.log_probs[first:last]
        return np.exp(log_probs) * (np.arange(size) != MARKS.index(BEGIN))

    def rows(self, m: int) -> np.ndarray:
        """The n-grams of order m as ids (n, m)."""
        keys, size = self.tables[m - 1].keys, len(self.words)
        if m == 1:
            return keys[:, None]
        return np.concatenate([self.rows(m - 1)[keys // size], (keys % size)[:, None]], axis=1)

    def score_rows(self, rows: np.ndarray) -> np.ndarray:
        """The last words of id rows (n, m) behind their first m - 1, which are all that is known -> (n,)."""
        states, scores = self.begin(len(rows), sentence=False), np.zeros(len(rows))
        for column in rows.T:
            scores, states = self.advance(states, column)
        return scores

    def sample(self, rng: np.random.Generator, most: int = 100) -> list[str]:
        """A sentence, of at most so many words."""
        state, said = self.begin(), list[str]()
        while len(said) < most:
            probabilities = self.distribution(state[0])
            word = int(rng.choice(len(self.words), p=probabilities / probabilities.sum()))
            if self.words[word] == END:
                break
            said.append(self.words[word])
            state = self.advance(state, np.array([word]))[1]
        return said


def _rows(keys: np.ndarray, wanted: np.ndarray, there: np.ndarray) -> np.ndarray:
    """Where each wanted key (n,) is among rising keys; -1: it is not, or was not ``there``."""
    if not len(keys):
        return np.full(len(wanted), -1, np.int64)
    at = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    return np.where(there & (keys[at] == wanted), at, -1)


def renormalised(model: NGramLM) -> NGramLM:
    """The same probabilities of the n-grams that are listed, and back-off weights by which every context sums to 1."""
    size = len(model.words)
    tables = [Table(keys=t.keys, log_probs=t.log_probs, backoffs=np.zeros(len(t.keys))) for t in model.tables]
    for m in range(2, model.order + 1):
        lower = NGramLM(model.words, tuple(tables[: m - 1]), model.units)
        rows, above = model.rows(m), len(tables[m - 2].keys)
        parents = tables[m - 1].keys // size
        shorter = np.exp(lower.score_rows(rows[:, 1:]))
        listed = np.bincount(parents, np.exp(tables[m - 1].log_probs), above)
        shadowed = np.bincount(parents, shorter, above)
        tables[m - 2].backoffs[:] = backoff_weights(1 - listed, 1 - shadowed)
        tables[m - 2].backoffs[np.bincount(parents, minlength=above) == 0] = 0.0
    return NGramLM(model.words, tuple(tables), model.units)


def backoff_weights(left: np.ndarray, below: np.ndarray) -> np.ndarray:
    """Logarithms of the probability left (n,) over what the shorter context gives to the same words (n,)."""
    open_ = below > 1e-9  # otherwise every word is listed
    ratio = np.where(open_, np.maximum(left, 0.0) / np.where(open_, below, 1.0), 1.0)
    return np.log(np.maximum(ratio, np.exp(IMPOSSIBLE)))
