"""Real speech, listed in a manifest.jsonl, as a data set at one rate and one loudness (see datasets/recordings.py).

    prepare recordings source=FOLDER out=data/people part=train
    prepare recordings source=FOLDER out=data/readers part=speech sets=readers recogniser=WHISPER held_out=0.5

With a recogniser, what nobody has written down is labelled by it, and cut between words where it is long. pocketsphinx
and a Whisper for CTranslate2 know when a word is said; transformers' guesses it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ...checkpoints.files import expanded
from ...checkpoints.recognisers.recogniser import RATE, Recogniser, find_recogniser
from ...model.errors import DuologueError
from ..datasets.pauses import SHORTEST_S, cut_between
from ..datasets.recordings import (
    CODEC_PARTS,
    HELD_OUT,
    LEVEL_DBFS,
    PEAK_DBFS,
    Part,
    describe,
    read_manifest,
    read_recording,
    select,
    set_loudness,
    words_of,
)
from ..datasets.shards import Clip, Failure, ShardWriter

_NEWER = ("recogniser", "language", "longest_s", "held_out")  # settings that the manifest leaves out where not given


@dataclass(frozen=True, kw_only=True)
class Config:
    """What is taken from where."""

    source: str  # folder with manifest.jsonl
    out: str  # folder of the data set
    part: str = "train"  # one of Part
    sets: str = ""  # only these sets of the manifest, with commas between; none named: all
    recogniser: str = ""  # what labels recordings without words, of the parts speech and speech_held_out: pocketsphinx,
    # or a folder or hub id of a Whisper; such recordings alone are taken then
    language: str = "en"  # of what it hears (ISO 639)
    longest_s: float = 12.0  # seconds a clip of what it labels; longer recordings are cut at pauses
    held_out: float = HELD_OUT  # fraction of the speakers in the part speech_held_out
    sample_rate: int = 16000  # Hz
    level_dbfs: float = LEVEL_DBFS  # root mean square where there is speech
    peak_dbfs: float = PEAK_DBFS  # no sample above this, the level gives way
    shard_clips: int = 500  # recordings a shard; a run resumes by whole shards

    def __post_init__(self) -> None:
        if self.part not in list(Part):
            raise DuologueError(f"part={self.part}: expected one of {', '.join(Part)}")
        if not self.level_dbfs < self.peak_dbfs <= 0:
            raise DuologueError(
                f"level_dbfs {self.level_dbfs} and peak_dbfs {self.peak_dbfs}: expected level < peak, peak at most 0"
            )
        if self.shard_clips < 1 or self.sample_rate < 1000:
            raise DuologueError(f"shard_clips {self.shard_clips}, sample_rate {self.sample_rate}: too small")
        if not 0 <= self.held_out <= 1:
            raise DuologueError(f"held_out={self.held_out}: expected a fraction from 0 to 1")
        if self.recogniser and self.part not in CODEC_PARTS:
            raise DuologueError(f"part={self.part}: a recogniser labels the parts {' and '.join(CODEC_PARTS)}")
        if self.recogniser and self.sample_rate != RATE:
            raise DuologueError(f"sample_rate={self.sample_rate}: a recogniser hears {RATE} Hz")
        if not self.longest_s >= 2 * SHORTEST_S:
            raise DuologueError(f"longest_s={self.longest_s:g}: expected at least {2 * SHORTEST_S:g} seconds")


def run(config: Config) -> dict[str, Any]:
    """Write one part as a data set (see shards.py) and return its counts: clips, failed, hours.

    A clip: text (as it is written, "" for a sound), spoken (its words, where they differ), voice ("fsdd:george",
    "esc10:dog bark"), set, licence, source; of a labelled piece also recogniser, and start and end in its recording
    (s). A recording that cannot be read, or has no words where its part wants some, is written down in failed.jsonl and
    skipped. Running it again does what is left.
    Raises DuologueError when the manifest is missing or wrong, when the part is empty, or for no such recogniser.
    """
    part = Part(config.part)
    sets = tuple(name for name in config.sets.split(",") if name)
    chosen = select(read_manifest(expanded(config.source)), part, sets, config.held_out)
    if config.recogniser:
        chosen = [entry for entry in chosen if not entry.get("text", "").strip() and not words_of(entry)]
    if not chosen:
        within = f" in the sets {config.sets}" if config.sets else ""
        kind = "recordings without words" if config.recogniser else "recordings"
        raise DuologueError(f"{config.source} has no {kind} of the part {config.part}{within}")
    usual = Config(source="", out="")
    left_out = {"source", "out", *(key for key in _NEWER if vars(config)[key] == vars(usual)[key])}
    parameters = {key: value for key, value in asdict(config).items() if key not in left_out}
    parameters |= {"recogniser": Path(config.recogniser).name} if config.recogniser else {}
    parameters["entries"] = len(chosen)  # where things lie does not decide what they are
    writer = ShardWriter(
        config.out, name=f"recordings-{config.part}", sample_rate=config.sample_rate, seed=0, parameters=parameters
    )
    recogniser: Recogniser | None = None
    for shard, start in enumerate(range(0, len(chosen), config.shard_clips)):
        if writer.has(shard):
            continue
        if config.recogniser and recogniser is None:
            recogniser = find_recogniser(config.recogniser, config.language)
        clips: list[Clip] = []
        failures: list[Failure] = []
        for entry in chosen[start : start + config.shard_clips]:
            try:
                meta = describe(entry, part)
                wave = read_recording(expanded(config.source) / entry["audio"], config.sample_rate)
            except DuologueError as error:
                failures.append(Failure(entry["audio"], str(error)))
                continue
            if recogniser is None:
                clips.append(Clip(_pcm(wave, config), meta))
                continue
            for found in _labelled(wave, meta, recogniser, config):
                (clips if isinstance(found, Clip) else failures).append(found)  # type: ignore[arg-type]
        writer.write(shard, clips, failures)
    return writer.finish()


def _labelled(
    wave: np.ndarray, meta: Mapping[str, Any], recogniser: Recogniser, config: Config
) -> Iterator[Clip | Failure]:
    """The pieces of a recording, each with what the recogniser hears in it."""
    heard = recogniser.words(wave)
    for number, (start, end, words) in enumerate(cut_between(heard, wave, RATE, config.longest_s)):
        name, text = f"{meta['id']}-{number}", " ".join(word.text for word in words)
        try:
            if not text:
                raise DuologueError("the recogniser heard no words")
            spoken = words_of({"text": text}) if config.language == "en" else text
        except DuologueError as error:
            yield Failure(name, str(error))
            continue
        yield Clip(_pcm(wave[start:end], config), {
            **meta, "id": name, "text": text, **({"spoken": spoken} if spoken != text else {}),
            "recogniser": Path(config.recogniser).name, "start": start / RATE, "end": end / RATE,
        })  # fmt: skip


def _pcm(wave: np.ndarray, config: Config) -> np.ndarray:
    """(n,) float32 -> int16 at the loudness of the set."""
    pcm = set_loudness(wave, config.sample_rate, config.level_dbfs, config.peak_dbfs)
    return np.rint(pcm * 32767).astype(np.int16)
