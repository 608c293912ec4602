"""Spoken sentences of a question set: what each clip is to be, from the seed and its index alone, and how it is said.

So a set is the same for any number of processes, and a killed run goes on at the first shard that is not whole.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...model.errors import DuologueError
from ..datasets.question_sets import Dialogue, QuestionSet, question_set
from ..datasets.recordings import trimmed
from ..datasets.shard_runs import LEAST, require_at_least, run_clips
from ..datasets.shards import Clip
from ..datasets.splits import Split
from ..speech.engine import SAMPLE_RATE, Prosody, Voice
from ..speech.synthesis import spoken_by, synthesise
from ..speech.voices import draw_voice, find_voices, require_voices

_GAP = SAMPLE_RATE // 25  # samples behind the first breath of a question with a pause, and before the second
# Sets made before these settings were there do not mention them, and go on.
_NEWER = ("questions", "tts_command", "only", "alone", "practice", "pauses")


@dataclass(frozen=True, kw_only=True)
class SpokenText:
    """What one clip is to be, before anything is spoken."""

    id: str
    text: str
    voice: Voice
    prosody: Prosody | None
    fields: dict[str, Any]
    pause: int = 0  # behind so many words another breath is taken; 0: it is said in one

    def meta(self) -> dict[str, Any]:
        """The fields of its clip."""
        manner = dataclasses.asdict(self.prosody) if self.prosody else None
        said = {"id": self.id, "text": self.text, "voice": self.voice.key, "prosody": manner}
        return said | spoken_by(self.text, self.voice) | self.fields


@dataclass(frozen=True, kw_only=True)
class SpeechConfig:
    """What every set of spoken sentences has in common.

    out: the folder, made if need be
    n: clips in all
    seed: another seed gives other sentences, voices and manners
    workers: processes; 0 takes one a processor
    shard_size: clips a shard; a run resumes by whole shards
    questions: the question set, by its name, or a file of conversations (see datasets/question_sets.py)
    split: which of its questions: train, dev or test
    voices: train, espeak, more, dev, acceptance, reply, or keys such as flite:awb,festival:ked_diphone
    drills: the fraction of clips that are words to practise instead
    alone: the fraction of drills that are a digit or a word alone
    only: the categories of questions there are, or kinds of them; "": all
    practice: the fraction of questions that are in wordings for practice, which training alone has
    pauses: the fraction of questions that are said in two breaths, where what was said so far is no question yet; where
        the second begins is in `pause`, in samples
    tts_command: a command that speaks instead of the voices, such as "my-tts --text {text} --out {wav}"
    """

    out: str
    n: int = 9000
    seed: int = 0
    workers: int = 0
    shard_size: int = 250
    questions: str = "nano"
    split: str = "train"
    voices: str = "train"
    drills: float = 0.2
    alone: float = 0.15
    only: str = ""
    practice: float = 0.0
    pauses: float = 0.0
    tts_command: str = ""

    def __post_init__(self) -> None:
        require_at_least(self, LEAST)
        if self.split not in list(Split):
            raise DuologueError(f"split={self.split}: expected one of {', '.join(Split)}")
        for name in ("drills", "alone", "practice", "pauses"):
            if not 0 <= (fraction := getattr(self, name)) <= 1:
                raise DuologueError(f"{name}={fraction}: expected a fraction from 0 to 1")
        if wanted := self.wanted():
            kinds = self.asked().kinds(Split(self.split), self.practice)
            categories = [category for category in self.asked().categories if category in kinds.values()]
            if unknown := set(wanted) - set(categories) - set(kinds):
                raise DuologueError(
                    f"only={','.join(sorted(unknown))}: expected some of {', '.join(categories)}, or kinds that "
                    f"split={self.split} has with practice={self.practice:g}, such as {' or '.join([*kinds][:2])}"
                )
        self.speakers()

    def asked(self) -> QuestionSet:
        return question_set(self.questions)

    def wanted(self) -> tuple[str, ...]:
        return tuple(name for name in self.only.split(",") if name)

    def speakers(self) -> tuple[Voice, ...]:
        return find_voices(self.voices, self.tts_command)


def sentence_of(index: int, config: SpeechConfig, said: Callable[[Dialogue], str]) -> SpokenText:
    """A drill, or what is ``said`` of a dialogue."""
    # one generator a clip, apart from the dialogue's own, which depends on (seed, index) as well
    rng = np.random.default_rng([config.seed, index, 7])
    if rng.random() < config.drills:
        text, fields = config.asked().drill(index, rng, config.alone), {"category": "drill"}
    else:
        ask = functools.partial(config.asked().dialogue, config.seed, split=config.split, practice=config.practice)
        dialogue = ask(index)
        wanted = config.wanted()
        for again in itertools.count(1):
            if not wanted or dialogue.category in wanted or dialogue.kind in wanted:
                break
            dialogue = ask(again * config.n + index)
        text, fields = said(dialogue), dialogue.fields()
    voice = draw_voice(config.speakers(), rng)
    prosody, pause = voice.draw(rng), 0
    usual = config.pauses and fields.get("kind") in config.asked().kinds(Split(config.split), practice=0)
    if usual and rng.random() < config.pauses:
        pause = int(rng.choice(config.asked().pauses_in(text) or [0]))
    name = f"{config.seed}-{index:07d}"
    return SpokenText(id=name, text=text, voice=voice, prosody=prosody, fields=fields, pause=pause)


def speak(utterance: SpokenText) -> Clip:
    """Raises SynthesisError when the synthesiser fails."""
    words, cut = utterance.text.split(), utterance.pause
    said = [" ".join(part) for part in (words[:cut], words[cut:]) if part] if cut else [utterance.text]
    breaths = [synthesise(text, utterance.voice, utterance.prosody) for text in said]
    meta = utterance.meta()
    if len(breaths) > 1:
        first, second = (trimmed(breath.astype(np.float32)).astype(np.int16) for breath in breaths)
        breaths = [np.pad(first, (0, _GAP)), np.pad(second, (_GAP, 0))]
        meta["pause"] = len(breaths[0])
    return Clip(np.concatenate(breaths), meta)


Plan = Callable[[int, Any], SpokenText]


def spoken_set(
    name: str, config: SpeechConfig, sentence: Plan, *, progress: bool, newer: Sequence[str] = ()
) -> dict[str, Any]:
    """Make or complete a data set of sentences; returns its counts.

    newer: settings of this recipe that sets made before do not mention.

    Raises DuologueError when a synthesiser is not installed, the folder holds another data set, or every clip failed.
    """
    require_voices(config.speakers())
    return run_clips(name, config, functools.partial(_clip, sentence), progress=progress, newer=(*_NEWER, *newer))


def _clip(sentence: Plan, index: int, config: SpeechConfig) -> Clip:
    return speak(sentence(index, config))
