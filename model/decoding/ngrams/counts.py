"""N-grams counted, of corpora larger than memory: sorted runs on disk, merged.

    sentences -> ids with sentence marks -> n-grams of each order, sorted and counted in blocks -> runs -> Counts

A block that is all there is never touches the disk. What must fit into memory is a block and the distinct n-grams.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ...errors import DuologueError
from .backoff import BEGIN, END, MARKS

BLOCK = 4_000_000  # words that are sorted at once
_MERGED = 1 << 16  # n-grams of a run that are read at once
Sentences = Callable[[], Iterable[Sequence[str]]]
Say = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class Counts:
    """How often each n-gram was seen.

    words: V. rows: of each order m the n-grams as ids (n, m), sorted. counts: (n,) int64 of each order.
    An n-gram lies in one sentence, which begins with one ``<s>`` and ends with ``</s>``.
    """

    words: tuple[str, ...]
    rows: tuple[np.ndarray, ...]
    counts: tuple[np.ndarray, ...]


def vocabulary(sentences: Iterable[Sequence[str]], least: int = 1) -> tuple[str, ...]:
    """The words that are seen at least so many times, the frequent first, behind the marks."""
    seen = Counter[str]()
    for words in sentences:
        seen.update(words)
    for mark in MARKS:
        if seen.pop(mark, 0) and mark != MARKS[0]:
            raise DuologueError(f"the corpus has the word {mark}, which marks where sentences begin or end: remove it")
    found = sorted((-count, word) for word, count in seen.items() if count >= least)
    return (*MARKS, *(word for _, word in found))


def count(sentences: Sentences, words: Sequence[str], order: int, *, block: int = BLOCK, say: Say | None = None,
          folder: Path | None = None) -> Counts:  # fmt: skip
    """Count the n-grams of orders 1 to ``order``.

    Args:
        sentences: gives them from the first on. words: the vocabulary; all others are ``<unk>``.
        block: words that are sorted at once. folder: for the runs; None: the system's for temporary files.

    Raises:
        DuologueError: order is below 1, or there are no sentences.
    """
    if order < 1:
        raise DuologueError(f"order is {order}; it must be at least 1")
    index, say = {word: at for at, word in enumerate(words)}, say or (lambda line: None)
    with tempfile.TemporaryDirectory(dir=folder, prefix="ngrams-") as place:
        runs: list[list[tuple[np.ndarray, np.ndarray]]] = [[] for _ in range(order)]
        done, written = 0, False
        for ids, last in _blocks(sentences(), index, block):
            done += len(ids)
            for m in range(1, order + 1):
                keys, counts = np.unique(_ngrams(ids, m), return_counts=True)
                if not (last and not written):
                    keys, counts = _on_disk(Path(place) / f"{m}-{len(runs[m - 1])}", keys, counts)
                runs[m - 1].append((keys, counts))
            written = True
            say(f"{done:,} words counted")
        if not written:
            raise DuologueError("there are no sentences to count n-grams of")
        merged = [_merged(of_order) for of_order in runs]
    rows = [keys.view(">u4").reshape(len(keys), -1).astype(np.int64) for keys, _ in merged]
    return Counts(words=tuple(words), rows=tuple(rows), counts=tuple(counts for _, counts in merged))


def _blocks(sentences: Iterable[Sequence[str]], index: dict[str, int], size: int) -> Iterator[tuple[np.ndarray, bool]]:
    """Ids of whole sentences with their marks, (n,) each, and whether they are the last."""
    begin, end, ready = MARKS.index(BEGIN), MARKS.index(END), list[int]()
    before: np.ndarray | None = None
    for words in sentences:
        ready.append(begin)
        ready += [index.get(word, 0) for word in words]
        ready.append(end)
        if len(ready) >= size:
            if before is not None:
                yield before, False
            before, ready = np.array(ready, ">u4"), []
    if before is not None:
        yield before, not ready
    if ready:
        yield np.array(ready, ">u4"), True


def _ngrams(ids: np.ndarray, m: int) -> np.ndarray:
    """Those of order m within sentences, each as 4 m bytes that sort as the ids do."""
    if len(ids) < m:
        return np.zeros(0, f"V{4 * m}").view(f"S{4 * m}")
    windows = np.lib.stride_tricks.sliding_window_view(ids, m)  # (n, m)
    within = ~(windows[:, :-1] == MARKS.index(END)).any(1)
    return np.ascontiguousarray(windows[within]).view(f"S{4 * m}")[:, 0]


def _on_disk(path: Path, keys: np.ndarray, counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The same run, read from a file as far as it is looked at."""
    names = path.with_suffix(".keys.npy"), path.with_suffix(".counts.npy")
    for name, values in zip(names, (keys, counts), strict=True):
        np.save(name, values)
    return np.load(names[0], mmap_mode="r"), np.load(names[1], mmap_mode="r")


def _merged(runs: list[tuple[np.ndarray, np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
    """Sorted runs as one, counts of the same n-gram added; each time all up to the least end of the next pieces."""
    if len(runs) == 1:
        return np.asarray(runs[0][0]), np.asarray(runs[0][1])
    at, out = [0] * len(runs), list[tuple[np.ndarray, np.ndarray]]()
    while open_ := [i for i, (keys, _) in enumerate(runs) if at[i] < len(keys)]:
        limit = min(runs[i][0][min(at[i] + _MERGED, len(runs[i][0])) - 1] for i in open_)
        pieces = []
        for i in open_:
            keys, counts = runs[i]
            upto = at[i] + int(np.searchsorted(keys[at[i] : at[i] + _MERGED], limit, side="right"))
            pieces.append((keys[at[i] : upto], counts[at[i] : upto]))
            at[i] = upto
        found, where = np.unique(np.concatenate([keys for keys, _ in pieces]), return_inverse=True)
        added = np.zeros(len(found), np.int64)
        np.add.at(added, where, np.concatenate([counts for _, counts in pieces]))
        out.append((found, added))
    return np.concatenate([keys for keys, _ in out]), np.concatenate([counts for _, counts in out])
