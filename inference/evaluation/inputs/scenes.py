"""Scripted dialogues for full duplex: who speaks when, over what, with what noise, and what ought to happen.

    render(kind, index, seed, voices) -> Scene       a microphone recording with exact ground truth

Each scene is one behaviour, so that a system which merely plays `input.wav` in real time and records what it says
can be judged on it. Questions come from a question set's test split; every sound is synthesised.

Source of the behaviours: Full-Duplex-Bench (Lin et al., arXiv 2503.04721), sections 3 and 4, and its version 1.5.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from typing import Any

import numpy as np

from ....data_prep.datasets.question_sets import Dialogue, QuestionSet, question_set
from ....data_prep.datasets.recordings import trimmed
from ....data_prep.datasets.splits import Split
from ....data_prep.speech.engine import SAMPLE_RATE, Voice
from ....data_prep.speech.synthesis import synthesise
from ....model.errors import DuologueError
from .loudspeaker import Echo

LEVEL_DBFS = -24.0  # root mean square of the user's speech
FLOOR_DBFS = -66.0  # of the room
OVER_ECHO_DBFS = LEVEL_DBFS - 6  # of who speaks over an echo: as loud as it, if it is 6 dB fainter than the user
ROOM_S = 6.0  # for an answer, after the last thing that is said
ECHO_S = 3.0  # more, for its echo

BACK_CHANNELS = ("uh", "yeah", "okay", "right", "good", "so")  # what is said without wanting the turn
STOPS = ("stop", "please stop", "stop it")
STATEMENTS = (
    "i will be home at seven", "we had fish and bread for dinner", "my sister is at school today",
    "the train was very late again", "put it on the table over there", "he said that she was not there",
    "they went to the sea last summer", "that was the best game of the year", "she has a new red car",
    "the children are in the garden",
)  # fmt: skip


class SceneKind(Enum):
    """What is tried."""

    QUESTION = "question"  # to be answered
    PAUSE = "pause"  # a question with a pause inside: to be waited for
    NOISE = "noise"  # coughs, bangs, hiss: to be ignored
    TALKER = "talker"  # somebody else, far off: to be ignored
    STATEMENT = "statement"  # the user, to somebody else: to be ignored
    BACK_CHANNEL = "back_channel"  # "yeah" over the answer: to be talked through
    COUGH = "cough"  # the same with a cough
    INTERRUPTION = "interruption"  # another question over the answer: to be answered instead
    STOP = "stop"  # "stop" over the answer: to be obeyed
    RECALL = "recall"  # "what did you say" over the answer: to be told what was heard of it, and no more
    ECHO = "echo"  # the assistant's own voice comes back: to be ignored; only for whoever can be fed in a loop
    ECHO_INTERRUPTION = "echo_interruption"  # another question over the answer and its echo: to be answered instead


ECHOING = (SceneKind.ECHO, SceneKind.ECHO_INTERRUPTION)


@dataclass(frozen=True)
class Span:
    """Something heard from ``start_ms`` to ``end_ms``: the user's words, or what it is, in brackets."""

    start_ms: int
    end_ms: int
    text: str


@dataclass(frozen=True)
class Scene:
    """A microphone recording and the truth about it.

    spans: all that is heard, in order. The user's turns are those of ``turns``: what was asked, its answer and slot.
    echo: how the loudspeaker is heard in the microphone; None: not at all.
    """

    name: str
    kind: SceneKind
    voice: str
    pcm: np.ndarray  # (n,) float32 at 16 kHz
    spans: tuple[Span, ...]
    turns: tuple[Dialogue, ...]
    echo: Echo | None = None

    def truth(self) -> dict[str, object]:
        """All but the samples, as plain JSON values."""
        return {
            "name": self.name,
            "kind": self.kind.value,
            "voice": self.voice,
            "duration_ms": 1000 * len(self.pcm) // SAMPLE_RATE,
            "spans": [vars(span) for span in self.spans],
            "turns": [{"question": t.question, "answer": t.answer, "slot": t.slot} for t in self.turns],
            "echo": None if self.echo is None else vars(self.echo),
        }

    @classmethod
    def from_truth(cls, truth: Mapping[str, Any], pcm: np.ndarray) -> Scene:
        """What :meth:`truth` says, with the samples. A turn's category, template and operands are not in it."""
        turns = (Dialogue(category="", kind="", template="", operands="", **turn) for turn in truth["turns"])
        spans = tuple(Span(**span) for span in truth["spans"])
        echo = None if truth.get("echo") is None else Echo(**truth["echo"])
        return cls(truth["name"], SceneKind(truth["kind"]), truth["voice"], pcm, spans, tuple(turns), echo)


class _Tape:
    """A scene in the making: sounds one after the other, with silence between."""

    def __init__(self, voice: Voice, rng: np.random.Generator) -> None:
        self.voice, self.rng = voice, rng
        self.parts: list[np.ndarray] = []
        self.spans: list[Span] = []

    @property
    def now_ms(self) -> int:
        return 1000 * sum(map(len, self.parts)) // SAMPLE_RATE

    def wait(self, seconds: float) -> None:
        self.parts.append(np.zeros(round(seconds * SAMPLE_RATE), np.float32))

    def sound(self, wave: np.ndarray, text: str, level_dbfs: float) -> None:
        start = self.now_ms
        self.parts.append(_at_level(wave, level_dbfs))
        self.spans.append(Span(start, self.now_ms, text))

    def say(self, text: str, voice: Voice | None = None, level_dbfs: float = LEVEL_DBFS) -> None:
        speaker = voice or self.voice
        wave = synthesise(text, speaker, speaker.draw(self.rng)).astype(np.float32) / 32768
        self.sound(trimmed(wave), text, level_dbfs)

    def finish(self) -> np.ndarray:
        wave = np.concatenate(self.parts)
        wave += 10 ** (FLOOR_DBFS / 20) * self.rng.standard_normal(len(wave)).astype(np.float32)
        return np.clip(wave, -1, 1)


def render(
    kind: SceneKind, index: int, seed: int, voices: Sequence[Voice], data: str = "nano"
) -> Scene:  # fmt: skip
    """The ``index``-th scene of a kind: the same one whenever it is asked for.

    Args:
        voices: who may be the user; the far talker of a TALKER scene is another of them (or the same, if there is one).
        data: the question set that is asked from, by name.

    Raises:
        SynthesisError: a voice cannot be had. DuologueError: no voices.
    """
    if not voices:
        raise DuologueError("a scene needs at least one voice")
    questions = question_set(data)
    rng = np.random.default_rng([seed, index, list(SceneKind).index(kind)])
    voice = voices[index % len(voices)]
    tape, turns = _Tape(voice, rng), []
    echo = None
    tape.wait(rng.uniform(0.5, 1.5))
    if kind is SceneKind.NOISE:
        for _ in range(int(rng.integers(2, 5))):
            make, name = _NOISES[int(rng.integers(len(_NOISES)))]
            tape.sound(make(rng), name, LEVEL_DBFS + rng.uniform(-6, 4))
            tape.wait(rng.uniform(0.8, 2.0))
    elif kind is SceneKind.STATEMENT:
        tape.say(str(rng.choice(STATEMENTS)))
    elif kind is SceneKind.TALKER:
        other = voices[(index + 1) % len(voices)]
        question = _question(questions, seed, index, kind, 0).question
        wave = synthesise(question, other, other.draw(rng)).astype(np.float32) / 32768
        tape.sound(_far(trimmed(wave), rng), f"[far talker] {question}", LEVEL_DBFS - rng.uniform(12, 20))
    elif kind is SceneKind.PAUSE:
        turns.append(_question(questions, seed, index, kind, 0, least=5))
        words = turns[0].question.split()
        cut = int(rng.choice(_pauses(questions, turns[0].question)))
        tape.say(" ".join(words[:cut]))
        tape.wait(rng.uniform(0.3, 0.9))
        tape.say(" ".join(words[cut:]))
    else:
        turns.append(_question(questions, seed, index, kind, 0, long=kind is not SceneKind.QUESTION))
        tape.say(turns[0].question)
        if kind in ECHOING:
            echo = Echo.draw(index, rng)
        if kind is SceneKind.ECHO:
            tape.wait(ECHO_S)
        elif kind is not SceneKind.QUESTION:
            tape.wait(rng.uniform(1.5, 2.0))  # by then it is being answered
            if kind is SceneKind.BACK_CHANNEL:
                tape.say(str(rng.choice(BACK_CHANNELS)))
            elif kind is SceneKind.COUGH:
                tape.sound(_cough(rng), "[cough]", LEVEL_DBFS)
            elif kind is SceneKind.STOP:
                tape.say(str(rng.choice(STOPS)))
            elif kind is SceneKind.RECALL:
                again = str(rng.choice(questions.recall_questions(Split.TEST)))
                turns.append(replace(turns[0], question=again, slot=turns[0].answer))
                tape.say(again)
            else:
                turns.append(_question(questions, seed, index, kind, 1))
                tape.say(turns[1].question, level_dbfs=LEVEL_DBFS if echo is None else OVER_ECHO_DBFS)
    tape.wait(ROOM_S)
    return Scene(
        f"{kind.value}-{seed}-{index:04d}",
        kind,
        voice.key,
        tape.finish(),
        tuple(tape.spans),
        tuple(turns),
        echo,
    )


def _question(
    questions: QuestionSet, seed: int, index: int, kind: SceneKind, which: int, least: int = 0, long: bool = False
) -> Dialogue:
    """A test question that stands by itself; of at least so many words; long: one whose answer takes long to say."""
    for attempt in range(10_000):
        key = ((index * 16 + list(SceneKind).index(kind)) * 2 + which) * 10_000 + attempt
        dialogue = questions.dialogue(seed, key, Split.TEST, fillers=False)
        if dialogue.category in questions.small_talk or len(dialogue.question.split()) < least:
            continue
        if dialogue.before is not None or (least and not _pauses(questions, dialogue.question)):
            continue
        if not long or len(dialogue.answer.split()) >= 6:
            return dialogue
    raise DuologueError(f"{questions.name} has no question for a scene of the kind {kind.value}")


def _pauses(questions: QuestionSet, question: str) -> list[int]:
    """Behind how many words the pause may be: two at least, and two at least to come."""
    return [cut for cut in questions.pauses_in(question) if 2 <= cut < len(question.split()) - 1]


def _at_level(wave: np.ndarray, dbfs: float) -> np.ndarray:
    power = float(np.sqrt(np.mean(np.square(wave, dtype=np.float64)))) or 1.0
    return (wave * (10 ** (dbfs / 20) / power)).astype(np.float32)


def _far(wave: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """From across a room: a reverberant tail, and little above 3 kHz."""
    length = round(0.5 * SAMPLE_RATE)
    room = rng.standard_normal(length) * np.exp(-6.9 * np.arange(length) / length)
    room = np.convolve(room, np.hanning(7), "same")
    size = 1 << (len(wave) + length).bit_length()
    return np.fft.irfft(np.fft.rfft(wave, size) * np.fft.rfft(room, size), size)[: len(wave) + length].astype(
        np.float32
    )


def _burst(rng: np.random.Generator, seconds: float, attack: float, low: float, high: float) -> np.ndarray:
    """Noise between two frequencies (Hz) that comes in ``attack`` s and dies away."""
    count = round(seconds * SAMPLE_RATE)
    spectrum = np.fft.rfft(rng.standard_normal(count))
    hz = np.fft.rfftfreq(count, 1 / SAMPLE_RATE)
    wave = np.fft.irfft(spectrum * ((hz > low) & (hz < high)), count)
    t = np.arange(count) / SAMPLE_RATE
    return (wave * np.minimum(1, t / attack) * np.exp(-4 * t / seconds)).astype(np.float32)


def _cough(rng: np.random.Generator) -> np.ndarray:
    """Two bursts, the second softer."""
    first, second = (_burst(rng, rng.uniform(0.15, 0.3), 0.01, 150, rng.uniform(2500, 5000)) for _ in range(2))
    gap = np.zeros(round(rng.uniform(0.03, 0.1) * SAMPLE_RATE), np.float32)
    return np.concatenate([first, gap, 0.6 * second])


def _bang(rng: np.random.Generator) -> np.ndarray:
    return _burst(rng, rng.uniform(0.1, 0.5), 0.002, 40, rng.uniform(800, 6000))


def _hiss(rng: np.random.Generator) -> np.ndarray:
    return _burst(rng, rng.uniform(0.5, 1.5), 0.2, 500, 7500)


def _tone(rng: np.random.Generator) -> np.ndarray:
    """A ring of two notes."""
    t = np.arange(round(rng.uniform(0.3, 1.0) * SAMPLE_RATE)) / SAMPLE_RATE
    low, high = rng.uniform(400, 700), rng.uniform(900, 1400)
    return (np.sin(2 * np.pi * low * t) + np.sin(2 * np.pi * high * t)).astype(np.float32)


_NOISES = ((_cough, "[cough]"), (_bang, "[bang]"), (_hiss, "[hiss]"), (_tone, "[ring]"))
