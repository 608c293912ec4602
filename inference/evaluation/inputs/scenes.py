"""Scripted dialogues for full duplex: who speaks when, over what, with what noise, and what ought to happen.

    render(kind, index, seed, voices, material) -> Scene     a microphone recording with exact ground truth

Each scene is one behaviour, so that a system which merely plays `input.wav` in real time and records what it says
can be judged on it. What is said comes from a question set (:mod:`.material`); every sound is synthesised.

Source of the behaviours: Full-Duplex-Bench (Lin et al., arXiv 2503.04721), sections 3 and 4, and its version 1.5.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from typing import Any

import numpy as np

from ....data_prep.datasets.question_sets import Dialogue
from ....data_prep.datasets.recordings import trimmed
from ....data_prep.speech.engine import SAMPLE_RATE, Voice
from ....data_prep.speech.synthesis import synthesise
from ....model.errors import DuologueError
from .loudspeaker import Echo
from .material import Material
from .noises import NOISES, cough, far

LEVEL_DBFS = -24.0  # root mean square of the user's speech
FLOOR_DBFS = -66.0  # of the room
OVER_ECHO_DBFS = LEVEL_DBFS - 6  # of who speaks over an echo: as loud as it, if it is 6 dB fainter than the user
ROOM_S = 6.0  # for an answer, after the last thing that is said
ECHO_S = 3.0  # more, for its echo
ANSWERING_S = (1.5, 2.0)  # behind a question, when its answer is talked over; of a short answer sooner
ANSWERING_BRIEFLY_S = (1.0, 1.3)

BACK_CHANNELS = ("uh", "yeah", "okay", "right", "good", "so")  # what is said without wanting the turn
STOPS = ("stop", "please stop", "stop it")


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
    note: what the scene wanted of its question, and the question set does not have.
    """

    name: str
    kind: SceneKind
    voice: str
    pcm: np.ndarray  # (n,) float32 at 16 kHz
    spans: tuple[Span, ...]
    turns: tuple[Dialogue, ...]
    echo: Echo | None = None
    note: str = ""

    def truth(self) -> dict[str, Any]:
        """All but the samples, as plain JSON values."""
        return {
            "name": self.name,
            "kind": self.kind.value,
            "voice": self.voice,
            "duration_ms": 1000 * len(self.pcm) // SAMPLE_RATE,
            "spans": [vars(span) for span in self.spans],
            "turns": [
                {"question": turn.question, "answer": turn.answer, "slot": turn.slot}
                | ({"system": turn.system} if turn.system else {})
                for turn in self.turns
            ],
            "echo": None if self.echo is None else vars(self.echo),
        } | ({"note": self.note} if self.note else {})

    @classmethod
    def from_truth(cls, truth: Mapping[str, Any], pcm: np.ndarray) -> Scene:
        """What :meth:`truth` says, with the samples. A turn's category, template and operands are not in it."""
        turns = (Dialogue(category="", kind="", template="", operands="", **turn) for turn in truth["turns"])
        spans = tuple(Span(**span) for span in truth["spans"])
        echo = None if truth.get("echo") is None else Echo(**truth["echo"])
        kind, note = SceneKind(truth["kind"]), str(truth.get("note", ""))
        return cls(truth["name"], kind, truth["voice"], pcm, spans, tuple(turns), echo, note)


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


def render(kind: SceneKind, index: int, seed: int, voices: Sequence[Voice], material: Material) -> Scene:
    """The ``index``-th scene of a kind: the same one whenever it is asked for.

    Args:
        voices: who may be the user; the far talker of a TALKER scene is another of them (or the same, if there is one).

    Raises:
        SynthesisError: a voice cannot be had, or cannot say what it ought to. DuologueError: no voices.
    """
    if not voices:
        raise DuologueError("a scene needs at least one voice")
    number = list(SceneKind).index(kind)
    rng = np.random.default_rng([seed, index, number])
    keys = [(index * 16 + number) * 2 + which for which in range(2)]
    voice = voices[index % len(voices)]
    tape, turns, note = _Tape(voice, rng), list[Dialogue](), ""
    echo = None
    tape.wait(rng.uniform(0.5, 1.5))
    if kind is SceneKind.NOISE:
        for _ in range(int(rng.integers(2, 5))):
            make, name = NOISES[int(rng.integers(len(NOISES)))]
            tape.sound(make(rng), name, LEVEL_DBFS + rng.uniform(-6, 4))
            tape.wait(rng.uniform(0.8, 2.0))
    elif kind is SceneKind.STATEMENT:
        tape.say(material.statement(seed, index, rng))
    elif kind is SceneKind.TALKER:
        other = voices[(index + 1) % len(voices)]
        question = material.question(seed, keys[0]).dialogue.question
        wave = synthesise(question, other, other.draw(rng)).astype(np.float32) / 32768
        tape.sound(far(trimmed(wave), rng), f"[far talker] {question}", LEVEL_DBFS - rng.uniform(12, 20))
    elif kind is SceneKind.PAUSE:
        paused = material.question_with_pause(seed, keys[0], rng)
        turns, note, text = [paused.dialogue], paused.note, paused.dialogue.question
        tape.say(text[: paused.cut].strip())
        tape.wait(rng.uniform(0.3, 0.9))
        tape.say(text[paused.cut :].strip())
    else:
        first = material.question(seed, keys[0], long=kind is not SceneKind.QUESTION)
        turns, note = [first.dialogue], first.note
        tape.say(turns[0].question)
        if kind in ECHOING:
            echo = Echo.draw(index, rng)
        if kind is SceneKind.ECHO:
            tape.wait(ECHO_S)
        elif kind is not SceneKind.QUESTION:
            tape.wait(rng.uniform(*(ANSWERING_BRIEFLY_S if note else ANSWERING_S)))  # by then it is being answered
            if kind is SceneKind.BACK_CHANNEL:
                tape.say(str(rng.choice(BACK_CHANNELS)))
            elif kind is SceneKind.COUGH:
                tape.sound(cough(rng), "[cough]", LEVEL_DBFS)
            elif kind is SceneKind.STOP:
                tape.say(str(rng.choice(STOPS)))
            elif kind is SceneKind.RECALL:
                again = material.recall_question(rng)
                turns.append(replace(turns[0], question=again, slot=turns[0].answer))
                tape.say(again)
            else:
                turns.append(material.question(seed, keys[1]).dialogue)
                tape.say(turns[1].question, level_dbfs=LEVEL_DBFS if echo is None else OVER_ECHO_DBFS)
    tape.wait(ROOM_S)
    name = f"{kind.value}-{seed}-{index:04d}"
    return Scene(name, kind, voice.key, tape.finish(), tuple(tape.spans), tuple(turns), echo, note)


def _at_level(wave: np.ndarray, dbfs: float) -> np.ndarray:
    power = float(np.sqrt(np.mean(np.square(wave, dtype=np.float64)))) or 1.0
    return (wave * (10 ** (dbfs / 20) / power)).astype(np.float32)
