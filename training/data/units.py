"""The units of spoken replies, beside their recordings: ``units.jsonl`` in the folder of a data set.

One JSON object a clip: ``id``, ``units`` and ``durations`` (in frames of ``hop`` samples), both lists of integers.
Frame j of a clip is its samples j * hop to (j + 1) * hop. Semantic units have their repeats merged; the tokens of a
codec are as they came, and all last one frame.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ...checkpoints.files import expanded, numbered_json_lines
from ...data_prep.datasets.shards import Clip
from ...data_prep.speech.pitch import pitch
from ...model.errors import DuologueError
from .corpus import Corpus, to_float

UNITS_FILE = "units.jsonl"
SLACK = 2  # frames by which a clip's durations may miss its length: framing differs at the end


@dataclass(frozen=True)
class SpokenUnits:
    """The units of one clip, repeats merged, and how many frames each lasts: (U,) each."""

    units: np.ndarray
    durations: np.ndarray


def read_units(folder: str | Path, file: str = UNITS_FILE) -> dict[str, SpokenUnits]:
    """The units of every clip of a data set, by clip id.

    Raises:
        DuologueError: no such file, or a line that does not say how long each unit lasts.
    """
    path = expanded(folder) / file
    if not path.is_file():
        raise DuologueError(f"{path} is missing: prepare the units of {folder} first")
    table = {}
    for number, row in numbered_json_lines(path):
        try:
            units, durations = np.array(row["units"], np.int64), np.array(row["durations"], np.int64)
            name = row["id"]
        except (KeyError, TypeError, ValueError) as error:
            raise DuologueError(f"{path}, line {number}: expected id, units and durations ({error!r})") from None
        if units.shape != durations.shape or units.ndim != 1 or (units < 0).any() or (durations < 1).any():
            raise DuologueError(
                f"{path}, line {number}: clip {name} needs as many durations (at least 1) as units (at least 0)"
            )
        table[name] = SpokenUnits(units, durations)
    return table


class UnitCorpus:
    """Clips with their units, seen as one long recording from which crops of any length can be cut.

    Crops may span the end of one clip and the start of the next, so that short replies count for what they are.

    voices: names, of which each clip has one: its ``voice``, if all clips have such, or else its folder's.
    of: the voice of each folder.
    """

    def __init__(
        self, folders: tuple[str, ...], units: int, hop: int, file: str = UNITS_FILE,
        voices: tuple[str, ...] = (), of: tuple[str, ...] = (),
    ) -> None:  # fmt: skip
        self.corpus = Corpus(folders)
        self.hop = hop
        self.spoken: list[SpokenUnits] = []
        frames = []  # one array of frame-wise units a clip
        tables = [read_units(folder, file) for folder in folders]
        for folder, dataset, table in zip(folders, self.corpus.sets, tables, strict=True):
            for meta in dataset.metas:
                name, path = meta["id"], expanded(folder) / file
                if name not in table:
                    raise DuologueError(f"{path} has no units for clip {name}: prepare the units again")
                spoken = table[name]
                total, whole = int(spoken.durations.sum()), meta["samples"] // hop
                if abs(total - whole) > SLACK:
                    raise DuologueError(
                        f"{path}: units of clip {name} last {total} frames, its recording {whole} (of {hop} samples)"
                    )
                if len(spoken.units) and spoken.units.max() >= units:
                    raise DuologueError(
                        f"{path}: clip {name} has unit {spoken.units.max()}; the model's are 0 to {units - 1}"
                    )
                self.spoken.append(spoken)
                frames.append(np.repeat(spoken.units, spoken.durations)[:whole])
        self.frames = np.concatenate(frames)  # (all frames,)
        self.ends = np.cumsum([len(row) for row in frames])  # frame at which each clip ends
        self.speakers = self._speakers(folders, voices, of) if voices else np.zeros(len(self), np.int64)  # (clips,)
        self.speaker = np.repeat(self.speakers, [len(row) for row in frames])  # (all frames,)
        self._pitches: dict[int, np.ndarray] = {}

    def __len__(self) -> int:
        return len(self.spoken)

    def _speakers(self, folders: tuple[str, ...], voices: tuple[str, ...], of: tuple[str, ...]) -> np.ndarray:
        said = [str(meta["voice"]) for meta in self.corpus.metas]
        if not set(said) <= set(voices):
            if len(of) != len(folders):
                raise DuologueError(
                    f"clips are in the voices {', '.join(sorted(set(said)))}: voices must name these, or there must be "
                    f"one for each folder; there are {len(voices)} ({', '.join(voices)}) for {len(folders)}"
                )
            said = [of[self.corpus.place(clip)[0]] for clip in range(len(self))]
        return np.array([voices.index(name) for name in said], np.int64)

    def _pieces(self, start: int, length: int) -> Iterator[tuple[int, int, int]]:
        """(clip, its first frame, the frame after its last) of each piece of a crop."""
        clip, at = int(np.searchsorted(self.ends, start, side="right")), start
        while at < start + length:
            begin = int(self.ends[clip - 1]) if clip else 0
            until = min(int(self.ends[clip]), start + length)
            yield clip, at - begin, until - begin
            at, clip = until, clip + 1

    def crop(self, start: int, length: int) -> tuple[np.ndarray, np.ndarray]:
        """Frames from ``start`` on, of the long recording: units (length,), int16 samples (length * hop,)."""
        samples = [self.corpus[i].pcm[a * self.hop : b * self.hop] for i, a, b in self._pieces(start, length)]
        return self.frames[start : start + length], np.concatenate(samples)

    def pitch(self, start: int, length: int, pieces: int) -> np.ndarray:
        """Hz (length * pieces,) of the same frames, 0 where there is no voice; a clip's is measured once."""
        return np.concatenate(
            [self._pitch(i, pieces)[a * pieces : b * pieces] for i, a, b in self._pieces(start, length)]
        )

    def _pitch(self, clip: int, pieces: int) -> np.ndarray:
        """Hz of a whole clip, (frames * pieces,)."""
        if clip not in self._pitches:
            recording: Clip = self.corpus[clip]
            measured = pitch(to_float(recording.pcm), self.corpus.sets[0].sample_rate, self.hop // pieces)
            whole = len(recording.pcm) // self.hop * pieces
            self._pitches[clip] = measured[:whole].astype(np.float16)
        return self._pitches[clip].astype(np.float32)
