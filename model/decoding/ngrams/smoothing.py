"""Counts to probabilities: add-k, absolute discounting, Katz, interpolated modified Kneser-Ney.

Source: Chen and Goodman, "An Empirical Study of Smoothing Techniques for Language Modeling" (Computer Speech and
Language 1999), sections 2 and 3; Good-Turing's discounts as in Katz (1987). Unigrams are interpolated with the uniform
distribution over all words but ``<s>``, so that ``<unk>`` is never impossible.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ...errors import DuologueError
from .backoff import BEGIN, IMPOSSIBLE, MARKS, NGramLM, Table, renormalised
from .counts import Counts, Say

SMOOTHINGS = ("kneser_ney", "absolute", "katz", "add_k")
_KATZ = 5  # counts above it are believed
_BEGIN = MARKS.index(BEGIN)


@dataclass(frozen=True, kw_only=True)
class SmoothingConfig:
    """How counts become probabilities."""

    smoothing: str = "kneser_ney"
    k: float = 0.1  # that add_k adds to every count
    discounts: tuple[float, ...] | None = None  # of counts 1, 2 …, the last of all higher ones; None: from the counts

    def __post_init__(self) -> None:
        if self.smoothing not in SMOOTHINGS:
            raise DuologueError(f"smoothing is {self.smoothing!r}; it must be one of {', '.join(SMOOTHINGS)}")
        if not self.k > 0:
            raise DuologueError(f"k is {self.k}; it must be above 0")
        if self.discounts is not None:
            if self.smoothing not in ("kneser_ney", "absolute"):
                raise DuologueError(f"discounts are for kneser_ney and absolute; {self.smoothing} has none")
            if not self.discounts or not all(0 < d <= at for at, d in enumerate(self.discounts, 1)):
                raise DuologueError(f"discounts are {self.discounts}; that of count n must be above 0 and at most n")


@dataclass(frozen=True)
class _Level:
    """One order's n-grams.

    parents: the row of each one's context in the order below. shorter: that of the n-gram without its first word.
    raw: counts (n,). counts: those that probabilities rest on. above: how many contexts there are.
    """

    keys: np.ndarray
    parents: np.ndarray
    shorter: np.ndarray
    raw: np.ndarray
    counts: np.ndarray
    above: int

    def totals(self, values: np.ndarray) -> np.ndarray:
        """Values (n,), added up for each context (above,)."""
        return np.bincount(self.parents, values, self.above)


def estimate(
    counts: Counts, config: SmoothingConfig | None = None, *, units: str = "words", say: Say | None = None
) -> NGramLM:
    """The model of these counts; ``say`` is told where counts are too few for discounts of their own."""
    config, say = config or SmoothingConfig(), say or (lambda line: None)
    levels, size = _levels(counts, config.smoothing == "kneser_ney"), len(counts.words)
    tables = {"add_k": _add_k, "katz": _katz}.get(config.smoothing, _interpolated)(levels, size, config, say)
    unigrams = tables[0].log_probs
    unigrams[_BEGIN] = IMPOSSIBLE
    model = NGramLM(counts.words, tuple(tables), units)
    return renormalised(model) if config.smoothing == "katz" else model


def _levels(counts: Counts, continuations: bool) -> list[_Level]:
    size, order, out = len(counts.words), len(counts.rows), list[_Level]()
    for m in range(1, order + 1):
        rows, raw = counts.rows[m - 1], counts.counts[m - 1]
        if m == 1:
            raw = np.bincount(rows[:, 0], raw, size)
            keys = np.arange(size)
            out.append(_Level(keys, np.zeros(size, np.int64), np.zeros(size, np.int64), raw, raw.copy(), 1))
            continue
        parents, shorter = _find(out, rows[:, :-1], size), _find(out, rows[:, 1:], size)
        out.append(_Level(parents * size + rows[:, -1], parents, shorter, raw, raw.astype(float), len(out[-1].keys)))
    if continuations:  # below the highest order: how many words were seen before it
        for m in range(order - 1, 0, -1):
            level, before = out[m - 1], np.bincount(out[m].shorter, minlength=len(out[m - 1].keys))
            begins = counts.rows[m - 1][:, 0] == _BEGIN if m > 1 else np.zeros(size, bool)
            level.counts[:] = np.where(begins, level.raw, before)
    out[0].counts[_BEGIN] = 0
    return out


def _find(levels: list[_Level], rows: np.ndarray, size: int) -> np.ndarray:
    """The row of each n-gram (n, m), all of which are there, in its own order."""
    found = rows[:, 0]
    for level, column in zip(levels[1:], rows[:, 1:].T, strict=False):
        found = np.searchsorted(level.keys, found * size + column)
    return found


def _interpolated(levels: list[_Level], size: int, config: SmoothingConfig, say: Say) -> list[Table]:
    """Each order's discounted counts, and what was taken from them times the order below."""
    tables, lower = list[Table](), np.full(1, 1 / (size - 1))
    for m, level in enumerate(levels, 1):
        discounts = np.array(config.discounts or _discounts(level.counts, m, config.smoothing, say))
        which = np.minimum(level.counts, len(discounts)).astype(int)
        taken = np.concatenate([[0.0], discounts])[which]
        totals = np.maximum(level.totals(level.counts), 1e-300)
        left = level.totals(taken) / totals  # (above,)
        probs = (level.counts - taken) / totals[level.parents] + left[level.parents] * lower[level.shorter]
        if m > 1:
            tables[-1].backoffs[:] = np.where(left > 0, np.log(np.maximum(left, 1e-300)), 0)
        tables.append(Table(keys=level.keys, log_probs=np.log(probs), backoffs=np.zeros(len(probs))))
        lower = probs
    return tables


def _discounts(counts: np.ndarray, m: int, smoothing: str, say: Say) -> tuple[float, ...]:
    """By Chen and Goodman's equation 26; for absolute discounting the one by Ney, Essen and Kneser (1994)."""
    n1, n2, n3, n4 = (int((counts == n).sum()) for n in (1, 2, 3, 4))
    if smoothing == "absolute":
        if n1 and n2:
            return (n1 / (n1 + 2 * n2),)
        say(f"order {m}: too few n-grams for a discount of their own; it is 0.5")
        return (0.5,)
    if n1 and n2 and n3 and n4:
        y = n1 / (n1 + 2 * n2)
        found = (1 - 2 * y * n2 / n1, 2 - 3 * y * n3 / n2, 3 - 4 * y * n4 / n3)
        if all(0 < d <= n for n, d in enumerate(found, 1)):
            return found
    say(f"order {m}: too few n-grams for discounts of their own; they are 0.5, 1 and 1.5")
    return (0.5, 1.0, 1.5)


def _katz(levels: list[_Level], size: int, config: SmoothingConfig, say: Say) -> list[Table]:
    """Good-Turing's discounts; back-off weights are what is left, once all tables are there."""
    tables = []
    for m, level in enumerate(levels, 1):
        fractions = np.array([1.0, *_good_turing(level.raw, m, say), 1.0])
        kept = level.raw * fractions[np.minimum(level.raw, _KATZ + 1).astype(int)] * (level.counts > 0)
        totals = level.totals(level.counts)
        full = totals - level.totals(kept) < 1e-9  # nothing left for other words: as if one more had been seen
        probs = kept / np.maximum(totals + full, 1e-300)[level.parents]
        if m == 1:
            probs = probs + (1 - probs.sum()) / (size - 1)
        log_probs = np.log(np.maximum(probs, 1e-300))
        tables.append(Table(keys=level.keys, log_probs=log_probs, backoffs=np.zeros(len(probs))))
    return tables


def _good_turing(counts: np.ndarray, m: int, say: Say) -> list[float]:
    """The fraction of each count from 1 to _KATZ that is kept."""
    n = [int((counts == r).sum()) for r in range(_KATZ + 2)]
    if all(n[1:]):
        far = (_KATZ + 1) * n[_KATZ + 1] / n[1]
        found = [((r + 1) * n[r + 1] / (r * n[r]) - far) / (1 - far) if far < 1 else 0 for r in range(1, _KATZ + 1)]
        if all(0 < d <= 1 for d in found):
            return found
    say(f"order {m}: too few n-grams for Good-Turing's discounts; 0.5 is taken from each count up to {_KATZ}")
    return [(r - 0.5) / r for r in range(1, _KATZ + 1)]


def _add_k(levels: list[_Level], size: int, config: SmoothingConfig, say: Say) -> list[Table]:
    """(c(h w) + k) / (c(h) + k V) for the longest contexts, and those that a sentence's beginning makes short; behind
    others, all words are equally probable: that is what is backed off to."""
    added, tables = config.k * (size - 1), list[Table]()
    whole = np.zeros(1, bool)  # contexts that nothing longer stands for
    for m, level in enumerate(levels, 1):
        whole = whole | (m == len(levels))
        totals = level.totals(level.counts)
        seen = (level.counts + config.k) / (totals + added)[level.parents]
        probs = np.where(whole[level.parents], seen, 1 / (size - 1))
        if m > 1:
            tables[-1].backoffs[:] = np.where(whole & (totals > 0), np.log(added / (totals + added)), 0.0)
        tables.append(Table(keys=level.keys, log_probs=np.log(probs), backoffs=np.zeros(len(probs))))
        whole = np.arange(size) == _BEGIN if m == 1 else whole[level.parents]
    return tables
