"""ARPA, the text format of n-gram models that SRILM and kenlm read: base-10 logarithms, one n-gram a line.

A first line says what its words are ("# duologue units: tokens"); other programs skip it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

import numpy as np

from ...errors import DuologueError
from .backoff import IMPOSSIBLE, MARKS, NGramLM, Table

_UNITS = "# duologue units: "
_TEN = np.log(10)


def written(model: NGramLM, digits: int = 7) -> Iterator[str]:
    """The lines of its file, with their ends; numbers in so many digits."""
    yield f"{_UNITS}{model.units}\n\\data\\\n"
    yield from (f"ngram {m}={len(table.keys)}\n" for m, table in enumerate(model.tables, 1))
    words = np.array(model.words, object)
    for m, table in enumerate(model.tables, 1):
        yield f"\n\\{m}-grams:\n"
        texts = (" ".join(row) for row in words[model.rows(m)])
        scores, backoffs = (table.log_probs / _TEN).tolist(), (table.backoffs / _TEN).tolist()
        for text, score, backoff in zip(texts, scores, backoffs, strict=True):
            behind = f"\t{backoff:.{digits}g}\n" if m < model.order else "\n"
            yield f"{score:.{digits}g}\t{text}{behind}"
    yield "\n\\end\\\n"


def read(lines: Iterable[str], name: str) -> NGramLM:
    """The model of an ARPA file's lines.

    Raises:
        DuologueError: ``name``, the line and what is wrong with it.
    """
    units, sizes, m, ended = "words", list[int](), 0, False
    found: list[list[tuple[list[str], float, float]]] = []

    def wrong(at: int, what: str) -> DuologueError:
        return DuologueError(f"{name}, line {at}: {what}")

    begun = False
    for at, line in enumerate(lines, 1):
        text = line.strip(" \t\r\n")
        if not begun:
            units = text.removeprefix(_UNITS) if text.startswith(_UNITS) else units
            begun = text == "\\data\\"
        elif size := re.fullmatch(r"ngram\s+(\d+)\s*=\s*(\d+)", text):
            sizes.append(int(size[2]))
            if int(size[1]) != len(sizes):
                raise wrong(at, f"the size of order {len(sizes)} must come here, not that of {size[1]}")
        elif section := re.fullmatch(r"\\(\d+)-grams:", text):
            m = m + 1
            if int(section[1]) != m or m > len(sizes):
                raise wrong(at, f"{text} is out of order, or has no size above")
            found.append([])
        elif text == "\\end\\":
            ended = True
            break
        elif text and m:
            parts = text.split()
            try:
                score, ngram = float(parts[0]), parts[1 : m + 1]
                backoff = float(parts[m + 1]) if len(parts) > m + 1 else 0.0
                if len(ngram) < m or len(parts) > m + 2 or not score < 1e-6 or not np.isfinite(backoff):
                    raise ValueError
            except ValueError:
                raise wrong(at, f"{text[:60]!r} is no {m}-gram: log10 probability, words, back-off") from None
            found[-1].append((ngram, score, backoff))
    if not ended or [len(each) for each in found] != sizes or not sizes:
        raise DuologueError(f"{name} is no whole ARPA file: it announces {sizes} n-grams, has "
                            f"{[len(each) for each in found]}{'' if ended else ', and no end'}")  # fmt: skip
    return _built(found, units, name)


def _built(found: list[list[tuple[list[str], float, float]]], units: str, name: str) -> NGramLM:
    seen = {ngram[0] for ngram, _, _ in found[0]}
    for mark in MARKS:
        if mark not in seen:
            found[0].append(([mark], IMPOSSIBLE / _TEN, 0.0))
    words = (*MARKS, *(ngram[0] for ngram, _, _ in found[0] if ngram[0] not in MARKS))
    index = {word: at for at, word in enumerate(words)}
    if len(index) < len(words):
        raise DuologueError(f"{name} has a unigram twice")
    tables = list[Table]()
    for of_order in found:
        try:
            rows = np.array([[index[word] for word in ngram] for ngram, _, _ in of_order], np.int64)
        except KeyError as error:
            raise DuologueError(f"{name} has the word {error} in an n-gram, and not as a unigram") from None
        rows, keys = rows.reshape(len(of_order), -1), np.zeros(0, np.int64)
        for m, column in enumerate(rows.T):
            keys = keys * len(words) + column if m else column
            if m < rows.shape[1] - 1:
                at = np.minimum(np.searchsorted(tables[m].keys, keys), len(tables[m].keys) - 1)
                if (missing := tables[m].keys[at] != keys).any():
                    lost = " ".join(words[i] for i in rows[int(missing.argmax())])
                    raise DuologueError(f"{name} has the n-gram {lost!r}, and not the context that it begins with")
                keys = at
        order = np.argsort(keys, kind="stable")
        scores = np.array([(score, backoff) for _, score, backoff in of_order]).reshape(-1, 2)[order] * _TEN
        if (np.diff(keys[order]) == 0).any():
            raise DuologueError(f"{name} has an n-gram of order {rows.shape[1]} twice")
        tables.append(Table(keys=keys[order], log_probs=scores[:, 0], backoffs=scores[:, 1].copy()))
    return NGramLM(words, tuple(tables), units)
