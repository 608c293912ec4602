"""Random crops of recordings, whatever is said in them: what a codec learns from.

A data set is seen as one long recording, its clips behind one another, so that short clips count for what they are.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from ...data_prep.datasets.shards import ShardedDataset
from ...data_prep.speech.pitch import check_tracker, periodicity, pitch, pyin
from ...model.errors import DuologueError
from .corpus import to_float


class Waveforms:
    """Crops of so many samples from several data sets, which take turns by their fractions.

    Raises:
        DuologueError: no data, another sample rate, a set shorter than a crop, fractions that do not fit the sets, or
            no such tracker of pitch.
    """

    def __init__(
        self,
        folders: tuple[str, ...],
        sample_rate: int,
        length: int,
        fractions: tuple[float, ...] = (),
        tracker: str = "autocorrelation",
    ) -> None:
        check_tracker(tracker)
        if not folders:
            raise DuologueError("no data: give at least one folder, for example data=work/recordings")
        self.sets = [ShardedDataset(folder) for folder in folders]
        self.sample_rate, self.length = sample_rate, length
        self._track = pyin if tracker == "pyin" else pitch
        self.ends = [np.cumsum([meta["samples"] for meta in one.metas]) for one in self.sets]
        for folder, one, ends in zip(folders, self.sets, self.ends, strict=True):
            if one.sample_rate != sample_rate:
                raise DuologueError(f"{folder} has a sample rate of {one.sample_rate} Hz; the codec's is {sample_rate}")
            if not len(ends) or ends[-1] < length:
                raise DuologueError(f"{folder} holds less than one crop of {length / sample_rate:g} s")
        seconds = np.array([ends[-1] for ends in self.ends], float)
        if fractions and (len(fractions) != len(folders) or min(fractions) <= 0):
            raise DuologueError(
                f"fractions are {fractions}; they must be as many as the data sets, {len(folders)}, above 0"
            )
        weights = np.array(fractions) if fractions else seconds
        self.chances = weights / weights.sum()
        self._measured: dict[tuple[int, int, int, int], np.ndarray] = {}

    def crops(self, rng: np.random.Generator, count: int, gain_db: tuple[float, float] = (0.0, 0.0)) -> Tensor:
        """(count, length) float32 in [-1, 1], each at a loudness of its own."""
        return self.samples(self.places(rng, count), rng, gain_db)

    def places(self, rng: np.random.Generator, count: int) -> list[tuple[int, int]]:
        """Where crops begin: (data set, sample)."""
        chosen = rng.choice(len(self.sets), count, p=self.chances)
        return [(int(which), int(rng.integers(0, self.ends[which][-1] - self.length + 1))) for which in chosen]

    def samples(
        self, places: list[tuple[int, int]], rng: np.random.Generator, gain_db: tuple[float, float] = (0.0, 0.0)
    ) -> Tensor:
        """(count, length) float32 in [-1, 1] from those places on, each at a loudness of its own."""
        rows = []
        for which, start in places:
            clips = self.sets[which]
            wave = to_float(np.concatenate([clips[clip].pcm[a:b] for clip, a, b in self._pieces(which, start)]))
            gain = 10 ** (rng.uniform(*gain_db) / 20)
            rows.append(wave * min(gain, 1 / max(float(np.abs(wave).max()), 1e-3)))
        return torch.from_numpy(np.stack(rows).astype(np.float32))

    def voice(self, places: list[tuple[int, int]], hop: int, bands: int = 0) -> tuple[Tensor, Tensor]:
        """Hz (count, length // hop) float32 in the middle of each hop of the same crops, 0 where there is no voice, and
        periodic fractions (count, length // hop, bands) of it.

        A clip is measured once, in hops of its own: a value is of the hop that the middle falls into.
        """
        rows = self._rows(places, hop, bands)
        return rows[..., 0], rows[..., 1:]

    def _rows(self, places: list[tuple[int, int]], hop: int, bands: int) -> Tensor:
        """(count, length // hop, 1 + bands) of the crops' hops."""
        middles = np.arange(self.length // hop) * hop + hop // 2
        rows = []
        for which, start in places:
            row, at = [], 0
            for clip, a, b in self._pieces(which, start):
                inside = middles[(middles >= at) & (middles < at + b - a)] - at + a  # samples of the clip
                found = self._voice(which, clip, hop, bands)
                row.append(found[(inside // hop).clip(max=len(found) - 1)])
                at += b - a
            rows.append(np.concatenate(row))
        return torch.from_numpy(np.stack(rows).astype(np.float32))

    def _voice(self, which: int, clip: int, hop: int, bands: int) -> np.ndarray:
        """Hz and periodic fractions of a whole clip's hops, (at least one, 1 + bands)."""
        if (which, clip, hop, bands) not in self._measured:
            samples = to_float(self.sets[which][clip].pcm)
            hertz = self._track(samples, self.sample_rate, hop)
            found = np.concatenate([hertz[:, None], periodicity(samples, self.sample_rate, hop, hertz, bands)], axis=1)
            self._measured[which, clip, hop, bands] = (found if len(found) else np.zeros((1, 1 + bands))).astype("f2")
        return self._measured[which, clip, hop, bands]

    def _pieces(self, which: int, start: int) -> Iterator[tuple[int, int, int]]:
        """(clip, its first sample, the sample after its last) of each piece of a crop, through as many as it takes."""
        ends, at = self.ends[which], start
        clip = int(np.searchsorted(ends, start, side="right"))
        while at < start + self.length:
            begin = int(ends[clip - 1]) if clip else 0
            until = min(int(ends[clip]), start + self.length)
            yield clip, at - begin, until - begin
            at, clip = until, clip + 1
