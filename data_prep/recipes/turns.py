"""Conversations as clips: what has a recording is heard from it, what has none is spoken.

    part=questions what is said to the assistant, for asr_pretrain and speech_to_text, with its `answer` and `slot`
    part=replies   what is answered, for units, unit_decoder and unit_vocoder, with its `question`

The source is a folder with turns.jsonl, or whatever else datasets/conversations.py reads. Texts stay as they are
written; `spoken` beside them are their words, where they can be told. English replies are said as a unit decoder spells
them: numbers, money, times and abbreviations in words. Each turn is a clip of its own, with `history`, `system`,
`instruction`, and `conversation` and `turn` to tell where it stood; a statement that needs no answer has the `verdict`
noise. A turn that cannot be used is in failed.jsonl with the reason.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...checkpoints.files import broken
from ...model.errors import DuologueError
from ..datasets.conversations import WrittenConversation, WrittenTurn, folder_of, read_conversations
from ..datasets.question_sets import Exchange, question_set
from ..datasets.recordings import LEVEL_DBFS, PEAK_DBFS, WHOLE, Stretch, read_recording, set_loudness
from ..datasets.shard_runs import require_at_least, run_shards
from ..datasets.shards import Clip, Failure, ShardWriter
from ..speech.engine import SAMPLE_RATE, Voice
from ..speech.synthesis import as_reply, spoken_by, synthesise
from ..speech.voices import draw_voice, find_voices, require_voices
from ..text.plain_text import plain, spoken_field

PARTS = ("questions", "replies")


@dataclass(frozen=True, kw_only=True)
class Config:
    """
    source: conversations: a folder with turns.jsonl and its recordings, a file, a set of recordings
    out: the folder of the data set, made if need be
    part: questions or replies, which of the two is said
    voices: who says what has no recording (see `prepare questions`), espeak:de for German; empty: train for questions,
        reply for replies
    tts_command: a command that speaks instead of the voices, such as "my-tts --text {text} --out {wav}"
    language: of recordings and of what a command says (ISO 639): numbers and signs are put in words in English alone
    words: a question set by its name, whose word vocabulary is to know the words of every turn; empty: no vocabulary
    unknown: what becomes of a turn with words that it does not know: skip, or keep (its text will be <unk> to a
        language model of those words; encoders, units and vocoders do not mind)
    max_words: of what is said in a clip; a turn with more is left out
    max_s: seconds a clip; longer ones are left out
    seed: another seed gives other voices and manners
    workers: processes; 0 takes one a processor
    shard_size: clips a shard; a run resumes by whole shards
    """

    source: str
    out: str
    part: str = "questions"
    voices: str = ""
    tts_command: str = ""
    language: str = "en"
    words: str = ""
    unknown: str = "skip"
    max_words: int = 60
    max_s: float = 30.0
    seed: int = 0
    workers: int = 0
    shard_size: int = 250

    def __post_init__(self) -> None:
        for name, known in (("part", PARTS), ("unknown", ("skip", "keep"))):
            if getattr(self, name) not in known:
                raise DuologueError(f"{name}={getattr(self, name)}: expected {' or '.join(known)}")
        require_at_least(self, {"max_words": 1, "seed": 0, "workers": 0, "shard_size": 1})
        if not self.max_s > 0:
            raise DuologueError(f"max_s={self.max_s}: expected more than 0 seconds")
        self.speakers()

    def speakers(self) -> tuple[Voice, ...]:
        return find_voices(self.voices or {"questions": "train", "replies": "reply"}[self.part], self.tts_command)


@dataclass(frozen=True, kw_only=True)
class PlannedClip:
    """One clip to be: its text, and the recording of it or None; or, if it cannot be, why."""

    id: str
    text: str = ""
    audio: str | None = None
    stretch: Stretch = WHOLE  # of the recording
    fields: dict[str, Any] = dataclasses.field(default_factory=dict)
    unknown: tuple[str, ...] = ()  # of its words, those that the vocabulary does not know
    problem: str = ""


def plan(conversations: list[WrittenConversation], config: Config) -> list[PlannedClip]:
    """Every turn as a clip to be; in the part of the replies, those that have one."""
    known = frozenset(question_set(config.words).token_ids()) if config.words else None
    items = []
    for conversation in conversations:
        history: tuple[Exchange, ...] = ()
        for number, turn in enumerate(conversation.turns):
            if config.part == "questions" or turn.reply:
                fields = {"conversation": conversation.id, "turn": number} | _fields(turn, history, conversation.system)
                items.append(_item(f"{conversation.id}-{number}", turn, fields, config, known))
            if turn.reply:
                history = (*history, (turn.text or "", turn.reply))
    return items


def _fields(turn: WrittenTurn, history: tuple[Exchange, ...], system: str | None) -> dict[str, Any]:
    """Those of a clip, but for what is not there; texts as they are written."""
    slot = turn.slot or turn.reply
    found = {"question": turn.text, "answer": turn.reply, "slot": slot if turn.reply else None,
             "rejected": turn.rejected, "instruction": turn.instruction, "system": system, "history": history,
             "verdict": None if turn.respond else "noise"}  # fmt: skip
    return {key: value for key, value in found.items() if value}


def _item(
    name: str, turn: WrittenTurn, fields: dict[str, Any], config: Config, known: frozenset[str] | None
) -> PlannedClip:
    if config.part == "questions":
        said, audio, stretch = turn.text or "", turn.audio, turn.stretch
    else:
        said, audio, stretch = turn.reply or "", turn.reply_audio, WHOLE
    unknown: tuple[str, ...] = ()
    problem = ""
    silent = known is None and (turn.reply or not turn.respond)  # taught without a transcript, where none is written
    if not said and not silent:
        problem = "the recording has no 'text', the words that are heard in it"
    elif broken(json.dumps([said, fields], ensure_ascii=False)):
        problem = "a text of it, or of what was said before, has half a surrogate pair, which is no character"
    elif len(said.split()) > config.max_words:
        what = "text" if config.part == "questions" else "reply"
        problem = f"{what}: {len(said.split())} words, more than max_words={config.max_words}"
    elif known is not None:
        try:
            words = " ".join(_words(what, text) for what, text in (("text", turn.text), ("reply", turn.reply)) if text)
        except DuologueError as error:
            return PlannedClip(id=name, problem=str(error))
        unknown = tuple(dict.fromkeys(word for word in words.split() if word not in known))
        if unknown and config.unknown == "skip":
            problem = f"{config.words}'s tokenizer does not know: {', '.join(unknown)}"
    return PlannedClip(
        id=name, text=said, audio=audio, stretch=stretch, fields=fields, unknown=unknown, problem=problem
    )


def _words(what: str, text: str) -> str:
    try:
        return plain(text)
    except DuologueError as error:
        raise DuologueError(f"{what}: {error}") from None


def make_clip(item: PlannedClip, at: int, config: Config) -> Clip:
    """Read or speak one clip; `at` is its place in the plan. Raises DuologueError when that fails."""
    meta: dict[str, Any] = {"id": item.id, "text": item.text, **item.fields}
    if item.audio:
        pcm = read_recording(folder_of(config.source) / item.audio, SAMPLE_RATE, config.max_s, item.stretch)
        pcm = set_loudness(pcm, SAMPLE_RATE, LEVEL_DBFS, PEAK_DBFS)
        meta |= spoken_field(item.text, english=config.language == "en")
        return Clip(np.rint(pcm * 32767).astype(np.int16), meta | {"voice": "own:recording", "audio": item.audio})
    rng = np.random.default_rng([config.seed, at, 7])
    voice = draw_voice(config.speakers(), rng)
    prosody = voice.draw(rng)
    if config.part == "replies":
        said, fields = as_reply(item.text, voice, config.language)
    else:
        said, fields = item.text, spoken_by(item.text, voice, config.language)
    spoken = synthesise(said, voice, prosody)
    if len(spoken) > config.max_s * SAMPLE_RATE:
        raise DuologueError(f"it lasts {len(spoken) / SAMPLE_RATE:.0f} s, more than max_s={config.max_s:g}")
    meta |= fields
    return Clip(spoken, meta | {"voice": voice.key, "prosody": dataclasses.asdict(prosody) if prosody else None})


def make_shard(items: list[PlannedClip], start: int, config: Config) -> tuple[list[Clip], list[Failure]]:
    """The clips of some items, the first of which has the place `start`; failures are returned, not raised."""
    clips, failures = [], []
    for at, item in enumerate(items, start=start):
        try:
            if item.problem:
                raise DuologueError(item.problem)
            clips.append(make_clip(item, at, config))
        except DuologueError as error:
            failures.append(Failure(item.id, str(error)))
    return clips, failures


def run(config: Config, *, progress: bool = True) -> dict[str, Any]:
    """Make or complete the data set; returns its counts, and the unknown words that were met.

    Raises DuologueError when the source is wrong or holds nothing of use, a synthesiser is not installed, or the folder
    holds another data set.
    """
    items = plan(read_conversations(config.source), config)
    if not items:
        raise DuologueError(f"{config.source} has no {config.part}")
    unknown = _count_unknown(items, config)
    useful = [item for item in items if not item.problem]
    if not useful:
        hint = f"; {unknown['unknown_words']}; unknown=keep takes them all the same" if unknown else ""
        raise DuologueError(
            f"none of the {len(items)} {config.part} of {config.source} can be used; the first ({items[0].id}): "
            f"{items[0].problem}{hint}"
        )
    if not all(item.audio for item in useful):
        require_voices(config.speakers())
    # where things lie and how many make them does not decide what they are; what is in the source does
    left_out = ("source", "out", "workers", *(["words"] if config.words == Config.words else []))
    parameters = {k: v for k, v in dataclasses.asdict(config).items() if k not in left_out}
    digest = hashlib.sha256(json.dumps([dataclasses.asdict(item) for item in items], sort_keys=True).encode())
    parameters["turns"] = digest.hexdigest()[:16]
    writer = ShardWriter(
        config.out, name=f"turns-{config.part}", sample_rate=SAMPLE_RATE, seed=config.seed, parameters=parameters
    )
    starts = range(0, len(items), config.shard_size)
    counts = run_shards(
        writer,
        [functools.partial(make_shard, items[at : at + config.shard_size], at, config) for at in starts],
        clips=len(items),
        shard_size=config.shard_size,
        workers=config.workers,
        progress=progress,
    )
    return counts | unknown


def _count_unknown(items: list[PlannedClip], config: Config, shown: int = 8) -> dict[str, str]:
    """{"unknown_words": how many in how many turns, what became of those, and the most frequent}; {} for none."""
    words = Counter(word for item in items for word in item.unknown)
    if not words:
        return {}
    turns = sum(bool(item.unknown) for item in items)
    often = sorted(words.items(), key=lambda pair: (-pair[1], pair[0]))[:shown]
    examples = ", ".join(f"{word} ({count})" for word, count in often)
    became = "left out" if config.unknown == "skip" else "kept"
    return {"unknown_words": f"{len(words)} in {turns} of {len(items)} turns, {became}: {examples}"}
