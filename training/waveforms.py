"""Random crops of recordings, whatever is said in them: what a codec learns from.

A data set is seen as one long recording, its clips behind one another, so that short clips count for what they are.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ..data_prep.shards import ShardedDataset
from ..model.errors import DuologueError
from .data import to_float


class Waveforms:
    """Crops of so many samples from several data sets, which take turns by their shares.

    Raises:
        DuologueError: no data, another sample rate, a set shorter than a crop, or shares that do not fit the sets.
    """

    def __init__(self, folders: tuple[str, ...], sample_rate: int, length: int, shares: tuple[float, ...] = ()) -> None:
        if not folders:
            raise DuologueError("no data: give at least one folder, for example data=work/recordings")
        self.sets = [ShardedDataset(folder) for folder in folders]
        self.length = length
        self.ends = [np.cumsum([meta["samples"] for meta in one.metas]) for one in self.sets]
        for folder, one, ends in zip(folders, self.sets, self.ends, strict=True):
            if one.sample_rate != sample_rate:
                raise DuologueError(f"{folder} has a sample rate of {one.sample_rate} Hz; the codec's is {sample_rate}")
            if not len(ends) or ends[-1] < length:
                raise DuologueError(f"{folder} holds less than one crop of {length / sample_rate:g} s")
        seconds = np.array([ends[-1] for ends in self.ends], float)
        if shares and (len(shares) != len(folders) or min(shares) <= 0):
            raise DuologueError(f"shares are {shares}; they must be as many as the data sets, {len(folders)}, above 0")
        weights = np.array(shares) if shares else seconds
        self.chances = weights / weights.sum()

    def crops(self, rng: np.random.Generator, count: int, gain_db: tuple[float, float] = (0.0, 0.0)) -> Tensor:
        """(count, length) float32 in [-1, 1], each at a loudness of its own."""
        rows = []
        for which in rng.choice(len(self.sets), count, p=self.chances):
            start = int(rng.integers(0, self.ends[which][-1] - self.length + 1))
            wave = to_float(self._cut(int(which), start))
            gain = 10 ** (rng.uniform(*gain_db) / 20)
            rows.append(wave * min(gain, 1 / max(float(np.abs(wave).max()), 1e-3)))
        return torch.from_numpy(np.stack(rows).astype(np.float32))

    def _cut(self, which: int, start: int) -> np.ndarray:
        """int16 (length,) from ``start`` on, through as many clips as it takes."""
        ends, pieces, at = self.ends[which], [], start
        clip = int(np.searchsorted(ends, start, side="right"))
        while at < start + self.length:
            begin = int(ends[clip - 1]) if clip else 0
            until = min(int(ends[clip]), start + self.length)
            pieces.append(self.sets[which][clip].pcm[at - begin : until - begin])
            at, clip = until, clip + 1
        return np.concatenate(pieces)
