"""Building data sets: `duologue prepare RECIPE [key=value …]`.

A recipe plans its clips (what is said, by whom, how) from the seed and the clip's index alone; then processes speak
them, a shard at a time. So the result is the same for any number of workers, a killed run goes on at the first shard
that is not whole, and a sample that fails is recorded in failed.jsonl and skipped.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

from ..checkpoints.files import with_home
from ..checkpoints.outputs import keep_apart
from ..checkpoints.settings import finite, whole
from ..model.errors import DuologueError
from .datasets import recordings
from .datasets.recordings import trimmed
from .datasets.shard_runs import LEAST, require_at_least, run_shards
from .datasets.shards import Clip, Failure, ShardWriter
from .nano import vocabulary
from .nano.asides import aside
from .nano.dialogues import Category, Dialogue, Split, generate, pauses_in, templates_of
from .nano.domain import KIND_OF, PRACTICE
from .nano.sentences import drill
from .recipes.rewrite import RewriteConfig, rewrite
from .recipes.sounds import SoundsConfig, prepare_sounds
from .recipes.spliced import SplicedConfig, prepare_spliced
from .recipes.turns import TurnsConfig, prepare_turns
from .speech.synthesis import SAMPLE_RATE, Prosody, Voice, synthesise
from .speech.voices import draw_voice, find_voices, require_voices

C = TypeVar("C")

_GAP = SAMPLE_RATE // 25  # samples behind the first breath of a question with a pause, and before the second


@dataclass(frozen=True, kw_only=True)
class SpokenText:
    """What one clip is to be, before anything is spoken."""

    id: str
    text: str
    voice: Voice
    prosody: Prosody | None
    fields: dict[str, Any]
    pause: int = 0  # behind so many words another breath is taken; 0: it is said in one


@dataclass(frozen=True, kw_only=True)
class SpeechConfig:
    """What every set of spoken sentences has in common.

    out: the folder, made if need be
    n: clips in all
    seed: another seed gives other sentences, voices and manners
    workers: processes; 0 takes one a processor
    shard_size: clips a shard; a run resumes by whole shards
    split: which wordings and operands: train, dev or test
    voices: train, espeak, more, dev, acceptance, reply, or keys such as flite:awb,festival:ked_diphone
    drills: the share of clips that are numbers, letters and words instead (see sentences.py)
    alone: the share of drills that are a digit or a word alone
    only: the categories of questions there are, such as clock,orders, or kinds of them, such as follow_again; "": all
    practice: the share of questions that are in wordings for practice, which training alone has (see practice.py)
    pauses: the share of questions that are said in two breaths, where what was said so far is no question yet; where
        the second begins is in `pause`, in samples
    tts_command: a command that speaks instead of the voices, such as "my-tts --text {text} --out {wav}"
    """

    out: str
    n: int = 9000
    seed: int = 0
    workers: int = 0
    shard_size: int = 250
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
                raise DuologueError(f"{name}={fraction}: expected a share from 0 to 1")
        kinds = [kind for name, kind in KIND_OF.items() if templates_of(name, Split(self.split))]
        if self.practice in (0, 1):  # of what is never drawn one would be sought for ever
            kinds = [kind for kind in kinds if (kind in PRACTICE) == bool(self.practice)]
        categories = [category for category in Category if any(kind.category is category for kind in kinds)]
        if unknown := set(self.wanted()) - set(categories) - {kind.name for kind in kinds}:
            raise DuologueError(
                f"only={','.join(sorted(unknown))}: expected some of {', '.join(categories)}, or kinds of questions "
                f"that split={self.split} has with practice={self.practice:g}, such as plus or follow_again"
            )
        self.speakers()

    def wanted(self) -> tuple[str, ...]:
        return tuple(name for name in self.only.split(",") if name)

    def speakers(self) -> tuple[Voice, ...]:
        return find_voices(self.voices, self.tts_command)


@dataclass(frozen=True, kw_only=True)
class QuestionsConfig(SpeechConfig):
    """Questions in many voices, what an encoder learns to hear."""


@dataclass(frozen=True, kw_only=True)
class RepliesConfig(SpeechConfig):
    """Answers in the reply's voice, what the units, the unit decoder and the vocoder are made from."""

    n: int = 3000
    voices: str = "reply"
    drills: float = 0.35


@dataclass(frozen=True, kw_only=True)
class AsidesConfig(SpeechConfig):
    """Statements, back-channels and "stop", what the duplex monitor learns to tell from questions."""

    n: int = 3000
    drills: float = 0.0


def question_at(index: int, config: SpeechConfig) -> SpokenText:
    return _utterance(index, config, lambda dialogue: dialogue.question)


def reply_at(index: int, config: SpeechConfig) -> SpokenText:
    return _utterance(index, config, lambda dialogue: dialogue.answer)


def aside_at(index: int, config: SpeechConfig) -> SpokenText:
    rng = np.random.default_rng([config.seed, index, 7])
    text, turn_state = aside(config.seed, index, config.split)
    voice = draw_voice(config.speakers(), rng)
    fields = {"category": "aside", "verdict": turn_state}
    if turn_state == "query":
        fields["answer"] = ""  # what is to be obeyed is answered by silence
    return SpokenText(id=f"{config.seed}-{index:07d}", text=text, voice=voice, prosody=voice.draw(rng), fields=fields)


def _utterance(index: int, config: SpeechConfig, said: Callable[[Dialogue], str]) -> SpokenText:
    # one generator a clip, apart from the dialogue's own, which depends on (seed, index) as well
    rng = np.random.default_rng([config.seed, index, 7])
    if rng.random() < config.drills:
        text, fields = drill(vocabulary.words(), index, rng, config.alone), {"category": "drill"}
    else:
        ask = functools.partial(generate, config.seed, split=config.split, practice=config.practice)
        dialogue = ask(index)
        wanted = config.wanted()
        for again in itertools.count(1):
            if not wanted or dialogue.category in wanted or dialogue.kind in wanted:
                break
            dialogue = ask(again * config.n + index)
        text, fields = said(dialogue), dataclasses.asdict(dialogue)
    voice = draw_voice(config.speakers(), rng)
    prosody, pause = voice.draw(rng), 0
    if config.pauses and "kind" in fields and KIND_OF[fields["kind"]] not in PRACTICE and rng.random() < config.pauses:
        pause = int(rng.choice(pauses_in(text) or [0]))
    name = f"{config.seed}-{index:07d}"
    return SpokenText(id=name, text=text, voice=voice, prosody=prosody, fields=fields, pause=pause)


def speak(utterance: SpokenText) -> Clip:
    """Raises SynthesisError when the synthesiser fails."""
    words, cut = utterance.text.split(), utterance.pause
    said = [" ".join(part) for part in (words[:cut], words[cut:]) if part]
    breaths = [synthesise(text, utterance.voice, utterance.prosody) for text in said]
    manner = dataclasses.asdict(utterance.prosody) if utterance.prosody else None
    meta = {
        "id": utterance.id,
        "text": utterance.text,
        "voice": utterance.voice.key,
        "prosody": manner,
        **utterance.fields,
    }
    if len(breaths) > 1:
        first, second = (trimmed(breath.astype(np.float32)).astype(np.int16) for breath in breaths)
        breaths = [np.pad(first, (0, _GAP)), np.pad(second, (_GAP, 0))]
        meta["pause"] = len(breaths[0])
    return Clip(np.concatenate(breaths), meta)


@dataclass(frozen=True)
class SpeechRecipe:
    name: str
    config: type[SpeechConfig]
    plan: Callable[[int, SpeechConfig], SpokenText]


RECIPES: Mapping[str, SpeechRecipe] = {
    "questions": SpeechRecipe("questions", QuestionsConfig, question_at),
    "replies": SpeechRecipe("replies", RepliesConfig, reply_at),
    "asides": SpeechRecipe("asides", AsidesConfig, aside_at),
}


def make_shard(recipe: str, config: SpeechConfig, shard: int) -> tuple[list[Clip], list[Failure]]:
    """Speak the clips of one shard; failures are returned, not raised."""
    plan = RECIPES[recipe].plan
    clips, failures = [], []
    for index in range(shard * config.shard_size, min((shard + 1) * config.shard_size, config.n)):
        utterance = plan(index, config)
        try:
            clips.append(speak(utterance))
        except DuologueError as error:
            failures.append(Failure(utterance.id, str(error)))
    return clips, failures


def _writer(recipe: str, config: SpeechConfig) -> ShardWriter:
    # the number of workers does not change the clips; what a set does without it does not mention
    given = {field.name: field.default for field in dataclasses.fields(config)}
    newer = ("tts_command", "only", "alone", "practice", "pauses")  # sets made before these were there go on
    left_out = ("out", "workers", *(name for name in newer if getattr(config, name) == given[name]))
    parameters = {key: value for key, value in dataclasses.asdict(config).items() if key not in left_out}
    return ShardWriter(config.out, name=recipe, sample_rate=SAMPLE_RATE, seed=config.seed, parameters=parameters)


def prepare(recipe: str, config: SpeechConfig, *, progress: bool = True) -> dict[str, Any]:
    """Make or complete the data set; returns its counts.

    Raises DuologueError when a synthesiser is not installed, the folder holds another data set, or every clip failed.
    """
    require_voices(config.speakers())
    count = -(-config.n // config.shard_size)
    return run_shards(
        _writer(recipe, config),
        [functools.partial(make_shard, recipe, config, shard) for shard in range(count)],
        clips=config.n,
        shard_size=config.shard_size,
        workers=config.workers,
        progress=progress,
    )


_READ: dict[str, Callable[[str], Any]] = {"int": whole, "float": finite, "str": str}


def parse_overrides(config: type[C], overrides: list[str]) -> C:
    """ "key=value" strings -> the recipe's config. Raises DuologueError for an unknown key or a value that is none."""
    fields = {field.name: field for field in dataclasses.fields(config)}  # type: ignore[arg-type]
    values: dict[str, Any] = {}
    for override in map(with_home, overrides):
        key, equals, value = override.partition("=")
        if not equals:
            raise DuologueError(f"{override!r}: expected key=value")
        if key not in fields:
            raise DuologueError(f"unknown key {key!r}: expected one of {', '.join(fields)}")
        kind = str(fields[key].type)
        try:
            values[key] = _READ[kind](value)
        except ValueError:
            raise DuologueError(
                f"{key}={value}: expected {'a whole number' if kind == 'int' else 'a number'}"
            ) from None
    missing = [name for name, field in fields.items() if values.get(name, field.default) in (dataclasses.MISSING, "")
               and field.default is dataclasses.MISSING]  # fmt: skip
    if missing:
        raise DuologueError(f"missing {', '.join(f'{name}=…' for name in missing)}")
    return config(**values)


def main(recipe: str, overrides: list[str]) -> dict[str, Any]:
    """`duologue prepare RECIPE key=value …`: returns the counts of the finished data set."""
    if recipe == "recordings":
        return recordings.prepare(_config(recordings.RecordingsConfig, overrides))
    if recipe == "units":
        from .recipes.units import UnitsConfig, prepare_units  # needs torch, which the other recipes do without

        return prepare_units(_config(UnitsConfig, overrides, out="quantiser"))
    if recipe == "sounds":
        return prepare_sounds(_config(SoundsConfig, overrides))
    if recipe == "spliced":
        return prepare_spliced(_config(SplicedConfig, overrides))
    if recipe in ("turns", "instructions"):
        return prepare_turns(recipe, _config(TurnsConfig, overrides))
    if recipe == "rewrite":
        return rewrite(_config(RewriteConfig, overrides))
    if recipe not in RECIPES:
        known = ", ".join((*RECIPES, "recordings", "spliced", "sounds", "units", "turns", "instructions", "rewrite"))
        raise DuologueError(f"unknown recipe {recipe!r}: expected one of {known}")
    return prepare(recipe, _config(RECIPES[recipe].config, overrides))


INPUTS = ("source", "data", "codec", "checkpoint")  # fields of configs that name what is read


def _config(config: type[C], overrides: list[str], out: str = "out") -> C:
    """The recipe's config, whose field ``out`` names what is written. Raises DuologueError where that is also read."""
    made = parse_overrides(config, overrides)
    keep_apart({f"{out}=": getattr(made, out)}, {f"{name}=": getattr(made, name, None) for name in INPUTS})
    return made
