"""One client's conversation: the session's frames and events on one side, the protocol's events on the other.

What the client appends are the session's frames, and the session's frames are what it is sent while an answer is under
way: sound is sent as it is to be played, not ahead of it. So what was sent is what was heard, but for what the client
still holds when it is interrupted, which ``conversation.item.truncate`` tells.

Whose turn it is is up to :mod:`.turns`; what that means is done by :mod:`.hearing` and :mod:`.answers`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import numpy as np

from ...session.events import Event, EventKind, Tick
from ...session.policy import Mode
from ..protocol.errors import RequestError
from ..protocol.events import event
from ..protocol.items import Item, Items
from ..protocol.response import Response
from ..protocol.settings import Settings
from ..workers.pool import Done, SessionSlot
from .answers import Answers
from .common import Common, Model
from .hearing import Hearing
from .memory import Memory
from .output_buffer import OutputBuffer
from .pacing import Pacer
from .port import SessionPort
from .turns import Do, Stage, Turns


class Conversation:
    """The protocol's side of one session, whatever brings its messages.

    Args:
        slot: the session's slot of the pool.
        write: takes one JSON text for the client, and does not wait.
        settings: what the session begins with.
        past_chars: that the session is told of, where it has to read the items again.
        on_event: is told of our events by their types, for counting.
        plays: sound comes and goes beside the messages (on the tracks of a call), at our pace.

    hearing: the user's side. answers: the assistant's. memory: what the session remembers of the items.
    output: what is to be played, if that is done here.
    """

    def __init__(
        self,
        slot: SessionSlot,
        write: Callable[[str], None],
        model: Model,
        settings: Settings,
        past_chars: int,
        on_event: Callable[[str, dict[str, Any]], None] = lambda kind, fields: None,
        plays: bool = False,
    ) -> None:
        self._write, self._on_event = write, on_event
        self.model, self.closed = model, asyncio.Event()
        self.port = SessionPort(slot, settings.config(), self._fail)
        self.pacer = Pacer(slot, model.frame, self._due, self._happened, self._fail)
        self.output = OutputBuffer(self.send, model.output_rate) if plays else None
        self._common = Common(
            model=model, settings=settings, port=self.port, pacer=self.pacer, send=self.send, do=self._do,
            count=on_event, output=self.output,
        )  # fmt: skip
        self.hearing = Hearing(self._common)
        self.memory = Memory(self._common, past_chars)
        self.answers = Answers(self._common, self.hearing, self.memory, self._fail)
        self._last: Event | None = None  # of the session
        hearing, answers = self.hearing, self.answers
        self._actions: dict[Do, Callable[[], None]] = {
            Do.BEGIN_TURN: hearing.begin_turn,
            Do.GO_ON: hearing.go_on,
            Do.END_TURN: hearing.end_turn,
            Do.STOP_TURN: hearing.turn.stop,
            Do.DROP_TURN: hearing.drop_turn,
            Do.COMMIT: hearing.commit_turn,
            Do.HOLD: hearing.hold,
            Do.WRITTEN: hearing.written,
            Do.DISCARD: self.port.drop,
            Do.RESPOND: self.port.respond,
            Do.BEGIN_RESPONSE: answers.begin,
            Do.FINISH_RESPONSE: answers.finish,
            Do.INTERRUPT_RESPONSE: self._interrupt,
        }

    @property
    def settings(self) -> Settings:
        """That hold."""
        return self._common.settings

    @property
    def items(self) -> Items:
        """What was said."""
        return self._common.items

    @property
    def turns(self) -> Turns:
        """Whose turn it is."""
        return self._common.turns

    @property
    def response(self) -> Response | None:
        """The one under way."""
        return self._common.response

    @property
    def busy(self) -> bool:
        """Whether something is under way that the client waits for."""
        return self.turns.busy or self.pacer.under_way > 0

    async def open(self, settings: Settings) -> None:
        """Greet the client."""
        self._common.settings = settings
        self.hearing.set_format(settings)
        self.port.config = settings.config()
        self.hearing.set_turns(settings)
        await self.port.open(self.turns.manual)
        self.pacer.start()
        self.send("session.created", session=settings.seen())

    def close(self) -> None:
        """Leave."""
        self.answers.stop()
        self.pacer.stop()
        self.port.slot.leave()
        self.hearing.forget()

    def send(self, kind: str, **fields: Any) -> None:
        """An event for the client."""
        self._on_event(kind, fields)
        self._write(event(kind, fields))

    def error(self, error: RequestError, event_id: Any = None) -> None:
        """An error event."""
        self.send("error", error={**error.body(), "event_id": event_id if isinstance(event_id, str) else None})

    async def configure(self, settings: Settings) -> None:
        """Let the session behave so: for one response, or from now on.

        Raises:
            DuologueError: instructions or tools that do not fit; nothing has changed.
        """
        await self.port.configure(self._common.config(settings))

    def deleted(self, item: Item) -> None:
        """An item is no more."""
        if item is self.hearing.held:
            self.hearing.held = None
            self._do(self.turns.deleted())
        self.memory.changed()

    # The session's frames.

    def _due(self, next_: float) -> float | None:
        """When a frame of silence is due where there is no microphone and something is to be said."""
        if not self._goes_on or self.answers.feeding:
            return None
        if self.turns.writing or (self.response is not None and not self.response.spoken):
            return 0.0  # nobody listens: as fast as it goes
        return self.hearing.due(next_)

    def _happened(self, done: Done, made_up: bool, frame: np.ndarray) -> None:
        tick: Tick = done.value
        self.answers.done = done
        self.hearing.frame(frame, made_up)
        for each in tick.events:
            self._one(each)
        pressed = self.hearing.pressed
        if done.mode is Mode.LISTENING and not pressed:
            self._do(self.turns.listening())
        elif done.mode is Mode.IDLE and not pressed and not made_up:
            self.answers.idle()
        if self.response is not None and done.mode in (Mode.ANSWERING, Mode.DUCKED):
            self.response.sound(tick.pcm, done.played)
        if self._goes_on:
            self.pacer.wake()

    @property
    def _goes_on(self) -> bool:
        """Whether time does though nothing comes from the client. A call's microphone may stop in the middle of a turn,
        switched off by the user; over a WebSocket the client sends silence, or what it has so far."""
        return self.turns.busy or (self.output is not None and self.turns.stage is Stage.HEARING)

    def _one(self, what: Event) -> None:
        """One event of the session, in the protocol's terms."""
        kind, turns, hearing, self._last = what.kind, self.turns, self.hearing, what
        if kind is EventKind.SPEECH_STARTED:
            self._do(turns.speech_started())
            hearing.turn.speech_started(what.at_ms)
        elif kind is EventKind.SPEECH_STOPPED:
            hearing.turn.speech_stopped(what.at_ms)
        elif kind is EventKind.MANNER:
            hearing.tell_manner(dict(what.probabilities))
        elif kind is EventKind.ANSWER_STARTED:
            hearing.turn.decided(what.at_ms)
            self._do(turns.decided())
        elif kind is EventKind.TURN_IGNORED:
            self._do(turns.ignored())
        elif kind is EventKind.USER_TEXT:
            hearing.transcription.hear(what.delta)
            hearing.write_down(False)
        elif kind is EventKind.TRANSCRIBED:
            self._do(turns.transcribed())
        elif kind is EventKind.ANSWER_TEXT:
            self._common.said.append(what.delta)
            self.answers.say()
        elif kind is EventKind.ANSWER_CALL:
            self._do(turns.audible())
            if self.response is not None:
                self.response.call(what.delta)
        elif kind is EventKind.ANSWER_AUDIBLE:
            self._do(turns.audible())
            self.answers.say()
        elif kind is EventKind.INTERRUPTED:
            self._do(turns.interrupted())
        elif kind is EventKind.ANSWER_FINISHED:
            self._do(turns.finished())

    def _do(self, actions: list[Do]) -> None:
        for action in actions:
            self._actions[action]()

    def _interrupt(self) -> None:
        assert self._last is not None
        self.answers.interrupt(self._last.text)

    def _fail(self, error: BaseException) -> None:
        """A fault of ours: say so, once, and hang up."""
        if not self.closed.is_set():
            self.closed.set()
            self.error(RequestError(f"the session has failed: {error}"[:200], "server_error", status=500))
