"""A question set as a set of utterances for `duologue evaluate asr`: in chosen voices, or as it was recorded."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from ....data_prep.audio import AudioSource
from ....data_prep.datasets.conversations import read_conversations
from ....data_prep.datasets.speech_sets import SoundFile, Utterance
from ....data_prep.speech.engine import SAMPLE_RATE
from ....data_prep.speech.synthesis import synthesise
from ....data_prep.speech.voices import find_voices, require_voices
from .questions import questions_of


def generated(voices: str, count: int, seed: int, split: str | None, data: str) -> Iterator[Utterance]:
    """The questions of a question set, by its name; the set of an utterance is its voice."""
    speakers = find_voices(voices)
    require_voices(speakers)
    for at, dialogue in enumerate(questions_of(data, seed, count, split)):
        voice = speakers[at % len(speakers)]

        def sound(text: str = dialogue.question, at: int = at) -> AudioSource:
            return SAMPLE_RATE, synthesise(text, speakers[at % len(speakers)])

        yield Utterance(id=f"{at:04d}", text=dialogue.question, set=voice.key, sound=sound)


def recorded_turns(folder: Path) -> Iterator[Utterance]:
    """What is said in the recordings of one's own conversations (turns.jsonl), where it is in writing too."""
    for conversation in read_conversations(folder):
        for number, turn in enumerate(conversation.turns):
            if turn.audio and turn.text:
                sound = SoundFile(path=folder / turn.audio, stretch=turn.stretch, rate=SAMPLE_RATE)
                yield Utterance(id=f"{conversation.id}-{number}", text=turn.text, set=folder.name, sound=sound)
