"""Questions with recorded words in them, the rest by a synthesiser.

    duologue prepare spliced source=work/recordings_train out=work/spliced

Recordings of single words (digits, letters, months) take the places of those words in generated questions. So a model
hears real voices where every word counts, beside what a synthesiser can say.
"""

from __future__ import annotations

import dataclasses
import functools
from collections import defaultdict
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...model.errors import DuologueError
from ..datasets.question_sets import Dialogue, question_set
from ..datasets.shard_runs import LEAST, require_at_least, run_clips
from ..datasets.shards import Clip, ShardedDataset
from ..speech.engine import SAMPLE_RATE, Prosody, Voice
from ..speech.synthesis import synthesise
from ..speech.voices import draw_voice, find_voices, require_voices
from ..text.plain_text import spoken_words

_GAP_S = (0.0, 0.08)  # of silence where a recording meets a synthesiser
_FADE = SAMPLE_RATE // 200  # samples, 5 ms
_LOUDNESS_DB = (-4.0, 4.0)  # of a recording beside the rest


@dataclass(frozen=True, kw_only=True)
class Config:
    """What is spliced.

    source: a data set of recordings (see `prepare recordings`), of which the clips of one word are used
    out: the folder, made if need be
    n: clips in all
    fraction: how many of the words that there are recordings of are taken from them, at least one a clip
    questions, seed, workers, shard_size, voices: as in `prepare questions`
    """

    source: str
    out: str
    n: int = 3000
    fraction: float = 0.7
    questions: str = "nano"
    seed: int = 0
    workers: int = 0
    shard_size: int = 250
    voices: str = "train"

    def __post_init__(self) -> None:
        require_at_least(self, LEAST)
        if not 0 < self.fraction <= 1:
            raise DuologueError(f"fraction={self.fraction}: expected a fraction above 0 and at most 1")
        find_voices(self.voices)


@functools.cache
def _spoken_words(source: str) -> tuple[ShardedDataset, dict[str, dict[str, list[int]]]]:
    """The recordings, and which clips are one word, by word and speaker."""
    dataset = ShardedDataset(source)
    if dataset.sample_rate != SAMPLE_RATE:
        raise DuologueError(f"{source} has {dataset.sample_rate} Hz; spliced questions want {SAMPLE_RATE} Hz")
    found: dict[str, dict[str, list[int]]] = defaultdict(lambda: defaultdict(list))
    for at, meta in enumerate(dataset.metas):
        if " " not in (word := spoken_words(meta).strip()):
            found[word][meta["voice"]].append(at)
    if not found:
        raise DuologueError(f"{source} has no recordings of single words")
    return dataset, {word: dict(speakers) for word, speakers in found.items()}


def run(config: Config, *, progress: bool = True) -> dict[str, Any]:
    """Make or complete the data set; returns its counts.

    Raises DuologueError when a synthesiser is not installed, the source has no single words, or every clip failed.
    """
    require_voices(find_voices(config.voices))
    _spoken_words(config.source)
    return run_clips("spliced", config, splice, progress=progress, newer=("questions",))


def splice(index: int, config: Config) -> Clip:
    """The ``index``-th clip: a training question with at least one recorded word, in one person's voice if possible.

    Raises SynthesisError when the synthesiser fails.
    """
    dataset, recorded = _spoken_words(config.source)
    rng = np.random.default_rng([config.seed, index, 13])
    dialogue = _question(rng, recorded, config.questions)
    words = dialogue.question.split()
    places = [at for at, word in enumerate(words) if word in recorded]
    chosen = {at for at in places if rng.random() < config.fraction} or {places[int(rng.integers(len(places)))]}
    voice = draw_voice(find_voices(config.voices), rng)
    prosody = voice.draw(rng)
    favourite = _one(rng, sorted(recorded[words[min(chosen)]]))
    pieces, speakers = [], []
    for at, text in _runs(words, chosen):
        if at in chosen:
            speaker = favourite if favourite in recorded[text] else _one(rng, sorted(recorded[text]))
            clip = dataset[_one(rng, recorded[text][speaker])]
            pieces.append(_level(_trimmed(clip.pcm), rng.uniform(*_LOUDNESS_DB)))
            speakers.append(speaker)
        else:
            pieces.append(_level(_trimmed(synthesise(text, voice, prosody)), 0.0))
    gaps = [np.zeros(int(rng.uniform(*_GAP_S) * SAMPLE_RATE), np.int16) for _ in pieces]
    pcm = np.concatenate([part for pair in zip(pieces, gaps, strict=True) for part in pair])
    return Clip(pcm, _meta(index, config, dialogue, voice, prosody, speakers))


def _meta(
    index: int, config: Config, dialogue: Dialogue, voice: Voice, prosody: Prosody | None, speakers: list[str]
) -> dict[str, Any]:
    return {
        "id": f"{config.seed}-{index:07d}",
        "text": dialogue.question,
        "voice": voice.key,
        "prosody": dataclasses.asdict(prosody) if prosody else None,
        "recorded": sorted(set(speakers)),
        **dialogue.fields(),
    }


def _question(rng: np.random.Generator, recorded: dict[str, Any], questions: str) -> Dialogue:
    """A training question that holds a recorded word."""
    for _ in range(10_000):
        dialogue = question_set(questions).dialogue(int(rng.integers(2**31)), 0)
        if any(word in recorded for word in dialogue.question.split()):
            return dialogue
    raise DuologueError(f"no question holds any of the recorded words: {' '.join(sorted(recorded))}")


def _runs(words: list[str], chosen: set[int]) -> list[tuple[int, str]]:
    """(place of its first word, text) of each piece: a recorded word, or the words between two of them."""
    runs: list[tuple[int, list[str]]] = []
    for at, word in enumerate(words):
        if runs and at not in chosen and at - 1 not in chosen:
            runs[-1][1].append(word)
        else:
            runs.append((at, [word]))
    return [(at, " ".join(run)) for at, run in runs]


def _one(rng: np.random.Generator, among: list[Any]) -> Any:
    return among[int(rng.integers(len(among)))]


def _trimmed(pcm: np.ndarray) -> np.ndarray:
    """(n,) int16 without the silence before and after, and faded at its ends."""
    loud = np.flatnonzero(np.abs(pcm.astype(np.int32)) > 0.02 * np.abs(pcm.astype(np.int32)).max())
    wave = pcm[max(0, loud[0] - _FADE) : loud[-1] + _FADE].astype(np.float32)
    fade = np.linspace(0, 1, min(_FADE, len(wave)))
    wave[: len(fade)] *= fade
    wave[len(wave) - len(fade) :] *= fade[::-1]
    return wave


def _level(wave: np.ndarray, db: float) -> np.ndarray:
    """(n,) float -> int16 at -23 dBFS and so many dB more, root mean square."""
    power = float(np.sqrt(np.mean(np.square(wave, dtype=np.float64)))) or 1.0
    return np.clip(np.rint(wave * (32768 * 10 ** ((db - 23) / 20) / power)), -32768, 32767).astype(np.int16)
