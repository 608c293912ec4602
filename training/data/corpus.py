"""Batches of speech from sharded data sets: which utterances make a batch, and their padded samples.

Everything is keyed by (seed, epoch, utterance), never by the order in which processes ask.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...data_prep.datasets.live import lengths_of, open_dataset
from ...data_prep.datasets.shards import Clip, Computed
from ...model.errors import DuologueError


class Corpus:
    """Several data sets as one list of clips with their lengths in samples.

    A data set is a folder, or ``live:RECIPE?…``: spoken while it is trained on (see data_prep/datasets/live.py).
    """

    def __init__(self, folders: tuple[str, ...]) -> None:
        if not folders:
            raise DuologueError("no data: give at least one folder, for example data=work/questions")
        self.sets = [open_dataset(folder) for folder in folders]
        self.starts = np.cumsum([0] + [len(s) for s in self.sets])
        if self.starts[-1] == 0:
            raise DuologueError(f"no clips in {', '.join(folders)}; prepare the data first (duologue prepare)")
        self.metas = Computed(len(self), self._meta)
        self.lengths = np.concatenate([lengths_of(s) for s in self.sets])

    def __len__(self) -> int:
        return int(self.starts[-1])

    def __getitem__(self, index: int) -> Clip:
        part, at = self.place(index)
        return self.sets[part][at]

    def _meta(self, index: int) -> dict[str, Any]:
        part, at = self.place(index)
        return self.sets[part].metas[at]

    def earlier(self, index: int, question: str, answer: str, rng: np.random.Generator) -> int | None:
        """A clip in which an earlier turn of a clip's conversation is said; None: there is none."""
        meta, part = self.metas[index], self.place(index)[0]
        found = [
            other
            for other in self._conversations.get((part, meta.get("conversation")), ())
            if (past := self.metas[other]).get("turn", 0) < meta.get("turn", 0)
            and (past["text"], past.get("answer")) == (question, answer)
        ]
        return found[int(rng.integers(len(found)))] if found else None

    @functools.cached_property
    def _conversations(self) -> dict[tuple[int, Any], list[int]]:
        """The clips of each conversation, by data set and name."""
        found: dict[tuple[int, Any], list[int]] = {}
        for index, meta in enumerate(self.metas):
            if meta.get("conversation") is not None:
                found.setdefault((self.place(index)[0], meta["conversation"]), []).append(index)
        return found

    def place(self, index: int) -> tuple[int, int]:
        """Which set, and which of its clips."""
        part = int(np.searchsorted(self.starts, index, side="right")) - 1
        return part, index - int(self.starts[part])


class Plan:
    """Which items make batch ``number``: each epoch visits every item once, in batches of similar length.

    The ``together`` batches of a step are of similar length too, so that processes need not wait for each other.
    """

    def __init__(self, lengths: np.ndarray, batch_size: int, seed: int, together: int = 1) -> None:
        self.lengths, self.batch_size, self.seed, self.together = lengths, batch_size, seed, together
        self.batches_per_epoch = -(-len(lengths) // batch_size)
        self._epoch = functools.lru_cache(maxsize=2)(self._shuffle)

    def _shuffle(self, epoch: int) -> list[np.ndarray]:
        rng = np.random.default_rng((self.seed, epoch))
        # Lengths jittered by 10 % before sorting: neighbours are alike, yet never the same batch twice.
        order = np.argsort(self.lengths * rng.uniform(0.9, 1.1, len(self.lengths)), kind="stable")
        batches = [order[i : i + self.batch_size] for i in range(0, len(order), self.batch_size)]
        steps = [batches[i : i + self.together] for i in range(0, len(batches), self.together)]
        rng.shuffle(steps)
        return [batch for step in steps for batch in step]

    def __call__(self, number: int) -> tuple[int, np.ndarray]:
        """The epoch and the items of batch ``number``."""
        epoch, place = divmod(number, self.batches_per_epoch)
        return epoch, self._epoch(epoch)[place]


def dev_sets(folders: tuple[str, ...]) -> Iterator[tuple[str, Corpus]]:
    """Held-out data sets, each by the name that its metrics have: the last of its path."""
    return ((folder.rstrip("/").split("/")[-1], Corpus((folder,))) for folder in folders)


def recordings_of(folder: str | None) -> list[np.ndarray]:
    """All clips of a data set, (n,) float32 each; none where none is named."""
    if folder is None:
        return []
    corpus = Corpus((folder,))
    return [to_float(corpus[index].pcm) for index in range(len(corpus))]


def to_float(pcm: np.ndarray) -> np.ndarray:
    """int16 samples -> float32 in [-1, 1)."""
    return pcm.astype(np.float32) / 32768.0


def pad(waves: list[np.ndarray], multiple: int = 1600) -> tuple[Tensor, Tensor]:
    """Waves of any length -> (B, n) zero-padded float32, n a multiple, and (B,) their lengths in samples."""
    lengths = torch.tensor([len(wave) for wave in waves])
    longest = -(-int(lengths.max()) // multiple) * multiple
    batch = torch.zeros(len(waves), longest)
    for row, wave in zip(batch, waves, strict=True):
        row[: len(wave)] = torch.from_numpy(wave)
    return batch, lengths
