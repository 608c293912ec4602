"""Whose turn is it? A small pure state machine over the speech gate, the reply and, where there is one, the monitor.

It is asked once a frame of 80 ms and answers with what the session is to do. It knows no audio and no model, so that it
can be driven by anything: a session, a replay, a test that draws events at random.

Sources: VITA (arXiv 2408.05211), section 3.3, for no wake word and for noise that is not answered; its endpointing by a
fixed silence is what the monitor and the speculation here are for.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from enum import Enum

from ...model.duplex.monitor import TurnState
from ...model.errors import DuologueError
from ...model.streaming import State

FRAME_MS = 80


class Mode(Enum):
    """What is going on."""

    IDLE = "idle"
    LISTENING = "listening"  # the user has the turn, pauses included
    ANSWERING = "answering"  # the assistant has it, from its decision to its last sample
    DUCKED = "ducked"  # the assistant has it, but is silent: somebody speaks


class Action(Enum):
    """What the session is to do, in the order given."""

    LISTEN = "listen"  # a turn of the user begins, a little before now
    SPECULATE = "speculate"  # prepare an answer to what was said so far, in silence
    DROP = "drop"  # forget that answer: the user goes on
    ANSWER = "answer"  # the turn is over: speak
    IGNORE = "ignore"  # what was heard was nobody's turn: forget it
    CONTINUE = "continue"  # nothing of the answer was heard yet and the user goes on: their turn never ended
    DUCK = "duck"  # fall silent at once
    RESUME = "resume"  # go on where it stopped
    INTERRUPT = "interrupt"  # the answer is over where it was cut; a turn of the user has begun
    FINISH = "finish"  # the answer has been spoken


@dataclass(frozen=True, kw_only=True)
class DuplexConfig:
    """Milliseconds. The defaults are for the speech gate alone; a monitor allows shorter waits."""

    endpoint_ms: int = 680  # of silence end a turn
    query_endpoint_ms: int = 240  # the same if the monitor says QUERY
    wait_endpoint_ms: int = 1600  # the same if it says WAIT
    speculate_ms: int = 160  # of silence, after which an answer is prepared; 0: not before the turn is over
    shortest_turn_ms: int = 128  # of speech, counted in frames of 80 ms; less is ignored
    longest_turn_ms: int = 30_000  # then it is answered whatever the user does
    interrupt_ms: int = 640  # of speech over the answer end it (it is silent from the first of them on)
    resume_ms: int = 240  # of silence, after which a false alarm is over
    before_ms: int = 240  # of sound before speech was noticed belong to it

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if value < 0 or value > 600_000:
                raise DuologueError(f"duplex: {field.name} is {value}; it must be 0 to 600000 ms")
        if not self.query_endpoint_ms <= self.endpoint_ms <= self.wait_endpoint_ms:
            raise DuologueError(
                f"duplex: query_endpoint_ms {self.query_endpoint_ms} <= endpoint_ms {self.endpoint_ms} <= "
                f"wait_endpoint_ms {self.wait_endpoint_ms} must hold"
            )


PRESETS = {
    "responsive": DuplexConfig(endpoint_ms=320, query_endpoint_ms=160, interrupt_ms=400, resume_ms=160),
    "balanced": DuplexConfig(),
    "patient": DuplexConfig(endpoint_ms=960, query_endpoint_ms=400, wait_endpoint_ms=2400, interrupt_ms=800),
}


@dataclass(frozen=True, kw_only=True)
class TurnInput:
    """One frame as the policy sees it.

    speech: somebody speaks; speech_ms, silence_ms: see :class:`~..front_end.speech_gate.SpeechGate`.
    speaking: the answer has samples left or to come. audible: some of it has been played.
    word_monitor_pending: the word monitor will judge the turn, but has not read its transcript yet.
    button_down: push-to-talk, so the turn lasts until the button is let go, however long that is.
    was_echo: what was taken for speech until now, without a pause, was the loudspeaker's echo.
    """

    speech: bool
    speech_ms: int
    silence_ms: int
    speaking: bool = False
    audible: bool = False
    turn_state: TurnState | None = None
    word_monitor_pending: bool = False
    button_down: bool = False
    was_echo: bool = False


@dataclass
class DuplexPolicy(State):
    """Where the conversation stands."""

    config: DuplexConfig
    mode: Mode = Mode.IDLE
    speculating: bool = False  # an answer to the turn so far is prepared
    turn_ms: int = 0  # since the turn began
    spoken_ms: int = 0  # of speech in it
    barge_in_ms: int = 0  # of speech over the answer, since it was ducked

    def step(self, frame: TurnInput) -> list[Action]:
        """What to do about one more frame."""
        if self.mode is Mode.IDLE:
            return self._listen() if frame.speech else []
        if self.mode is Mode.LISTENING:
            return self._listening(frame)
        if self.mode is Mode.ANSWERING:
            return self._answering(frame)
        return self._ducked(frame)

    def _listen(self) -> list[Action]:
        self.mode, self.speculating, self.turn_ms, self.spoken_ms = Mode.LISTENING, False, FRAME_MS, FRAME_MS
        return [Action.LISTEN]

    def _listening(self, frame: TurnInput) -> list[Action]:
        config = self.config
        if frame.was_echo and self.turn_ms == self.spoken_ms:
            self.mode, self.speculating = Mode.IDLE, False
            return [Action.IGNORE]
        self.turn_ms += 0 if frame.button_down else FRAME_MS
        if frame.speech:
            self.spoken_ms += FRAME_MS
            if self.turn_ms >= config.longest_turn_ms:
                return self._answer(frame)
            if self.speculating:
                self.speculating = False
                return [Action.DROP]
            return []
        enough: dict[TurnState | None, int] = {
            TurnState.QUERY: config.query_endpoint_ms,
            TurnState.WAIT: config.wait_endpoint_ms,
        }
        ended = frame.silence_ms >= enough.get(frame.turn_state, config.endpoint_ms)
        if ended and not frame.word_monitor_pending:
            return self._answer(frame)
        if not self.speculating and (ended or 0 < config.speculate_ms <= frame.silence_ms):
            self.speculating = True
            return [Action.SPECULATE]
        return []

    def _answer(self, frame: TurnInput) -> list[Action]:
        if frame.turn_state is TurnState.NOISE or self.spoken_ms < self.config.shortest_turn_ms:
            self.mode, self.speculating = Mode.IDLE, False
            return [Action.IGNORE]
        self.mode, self.speculating = Mode.ANSWERING, False
        return [Action.ANSWER]

    def _answering(self, frame: TurnInput) -> list[Action]:
        if not frame.speaking:
            self.mode = Mode.IDLE
            return [Action.FINISH, *(self._listen() if frame.speech else [])]
        if not frame.speech:
            return []
        if not frame.audible:
            self.mode = Mode.LISTENING
            return [Action.CONTINUE]
        self.mode, self.barge_in_ms = Mode.DUCKED, frame.speech_ms
        return [Action.DUCK, *self._interrupt(frame)]

    def _ducked(self, frame: TurnInput) -> list[Action]:
        if frame.speech:
            self.barge_in_ms += FRAME_MS
            return self._interrupt(frame)
        if frame.turn_state is TurnState.QUERY:  # as short as "stop"
            return self._interrupt(frame)
        if frame.was_echo or frame.silence_ms >= self.config.resume_ms:
            self.mode = Mode.ANSWERING
            return [Action.RESUME]
        return []

    def _interrupt(self, frame: TurnInput) -> list[Action]:
        long = self.barge_in_ms >= self.config.interrupt_ms and frame.turn_state is not TurnState.NOISE
        if not (long or frame.turn_state is TurnState.QUERY):
            return []
        self._listen()
        self.turn_ms = self.spoken_ms = self.barge_in_ms
        return [Action.INTERRUPT]
