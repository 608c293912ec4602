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
    DUCKED = "ducked"  # the assistant has it, but holds its tongue: somebody speaks


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
    shortest_turn_ms: int = 128  # of speech; less is ignored
    longest_turn_ms: int = 30_000  # then it is answered whatever the user does
    interrupt_ms: int = 640  # of speech over the answer stop it for good (it is silent from the first of them on)
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
    unread: an opinion on the words of the turn is still to come, once the answer to it is being prepared.
    withheld: a button is down, so that the turn lasts until it is let go, however long that is.
    mistaken: what was taken for speech until now, without a pause, was the loudspeaker's echo.
    """

    speech: bool
    speech_ms: int
    silence_ms: int
    speaking: bool = False
    audible: bool = False
    turn_state: TurnState | None = None
    unread: bool = False
    withheld: bool = False
    mistaken: bool = False


@dataclass
class DuplexPolicy(State):
    """Where the conversation stands."""

    config: DuplexConfig
    mode: Mode = Mode.IDLE
    prepared: bool = False  # an answer to the turn so far
    turn_ms: int = 0  # since the turn began
    spoken_ms: int = 0  # of speech in it
    over_ms: int = 0  # of speech over the answer, since it was ducked

    def step(self, heard: TurnInput) -> list[Action]:
        """What to do about one more frame."""
        if self.mode is Mode.IDLE:
            return self._listen() if heard.speech else []
        if self.mode is Mode.LISTENING:
            return self._listening(heard)
        if self.mode is Mode.ANSWERING:
            return self._answering(heard)
        return self._ducked(heard)

    def _listen(self) -> list[Action]:
        self.mode, self.prepared, self.turn_ms, self.spoken_ms = Mode.LISTENING, False, FRAME_MS, FRAME_MS
        return [Action.LISTEN]

    def _listening(self, heard: TurnInput) -> list[Action]:
        config = self.config
        if heard.mistaken and self.turn_ms == self.spoken_ms:
            self.mode, self.prepared = Mode.IDLE, False
            return [Action.IGNORE]
        self.turn_ms += 0 if heard.withheld else FRAME_MS
        if heard.speech:
            self.spoken_ms += FRAME_MS
            if self.turn_ms >= config.longest_turn_ms:
                return self._answer(heard)
            if self.prepared:
                self.prepared = False
                return [Action.DROP]
            return []
        enough: dict[TurnState | None, int] = {
            TurnState.QUERY: config.query_endpoint_ms,
            TurnState.WAIT: config.wait_endpoint_ms,
        }
        over = heard.silence_ms >= enough.get(heard.turn_state, config.endpoint_ms)
        if over and not heard.unread:
            return self._answer(heard)
        if not self.prepared and (over or 0 < config.speculate_ms <= heard.silence_ms):
            self.prepared = True
            return [Action.SPECULATE]
        return []

    def _answer(self, heard: TurnInput) -> list[Action]:
        if heard.turn_state is TurnState.NOISE or self.spoken_ms < self.config.shortest_turn_ms:
            self.mode, self.prepared = Mode.IDLE, False
            return [Action.IGNORE]
        self.mode, self.prepared = Mode.ANSWERING, False
        return [Action.ANSWER]

    def _answering(self, heard: TurnInput) -> list[Action]:
        if not heard.speaking:
            self.mode = Mode.IDLE
            return [Action.FINISH, *(self._listen() if heard.speech else [])]
        if not heard.speech:
            return []
        if not heard.audible:
            self.mode = Mode.LISTENING
            return [Action.CONTINUE]
        self.mode, self.over_ms = Mode.DUCKED, heard.speech_ms
        return [Action.DUCK, *self._interrupt(heard)]

    def _ducked(self, heard: TurnInput) -> list[Action]:
        if heard.speech:
            self.over_ms += FRAME_MS
            return self._interrupt(heard)
        if heard.turn_state is TurnState.QUERY:  # as short as "stop"
            return self._interrupt(heard)
        if heard.mistaken or heard.silence_ms >= self.config.resume_ms:
            self.mode = Mode.ANSWERING
            return [Action.RESUME]
        return []

    def _interrupt(self, heard: TurnInput) -> list[Action]:
        long = self.over_ms >= self.config.interrupt_ms and heard.turn_state is not TurnState.NOISE
        if not (long or heard.turn_state is TurnState.QUERY):
            return []
        self._listen()
        self.turn_ms = self.spoken_ms = self.over_ms
        return [Action.INTERRUPT]
