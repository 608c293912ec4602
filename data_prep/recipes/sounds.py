"""Sounds of every day as people recorded them, beeps to be counted, and "what was that".

    duologue prepare sounds source=../shared/data out=work/sounds

A clip is a sound, mostly with a spoken question after it ("what sound is this"). Its text is what a transcript should
say: the sound in words, then the question, as in the captions of a film: "dog barking what sound is this".

Beeps are made here; the sounds come from ESC-10 (Piczak, "ESC: Dataset for Environmental Sound Classification", 2015),
whose fourth fold is kept apart (see recordings.py).
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ...checkpoints.files import expanded
from ...model.errors import DuologueError
from ..datasets.recordings import Part, read_manifest, read_recording, select
from ..datasets.shard_runs import LEAST, require_at_least, run_clips
from ..datasets.shards import Clip
from ..datasets.splits import Split, template_splits
from ..speech.engine import SAMPLE_RATE
from ..speech.synthesis import synthesise
from ..speech.voices import draw_voice, find_voices, require_voices
from ..text.spoken import number_in_words

CAPTIONS = {
    "dog bark": "dog barking", "rain": "rain falling", "sea waves": "sea waves", "baby cry": "baby crying",
    "clock tick": "clock ticking", "person sneeze": "somebody sneezing", "helicopter": "helicopter flying",
    "chainsaw": "chainsaw running", "rooster": "rooster crowing", "fire crackling": "fire crackling",
}  # fmt: skip
BEEP = "beep"
MOST_BEEPS = 6
_WHAT = (
    "what sound is this", "what is this sound", "what sound was that", "which sound is this", "which sound was that",
    "what was that sound", "what do you hear", "what did you hear", "tell me what you hear", "what can you hear",
    "what is making this noise", "what noise is this", "what noise was that", "what was that noise", "what was that",
    "tell me what that was", "do you know this sound", "do you know what that was", "name this sound",
    "name the sound that you hear",
)  # fmt: skip
_COUNT = (
    "how many beeps do you hear", "how many beeps did you hear", "how many beeps were there", "how many beeps was that",
    "how many beeps are there", "count the beeps", "tell me how many beeps you hear", "how many beeps can you hear",
    "can you count the beeps", "please count the beeps", "how many times did it beep", "tell me the number of beeps",
)  # fmt: skip
WORDINGS = template_splits({"what": _WHAT, "count": _COUNT})


@dataclass(frozen=True, kw_only=True)
class Config:
    """What is heard.

    source: a folder of recordings with manifest.jsonl (see `prepare recordings`), ESC-10 among them
    out: the folder, made if need be
    n: clips in all, a quarter of them beeps
    part: noises, or noises_dev for the recordings and wordings kept apart
    asked: the fraction of clips with a spoken question; the others are the sound alone
    seed, workers, shard_size, voices: as in `prepare questions`
    """

    source: str
    out: str
    n: int = 2000
    part: str = "noises"
    asked: float = 0.8
    seed: int = 0
    workers: int = 0
    shard_size: int = 250
    voices: str = "train"

    def __post_init__(self) -> None:
        require_at_least(self, LEAST)
        if self.part not in (Part.NOISES, Part.NOISES_DEV):
            raise DuologueError(f"part={self.part}: expected noises or noises_dev")
        if not 0 <= self.asked <= 1:
            raise DuologueError(f"asked={self.asked}: expected a fraction from 0 to 1")
        find_voices(self.voices)


def texts() -> list[str]:
    """Every word that these clips may bring into the vocabulary."""
    return [*CAPTIONS.values(), *_WHAT, *_COUNT, *map(told, CAPTIONS), "i hear one beep", "two beeps"]


def told(label: str) -> str:
    """The answer: "dog bark" -> "that is a dog barking"; rain, the sea's waves and somebody have no article."""
    if label == "sea waves":
        return "those are sea waves"
    return f"that is {'' if label in ('rain', 'person sneeze') else 'a '}{CAPTIONS[label]}"


def beeps(count: int, rng: np.random.Generator) -> np.ndarray:
    """(n,) float64: so many tones of one pitch, 80-200 ms each, 120-350 ms of silence between them."""
    hz, long = rng.uniform(350, 2200), int(rng.uniform(0.08, 0.2) * SAMPLE_RATE)
    gap = np.zeros(int(rng.uniform(0.12, 0.35) * SAMPLE_RATE))
    tone = np.sin(2 * np.pi * hz * np.arange(long) / SAMPLE_RATE)
    if rng.random() < 0.3:  # a harsher one
        tone = np.tanh(3 * tone)
    fade = np.linspace(0, 1, SAMPLE_RATE // 200)
    tone[: len(fade)] *= fade
    tone[-len(fade) :] *= fade[::-1]
    return np.concatenate([part for _ in range(count) for part in (tone, gap)])


@functools.cache
def _recorded(source: str, part: Part) -> dict[str, tuple[Path, ...]]:
    """{label: its recordings}."""
    entries = select(read_manifest(expanded(source)), part, ("esc10",))
    found = {
        label: tuple(expanded(source) / entry["audio"] for entry in entries if entry.get("label") == label)
        for label in CAPTIONS
    }
    if not any(found.values()):
        raise DuologueError(f"{source} has no recordings of ESC-10 in the part {part}")
    return {label: paths for label, paths in found.items() if paths}


@functools.cache
def _wave(path: Path) -> np.ndarray:
    """A recording, (n,) float32."""
    return read_recording(path, SAMPLE_RATE)


def _excerpt(wave: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """1.2 to 3 s of it, from somewhere about where it is loudest (a sneeze is short)."""
    length = min(len(wave), int(rng.uniform(1.2, 3.0) * SAMPLE_RATE))
    energy = np.convolve(np.square(wave, dtype=np.float64), np.ones(SAMPLE_RATE // 4), "same")
    middle = int(np.argmax(energy)) if rng.random() < 0.6 else int(rng.integers(len(wave)))
    start = min(max(0, middle - int(rng.uniform(0.1, 0.9) * length)), len(wave) - length)
    return wave[start : start + length].astype(np.float64)


def _levelled(wave: np.ndarray, db: float) -> np.ndarray:
    power = float(np.sqrt(np.mean(np.square(wave, dtype=np.float64)))) or 1.0
    return np.clip(wave * (10 ** (db / 20) / power), -1, 1)


def sound_clip(index: int, config: Config) -> Clip:
    """The ``index``-th clip. Raises SynthesisError when the synthesiser fails."""
    rng = np.random.default_rng([config.seed, index, 17])
    part = Part(config.part)
    if rng.random() < 0.25:
        count = int(rng.integers(1, MOST_BEEPS + 1))
        heard, kind = " ".join([BEEP] * count), "count"
        slot = f"{number_in_words(count)} beep{'s' if count > 1 else ''}"
        answer, label, wave = f"i hear {slot}", f"{count} beeps", beeps(count, rng)
    else:
        recorded = _recorded(config.source, part)
        label = sorted(recorded)[int(rng.integers(len(recorded)))]
        wave = _excerpt(_wave(recorded[label][int(rng.integers(len(recorded[label])))]), rng)
        heard, kind, slot = CAPTIONS[label], "what", CAPTIONS[label]
        answer = told(label)
    pieces, text, voice = [_levelled(wave, rng.uniform(-32, -20))], heard, "none"
    if rng.random() < config.asked:
        wanted = Split.TRAIN if part is Part.NOISES else Split.TEST
        wordings = [wording for wording, split in WORDINGS[kind].items() if split is wanted]
        question = wordings[int(rng.integers(len(wordings)))]
        speaker = draw_voice(find_voices(config.voices), rng)
        voice, text = speaker.key, f"{heard} {question}"
        spoken = synthesise(question, speaker, speaker.draw(rng)).astype(np.float64)
        pieces += [np.zeros(int(rng.uniform(0.1, 0.6) * SAMPLE_RATE)), _levelled(spoken, rng.uniform(-26, -20))]
    pcm = np.rint(np.concatenate(pieces) * 32767).astype(np.int16)
    meta = {
        "id": f"{config.seed}-{index:07d}", "text": text, "voice": voice, "category": "hearing", "heard": label,
        "answer": answer, "slot": slot,
    }  # fmt: skip
    return Clip(pcm, meta)


def run(config: Config, *, progress: bool = True) -> dict[str, Any]:
    """Make or complete the data set; returns its counts.

    Raises DuologueError when a synthesiser is not installed, the source has no ESC-10, or every clip failed.
    """
    require_voices(find_voices(config.voices))
    _recorded(config.source, Part(config.part))
    return run_clips("sounds", config, sound_clip, progress=progress)
