"""Sentences said calmly, in agitation, in a whisper and shouted: what a head for the manner of speaking learns from.

    prepare manner out=data/manner n=4000 voices=espeak
    prepare manner out=data/manner n=4000 source=data/people        half of the clips are people's recordings

Synthesisers are told to speak in the manner as far as they can be (speech/manners.py); the rest is signal processing.
So it is with recordings of people, a set of `prepare recordings`: nobody whispers or shouts in those. Each is taken in
turn with every manner, calm as it was recorded or changed. A clip's `kind` says which it is: `synthetic`, `recording`
(as it was recorded, calm) or `simulated` (a recording that was changed). Loudness is drawn apart from the manner.
"""

from __future__ import annotations

import functools
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from ...model.errors import DuologueError
from ..datasets.question_sets import question_set
from ..datasets.recordings import trimmed
from ..datasets.shard_runs import LEAST, require_at_least, run_clips
from ..datasets.shards import Clip, ShardedDataset
from ..datasets.splits import Split
from ..speech.engine import SAMPLE_RATE
from ..speech.manners import MANNERS, spoken_in, told
from ..speech.synthesis import spoken_by, synthesise
from ..speech.voices import draw_voice, find_voices, require_voices

_LOUDEST_DBFS = (-30.0, -1.0)  # of the largest sample
_LABELS = ("set", "licence", "source")  # of a recording, which its clips keep


@dataclass(frozen=True, kw_only=True)
class Config:
    """
    out: the folder, made if need be
    n: clips in all
    seed: another seed gives other sentences, voices and manners
    workers: processes; 0 takes one a processor
    shard_size: clips a shard; a run resumes by whole shards
    questions: the question set whose questions are said, by its name, or a file of conversations
    split: which of its questions, and which of the voices that whisper by themselves: train, dev or test
    voices: train, espeak, more, dev, or keys such as flite:rms,festival:kal_diphone
    tts_command: a command that speaks instead of the voices, such as "my-tts --text {text} --out {wav}"
    source: recordings of people, a set of `prepare recordings`; "": synthesisers alone
    people: the fraction of clips that are made of those
    manners: which there are, in turn
    shortest_s, longest_s: seconds of a recording in a clip; shorter ones are left out, of a longer one a random part is
        taken
    """

    out: str
    n: int = 4000
    seed: int = 0
    workers: int = 0
    shard_size: int = 250
    questions: str = "nano"
    split: str = "train"
    voices: str = "train"
    tts_command: str = ""
    source: str = ""
    people: float = 0.5
    manners: tuple[str, ...] = MANNERS
    shortest_s: float = 1.0
    longest_s: float = 4.0

    def __post_init__(self) -> None:
        require_at_least(self, LEAST)
        if self.split not in list(Split):
            raise DuologueError(f"split={self.split}: expected one of {', '.join(Split)}")
        if not self.manners or (strange := [name for name in self.manners if name not in MANNERS]):
            what = repr(strange[0]) if self.manners else "nothing"
            raise DuologueError(f"manners has {what}; expected some of {', '.join(MANNERS)}")
        if not 0 <= self.people <= 1:
            raise DuologueError(f"people={self.people}: expected a fraction from 0 to 1")
        if not 0.1 <= self.shortest_s <= self.longest_s:
            raise DuologueError(
                f"shortest_s={self.shortest_s:g}, longest_s={self.longest_s:g}: expected 0.1 or more, and no less"
            )
        find_voices(self.voices, self.tts_command)


@functools.lru_cache(maxsize=2)
def _recordings(folder: str, shortest_s: float, seed: int) -> tuple[ShardedDataset, np.ndarray]:
    """A set, and in a random order the numbers of the clips that are long enough."""
    found = ShardedDataset(folder)
    enough = [at for at, meta in enumerate(found.metas) if meta["samples"] >= shortest_s * SAMPLE_RATE]
    if not enough or found.sample_rate != SAMPLE_RATE:
        raise DuologueError(
            f"source={folder}: expected recordings at {SAMPLE_RATE} Hz of at least shortest_s={shortest_s:g} s"
        )
    return found, np.random.default_rng([seed, 53]).permutation(enough)


def make(index: int, config: Config) -> Clip:
    """The clip of this number. Raises DuologueError when a synthesiser fails, or a recording is silent."""
    rng = np.random.default_rng([config.seed, index, 43])
    manner, at = config.manners[index % len(config.manners)], index // len(config.manners)
    # by the sentence's number, so that each is said in every manner
    of_people = config.source and np.random.default_rng([config.seed, at, 47]).random() < config.people
    wave, meta = _of_people(at, manner, rng, config) if of_people else _of_voices(at, manner, rng, config)
    loudest = 10 ** (rng.uniform(*_LOUDEST_DBFS) / 20)
    wave = wave * (loudest / max(1e-9, float(np.abs(wave).max())))
    label = {"id": f"{config.seed}-{index:07d}", "manner": manner}
    return Clip(np.rint(wave * 32767).astype(np.int16), label | meta)


def _of_people(at: int, manner: str, rng: np.random.Generator, config: Config) -> tuple[np.ndarray, dict[str, Any]]:
    recordings, order = _recordings(config.source, config.shortest_s, config.seed)
    clip = recordings[int(order[at % len(order)])]
    wave = clip.pcm.astype(np.float32) / 32768
    length = round(config.longest_s * SAMPLE_RATE)
    begin = int(rng.integers(max(1, len(wave) - length + 1)))
    wave = trimmed(wave[begin : begin + length])
    meta = {key: clip.meta[key] for key in _LABELS if key in clip.meta}
    meta |= {"text": clip.meta["text"] if len(clip.pcm) <= length else "", "voice": clip.meta["voice"]}
    if manner == "calm" and rng.random() < 0.6:
        return wave, meta | {"kind": "recording"}
    return spoken_in(wave, manner, rng, prosody=True), meta | {"kind": "simulated"}


def _of_voices(at: int, manner: str, rng: np.random.Generator, config: Config) -> tuple[np.ndarray, dict[str, Any]]:
    text = question_set(config.questions).dialogue(config.seed, at, split=config.split).question
    voice = draw_voice(find_voices(config.voices, config.tts_command), rng)
    speaker, prosody, whispers = told(voice, manner, rng, config.split)
    wave = trimmed(synthesise(text, speaker, prosody).astype(np.float32) / 32768)
    if not whispers:
        wave = spoken_in(wave, manner, rng, prosody=prosody is None)
    said = {"text": text, "voice": speaker.key, "prosody": asdict(prosody) if prosody else None, "kind": "synthetic"}
    return wave, said | spoken_by(text, speaker)


def run(config: Config, *, progress: bool = True) -> dict[str, Any]:
    """Make or complete the data set; returns its counts.

    Raises DuologueError when a synthesiser is not installed, the source is no set of recordings, the folder holds
    another data set, or every clip failed.
    """
    if config.source:
        _recordings(config.source, config.shortest_s, config.seed)
    if not config.source or config.people < 1:
        require_voices(find_voices(config.voices, config.tts_command))
    return run_clips("manner", config, make, progress=progress)
