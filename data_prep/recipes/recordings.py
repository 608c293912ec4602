"""Real speech, listed in a manifest.jsonl, as a data set at one rate and one loudness (see datasets/recordings.py)."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from ...checkpoints.files import expanded
from ...model.errors import DuologueError
from ..datasets.recordings import (
    LEVEL_DBFS,
    PEAK_DBFS,
    Part,
    describe,
    read_manifest,
    read_recording,
    select,
    set_loudness,
)
from ..datasets.shards import Clip, Failure, ShardWriter


@dataclass(frozen=True, kw_only=True)
class Config:
    """What is taken from where."""

    source: str  # folder with manifest.jsonl
    out: str  # folder of the data set
    part: str = "train"  # one of Part
    sets: str = ""  # only these sets of the manifest, with commas between; none named: all
    sample_rate: int = 16000  # Hz
    level_dbfs: float = LEVEL_DBFS  # root mean square where there is speech
    peak_dbfs: float = PEAK_DBFS  # no sample above this, the level gives way
    shard_clips: int = 500

    def __post_init__(self) -> None:
        if self.part not in list(Part):
            raise DuologueError(f"part={self.part}: expected one of {', '.join(Part)}")
        if not self.level_dbfs < self.peak_dbfs <= 0:
            raise DuologueError(
                f"level_dbfs {self.level_dbfs} and peak_dbfs {self.peak_dbfs}: expected level < peak, peak at most 0"
            )
        if self.shard_clips < 1 or self.sample_rate < 1000:
            raise DuologueError(f"shard_clips {self.shard_clips}, sample_rate {self.sample_rate}: too small")


def run(config: Config) -> dict[str, Any]:
    """Write one part as a data set (see shards.py) and return its counts: clips, failed, hours.

    A clip: text (as it is written, "" for a sound), spoken (its words, where they differ), voice ("fsdd:george",
    "esc10:dog bark"), set, licence, source. A recording that cannot be read, or has no words where its part wants some,
    is written down in failed.jsonl and skipped. Running it again does what is left.
    Raises DuologueError when the manifest is missing or wrong, or when the part is empty.
    """
    part = Part(config.part)
    sets = tuple(name for name in config.sets.split(",") if name)
    chosen = select(read_manifest(expanded(config.source)), part, sets)
    if not chosen:
        within = f" in the sets {config.sets}" if config.sets else ""
        raise DuologueError(f"{config.source} has no recordings of the part {config.part}{within}")
    parameters = {**asdict(config), "entries": len(chosen)}
    del parameters["source"], parameters["out"]  # where things lie does not decide what they are
    writer = ShardWriter(
        config.out, name=f"recordings-{config.part}", sample_rate=config.sample_rate, seed=0, parameters=parameters
    )
    for shard, start in enumerate(range(0, len(chosen), config.shard_clips)):
        if writer.has(shard):
            continue
        clips, failures = [], []
        for entry in chosen[start : start + config.shard_clips]:
            try:
                meta = describe(entry, part)
                pcm = read_recording(expanded(config.source) / entry["audio"], config.sample_rate)
                pcm = set_loudness(pcm, config.sample_rate, config.level_dbfs, config.peak_dbfs)
            except DuologueError as error:
                failures.append(Failure(entry["audio"], str(error)))
                continue
            clips.append(Clip(np.rint(pcm * 32767).astype(np.int16), meta))
        writer.write(shard, clips, failures)
    return writer.finish()
