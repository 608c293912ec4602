"""N-gram models interpolated, and pruned.

Sources: Jelinek and Mercer (1980) for the weights by EM; Stolcke, "Entropy-based Pruning of Backoff Language Models"
(1998), section 3.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ...errors import DuologueError
from .backoff import BEGIN, END, IMPOSSIBLE, MARKS, NGramLM, Table, backoff_weights, renormalised


def em_weights(probabilities: np.ndarray, steps: int = 100) -> np.ndarray:
    """Weights (models,) by which the mixture of these probabilities (models, words) is likeliest; they sum to 1."""
    weights = np.full(len(probabilities), 1 / len(probabilities))
    for _ in range(steps):
        parts = weights[:, None] * probabilities
        new = (parts / np.maximum(parts.sum(0), 1e-300)).mean(1)
        if np.abs(new - weights).max() < 1e-6:
            break
        weights = new / new.sum()
    return weights


def held_out_weights(models: Sequence[NGramLM], sentences: Sequence[Sequence[str]]) -> np.ndarray:
    """:func:`em_weights` on text; words that no model knows count as ``<unk>``, those that one does not, as impossible
    in it."""
    known = set[str]().union(*(model.words for model in models))
    words = [[word if word in known else MARKS[0] for word in sentence] for sentence in sentences]
    flat = [word for sentence in words for word in (*sentence, END)]
    if not words:
        raise DuologueError("weights of an interpolation need held-out text; there is none")
    rows = [np.exp(m.score(words)[0]) * [word in m.index for word in flat] for m in models]
    return em_weights(np.stack(rows))


def interpolated(models: Sequence[NGramLM], weights: Sequence[float]) -> NGramLM:
    """One model of all their n-grams, whose probabilities are the weighted means; its back-off weights make every
    context sum to 1, so that what no model lists is near the mean, not equal to it.

    Raises:
        DuologueError: not one weight at least 0 for each, a sum other than 1, or models over different units.
    """
    if len(weights) != len(models) or min(weights) < 0 or abs(sum(weights) - 1) > 1e-6:
        raise DuologueError(f"weights are {list(weights)}; {len(models)} models need as many, which sum to 1")
    if len({model.units for model in models}) > 1:
        raise DuologueError(f"models over {' and '.join(model.units for model in models)} cannot be interpolated")
    words = (*MARKS, *dict.fromkeys(word for model in models for word in model.words[len(MARKS) :]))
    index, size, tables = {word: at for at, word in enumerate(words)}, len(words), list[Table]()
    own = [np.array([index[word] for word in model.words]) for model in models]
    for m in range(1, max(model.order for model in models) + 1):
        having = [(model, ids) for model, ids in zip(models, own, strict=True) if model.order >= m]
        rows = np.unique(np.concatenate([ids[model.rows(m)] for model, ids in having]), axis=0)
        mean = np.zeros(len(rows))
        for model, weight in zip(models, weights, strict=True):
            back = model.ids(words)  # words that it does not know are <unk> in a context, impossible behind one
            possible = (back[rows[:, -1]] > 0) | (rows[:, -1] == 0)
            mean += weight * np.exp(model.score_rows(back[rows])) * possible
        keys = _keys(tables, rows, size)
        log_probs = np.log(np.maximum(mean, np.exp(IMPOSSIBLE)))
        tables.append(Table(keys=keys, log_probs=log_probs, backoffs=np.zeros(len(keys))))
    return renormalised(NGramLM(words, tuple(tables), models[0].units))


def _keys(tables: Sequence[Table], rows: np.ndarray, size: int) -> np.ndarray:
    """Keys of n-grams (n, m) whose contexts are in the tables of the orders below."""
    keys = rows[:, 0]
    for m in range(1, rows.shape[1]):
        keys = keys * size + rows[:, m]
        if m < rows.shape[1] - 1:
            keys = np.searchsorted(tables[m].keys, keys)
    return keys


def pruned(model: NGramLM, threshold: float) -> NGramLM:
    """Without the n-grams whose removal, each by itself, raises the perplexity by a fraction below ``threshold``.

    Contexts of n-grams that stay, stay. Of a Kneser-Ney model more is lost than of others (Chelba et al. 2010), since
    its lower orders say how words continue, not how frequent they are.

    Raises:
        DuologueError: the threshold is not above 0.
    """
    if not threshold > 0:
        raise DuologueError(f"threshold is {threshold}; it must be above 0")
    size, rows_kept = len(model.words), [model.rows(m) for m in range(1, model.order + 1)]
    kept: list[np.ndarray] = [np.ones(len(rows), bool) for rows in rows_kept]
    for m in range(model.order, 1, -1):
        table, rows = model.tables[m - 1], rows_kept[m - 1]
        parents, above = table.keys // size, len(model.tables[m - 2].keys)
        probs, shorter = np.exp(table.log_probs), np.exp(model.score_rows(rows[:, 1:]))
        left, below = 1 - np.bincount(parents, probs, above)[parents], 1 - np.bincount(parents, shorter, above)[parents]
        now, then = backoff_weights(left, below), backoff_weights(left + probs, below + shorter)
        gained = probs * (np.log(shorter) + then - table.log_probs) + np.maximum(left, 0) * (then - now)
        entropy = -np.exp(_context_log_probs(model, rows[:, :-1])) * gained
        kept[m - 1] = np.expm1(entropy) >= threshold
        if m < model.order:
            kept[m - 1][np.unique(model.tables[m].keys[kept[m]] // size)] = True
    tables = [model.tables[0]]
    for m in range(2, model.order + 1):
        rows, table = rows_kept[m - 1][kept[m - 1]], model.tables[m - 1]
        if not len(rows):
            break
        tables.append(Table(keys=_keys(tables, rows, size), log_probs=table.log_probs[kept[m - 1]],
                            backoffs=np.zeros(len(rows))))  # fmt: skip
    return renormalised(NGramLM(model.words, tuple(tables), model.units))


def _context_log_probs(model: NGramLM, contexts: np.ndarray) -> np.ndarray:
    """How often contexts (n, m) come, m at least 1; a beginning as often as an end."""
    total, states = np.zeros(len(contexts)), model.begin(len(contexts), sentence=False)
    for column in contexts.T:
        scores, states = model.advance(states, column)
        ends = model.tables[0].log_probs[MARKS.index(END)]
        total += np.where(column == MARKS.index(BEGIN), ends, scores)
    return total
