"""Clips in which nobody speaks: what a model must hear nothing in.

    duologue prepare no_speech out=data/none n=2000 source=recordings

Recordings of sounds, where a source is given, and made ones: silence, noises of all colours, mains hum, babble without
words, breaths, clicks, notes; each over a floor of faint noise, at any level. The text is empty, the `verdict` noise.
With `reply` and `rejected` they are pairs for `train dpo`: what is answered, and what somebody else was answered.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ...checkpoints.files import expanded
from ...model.errors import DuologueError
from ..datasets.conversations import read_conversations
from ..datasets.recordings import Part, read_manifest, read_recording, select
from ..datasets.shard_runs import LEAST, require_at_least, run_clips
from ..datasets.shards import Clip
from ..sounds.made import MADE
from ..sounds.noise import NOISE_KINDS, NoiseKind, cut, noise_bank
from ..speech.engine import SAMPLE_RATE

SILENCE = "silence"
FLOORS: tuple[NoiseKind, ...] = ("white", "pink")
KINDS = (SILENCE, *NOISE_KINDS, *MADE)


@dataclass(frozen=True, kw_only=True)
class Config:
    """
    source: a folder of recordings with manifest.jsonl (see `prepare recordings`); empty: made sounds alone
    out: the folder, made if need be
    n: clips in all
    part: noises, or noises_dev for the recordings kept apart
    recorded: the fraction of clips that are recordings, where there is a source
    shortest_s, longest_s: seconds a clip
    reply: what is answered; empty: nothing
    rejected: a file of conversations, of which each clip has one reply as a worse answer; empty: none
    seed, workers, shard_size: as in `prepare questions`
    """

    out: str
    source: str = ""
    n: int = 2000
    part: str = "noises"
    recorded: float = 0.5
    shortest_s: float = 0.4
    longest_s: float = 8.0
    reply: str = ""
    rejected: str = ""
    seed: int = 0
    workers: int = 0
    shard_size: int = 250

    def __post_init__(self) -> None:
        require_at_least(self, LEAST)
        if self.part not in (Part.NOISES, Part.NOISES_DEV):
            raise DuologueError(f"part={self.part}: expected noises or noises_dev")
        if not 0 <= self.recorded <= 1:
            raise DuologueError(f"recorded={self.recorded}: expected a fraction from 0 to 1")
        if self.rejected and not self.reply:
            raise DuologueError(f"rejected={self.rejected} without reply=, the better answer")
        if not 0.1 <= self.shortest_s <= self.longest_s <= 60:
            raise DuologueError(
                f"shortest_s={self.shortest_s:g}, longest_s={self.longest_s:g}: expected 0.1 to 60, the shortest first"
            )


@functools.cache
def _recordings(source: str, part: Part) -> tuple[dict[str, Any], ...]:
    found = tuple(select(read_manifest(expanded(source)), part))
    if not found:
        raise DuologueError(f"{source} has no recordings of the part {part}")
    return found


@functools.cache
def _replies(config: Config) -> tuple[str, ...]:
    """Those of the conversations, but for the better answer itself."""
    turns = (turn for one in read_conversations(config.rejected) for turn in one.turns)
    found = dict.fromkeys(turn.reply for turn in turns if turn.reply and turn.reply != config.reply)
    if not found:
        raise DuologueError(f"{config.rejected} has no reply that could be a worse answer than {config.reply!r}")
    return tuple(found)


@functools.lru_cache(maxsize=64)
def _wave(path: Path) -> np.ndarray:
    return read_recording(path, SAMPLE_RATE)


def no_speech_clip(index: int, config: Config) -> Clip:
    """The ``index``-th clip. Raises DuologueError for a recording that cannot be read."""
    rng = np.random.default_rng([config.seed, index, 37])
    samples = int(rng.uniform(config.shortest_s, config.longest_s) * SAMPLE_RATE)
    meta: dict[str, Any] = {"id": f"{config.seed}-{index:07d}", "text": "", "voice": "none", "verdict": "noise"}
    if config.source and rng.random() < config.recorded:
        entries = _recordings(config.source, Part(config.part))
        entry = entries[int(rng.integers(len(entries)))]
        recording = _wave(expanded(config.source) / entry["audio"])
        wave = cut(recording, samples, rng) if len(recording) > samples else recording
        meta |= {"heard": str(entry.get("label") or entry["set"]), "set": entry["set"],
                 "licence": entry.get("licence") or "unknown", "source": entry.get("source_repo") or "unknown",
                 "audio": entry["audio"]}  # fmt: skip
    else:
        kind = KINDS[int(rng.integers(len(KINDS)))]
        wave, meta["heard"] = _made(kind, samples, rng), kind
    if config.reply:
        meta["answer"] = config.reply
    if config.rejected:
        replies = _replies(config)
        meta["rejected"] = [replies[int(np.random.default_rng([config.seed, index, 43]).integers(len(replies)))]]
    pcm = _levelled(wave, rng.uniform(-50, -14)) + _floor(len(wave), rng)
    return Clip(np.rint(np.clip(pcm, -1, 1) * 32767).astype(np.int16), meta)


def _made(kind: str, samples: int, rng: np.random.Generator) -> np.ndarray:
    """(samples,) of a kind, of any level."""
    if kind == SILENCE:
        return np.zeros(samples, np.float32)
    if kind in MADE:
        return MADE[kind](samples, SAMPLE_RATE, rng)
    noise = next(each for each in NOISE_KINDS if each == kind)
    return cut(noise_bank(noise, SAMPLE_RATE), samples, rng)


def _floor(samples: int, rng: np.random.Generator) -> np.ndarray:
    """What a microphone hears of a quiet room, -85 to -55 dBFS; in one clip of five nothing at all."""
    if rng.random() < 0.2:
        return np.zeros(samples)
    noise = noise_bank(FLOORS[int(rng.integers(2))], SAMPLE_RATE)
    return _levelled(cut(noise, samples, rng), rng.uniform(-85, -55))


def _levelled(wave: np.ndarray, db: float) -> np.ndarray:
    """With the root mean square ``db`` (dBFS), if no sample passes full scale then; silence stays."""
    power, peak = float(np.sqrt(np.mean(np.square(wave, dtype=np.float64)))), float(np.abs(wave).max(initial=0))
    return wave * min(10 ** (db / 20) / power, 1 / peak) if power else wave


def run(config: Config, *, progress: bool = True) -> dict[str, Any]:
    """Make or complete the data set; returns its counts. Raises DuologueError for a source without sounds."""
    if config.source:
        _recordings(config.source, Part(config.part))
    if config.rejected:
        _replies(config)
    return run_clips("no_speech", config, no_speech_clip, progress=progress, newer=("reply", "rejected"))
