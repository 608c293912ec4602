"""One client's conversation: the session's frames and events on one side, the protocol's events on the other.

What the client appends are the session's frames, and the session's frames are what it is sent while an answer is under
way: sound is sent as it is to be played, not ahead of it. So what was sent is what was heard, but for what the client
still holds when it is interrupted, which ``conversation.item.truncate`` tells.

Whose turn it is is up to :mod:`.turns`; here it is done.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from ....model.errors import DuologueError
from ....model.language_model.tool_calls import CallFormat
from ...session.events import Event, EventKind, Tick
from ...session.policy import FRAME_MS, Mode
from ...session.state import SessionConfig
from ..protocol.errors import RequestError
from ..protocol.events import event
from ..protocol.items import Item, Items, new_id, newest
from ..protocol.response import Response
from ..protocol.response_params import ResponseParams
from ..protocol.settings import Settings
from ..protocol.transcription import Transcription
from ..protocol.usage import usage_of
from ..workers.pool import Done, SessionSlot
from .heard_turn import HeardTurn
from .input_buffer import InputBuffer
from .pacing import Feeding, Pacer
from .port import SessionPort
from .turns import Do, Stage, Turns

_QUIET_S = 0.24  # a microphone that has sent nothing for so long has stopped


@dataclass(frozen=True, kw_only=True)
class Model:
    """What a conversation is to know of the model. input_rate, output_rate: of its session, Hz. calls: how it writes
    calls of functions; None: it calls none."""

    input_rate: int
    output_rate: int
    calls: CallFormat | None = None

    @property
    def frame(self) -> int:
        """Samples in 80 ms of input."""
        return FRAME_MS * self.input_rate // 1000


class Conversation:
    """The protocol's side of one session.

    Args:
        slot: the session's slot of the pool.
        send: takes one JSON text for the client, and does not wait.
        settings: what the session begins with.
        past_chars: that the session is told of, where it has to read the items again.
        on_event: is told of our events by their types, for counting.
    """

    def __init__(
        self,
        slot: SessionSlot,
        send: Callable[[str], None],
        model: Model,
        settings: Settings,
        past_chars: int,
        on_event: Callable[[str, dict[str, Any]], None] = lambda kind, fields: None,
    ) -> None:
        self._write, self._on_event, self._past_chars = send, on_event, past_chars
        self.model, self.settings = model, settings
        self.items, self.turns = Items(), Turns()
        self.port = SessionPort(slot, settings.config(), self._fail)
        self.pacer = Pacer(slot, model.frame, self._due, self._happened, self._fail)
        self.buffer = InputBuffer(settings.input, model.input_rate, model.frame)
        self.response: Response | None = None
        self.closed = asyncio.Event()
        self._id = new_id("conv")
        self._heard = HeardTurn(self.send, model.input_rate)
        self._transcription = Transcription(self.send, settings.abilities.transcribes)
        self._feeding: Feeding | None = None  # the sound of items is on its way to the session
        self._committed: Item | None = None  # the turn that was committed last
        self._held: Item | None = None  # a turn that waits for `response.create`
        self._asked: Item | None = None  # what the answer under way answers
        self._said: list[str] = []  # pieces of an answer that came before its response began
        self._last: Event | None = None  # of the session
        self._done: Done | None = None  # the last frame
        self._idle_since_ms = 0
        self._last_sound = 0.0  # when the client appended any, by time.monotonic()
        self._pressed = False
        self._stale = False  # the items and what the session remembers differ

    async def open(self, settings: Settings) -> None:
        """Greet the client."""
        self.settings = settings
        self.buffer.listen_to(settings.input)
        self.port.config = settings.config()
        self._follow()
        await self.port.open(self.turns.manual)
        self.pacer.start()
        self.send("session.created", session=settings.seen())

    def close(self) -> None:
        """Leave."""
        if self._feeding is not None:
            self._feeding.stop()
        self.pacer.stop()
        self.port.slot.leave()
        self.buffer.waiting = []
        self._heard.forget()

    def error(self, error: RequestError, event_id: Any = None) -> None:
        """An error event."""
        self.send("error", error={**error.body(), "event_id": event_id if isinstance(event_id, str) else None})

    def send(self, kind: str, **fields: Any) -> None:
        """An event for the client."""
        self._on_event(kind, fields)
        self._write(event(kind, fields))

    @property
    def busy(self) -> bool:
        """Whether something is under way that the client waits for."""
        return self.turns.busy or self.pacer.under_way > 0

    # How the session behaves.

    async def set(self, settings: Settings) -> None:
        """Other settings, which the session takes already (:meth:`configure`)."""
        manual, was_manual = settings.detection is None, self.turns.manual
        self.buffer.listen_to(settings.input)
        self.settings = settings
        self._follow()
        if manual != was_manual:
            await self._forget_turn()
            if manual:
                self.buffer.begin_turns()
            else:
                self.port.hands_free()

    async def fed(self) -> None:
        """Returns once the sound of items has been heard."""
        if self._feeding is not None:
            await self._feeding.over()

    async def configure(self, settings: Settings) -> None:
        """Let the session behave so: for one response, or from now on.

        Raises:
            DuologueError: instructions or tools that do not fit; nothing has changed.
        """
        await self.port.configure(self._config_of(settings))

    def _follow(self) -> None:
        turns, config = self.turns, self.settings.config()
        turns.manual, turns.unanswered = self.settings.detection is None, self.settings.transcription_only
        turns.on_request = config.on_request

    def _config_of(self, settings: Settings) -> SessionConfig:
        """What the client says as the system is part of the instructions."""
        told = self.items.system() if settings.abilities.instructions else ""
        return settings.instructed(told).config()

    # What the client appends.

    def append(self, piece: bytes) -> None:
        """A second of sound, or less."""
        self._last_sound = time.monotonic()
        if self.turns.manual:
            self.buffer.keep(piece)
            self.pump()
        elif self._feeding is not None:
            self.buffer.waiting += self.buffer.frames(piece)
        else:
            for frame in self.buffer.frames(piece):
                self.pacer.push(frame)

    def commit(self) -> None:
        """The turn is over.

        Raises:
            RequestError: there is none, or too short a one.
        """
        if self.turns.manual:
            self._commit(self.buffer.commit())
            self.pump()
        elif self.turns.stage is Stage.HEARING:
            self._end_turn()
        else:
            raise RequestError("no speech has been heard since the last commit", "input_audio_buffer_commit_empty")

    async def clear(self) -> None:
        """What is not committed was not said."""
        self.buffer.clear(self.turns.manual)
        if self._pressed if self.turns.manual else self._feeding is None and not self.turns.held:
            await self._forget_turn()

    def pump(self) -> None:
        """Without turn detection: let the session hear what waits, unless an answer is under way, or a turn waits for
        one."""
        if not self.turns.manual or not self.turns.open_to_all:
            return
        for what in self.buffer.take(not self.turns.held):
            if isinstance(what, Item):
                self._press(False)
                self._committed = what
                self._do(self.turns.committed())
                self.pacer.make_up()
            else:
                self._press(True)
                self.pacer.push(what)

    def _press(self, down: bool) -> None:
        if self._pressed != down:
            self._pressed = down
            self.port.press(down)

    async def _forget_turn(self) -> None:
        """What is being heard was nobody's turn."""
        self.turns.forget()
        self._heard.take()
        self._held, self._pressed, self._said = None, False, []
        self._transcription.drop()
        if self.turns.manual:
            self.port.press(False)
        if not self.turns.responding:  # otherwise all that the session hears has been committed
            await self.port.discard()

    # Items.

    def changed(self) -> None:
        """The items are not what the session remembers."""
        self._stale = True
        self._sync()

    def _sync(self) -> None:
        """Let the session read the items anew, if it has to. (A client may add hundreds: they are read once the last
        have been.)"""
        if self.turns.open_to_all and not self.port.reading:
            self._remember()

    def _remember(self) -> None:
        if self._stale and not self.turns.held:
            self._stale = False
            self.port.remember(newest(self.items.past(), self._past_chars), self._sync)

    def deleted(self, item: Item) -> None:
        """An item is no more."""
        if item is self._held:
            self._held = None
            self._do(self.turns.deleted())
        self.changed()

    async def truncate(self, item: Item, samples: int, end_ms: int) -> None:
        """An answer of which no more was heard."""
        if self.response is not None and item is self.response.item:
            await self.cancel(samples)
        elif item is self.items.last("assistant") and self.turns.open_to_all:
            item.text = await self.port.truncate(samples)
        elif end_ms < item.sent_ms:  # long ago: as many of its words as of its time
            said = (item.text or "").split()
            item.text = " ".join(said[: len(said) * end_ms // item.sent_ms])
            self.changed()

    # Responses.

    async def respond(self, params: ResponseParams, given: Items | None = None) -> None:
        """What the client wants a response to: the turn that waits, or items, ``given`` ones or the conversation's.

        Raises:
            Refused: a response is under way. DuologueError: there can be none, or a turn waits and is not asked about.
        """
        *first, do = self.turns.ask(given is not None)
        self._do(first)
        try:
            if do is Do.ANSWER_HELD:
                await self._answer_held(params)
            else:
                await self._answer(params, given)
        except DuologueError:
            self.turns.asked_in_vain()
            self.port.reconfigure(self._config_of(self.settings))
            self._sync()
            self.pump()
            raise

    async def _answer_held(self, params: ResponseParams) -> None:
        await self.configure(params.settings)
        item, self._held = self._held, None
        for other in self.items:  # written before it was spoken: part of what was said, from the next turn on
            self._stale, other.wanted = self._stale or other.wanted, False
        self._begin(item, params)
        self.port.respond()

    async def _answer(self, params: ResponseParams, given: Items | None) -> None:
        items = self.items if given is None else given
        if given is None:
            self._remember()
        else:
            self._stale = True
            self.port.remember(newest(given.past(), self._past_chars))
        asked, last = [item for item in items if item.wanted], items.last("user")
        if not asked and last is not None and last.text and not params.own_instructions:
            asked = [last]  # once more
        results = [item for item in asked if item.role == "result"]
        spoken = [item for item in asked if item.wanted and item.spoken and not results]
        texts = [item.about if item in spoken else item.text or "" for item in asked if item.role == "user"]
        text = " ".join(texts)
        await self.configure(params.settings)
        if results:
            called, told = items.calls_of(results)
            await self.port.results(called, [*told, *([{"role": "user", "content": text}] if text.strip() else [])])
        elif not asked:
            await self.port.speak_first()
        elif not spoken:
            await self.port.type(text)
        elif text.strip():
            await self.port.about(text)
        for item in asked:
            item.wanted = False
        self._begin(asked[-1] if asked else None, params, bool(spoken))
        if spoken:
            self._transcription.item = spoken[-1]
            self.port.press(True)
            self._feeding = Feeding(self.pacer, spoken, self._end_feeding, self._fail)

    def _end_feeding(self) -> None:
        """The session has heard the items, or is to hear no more of them: what was appended meanwhile comes next."""
        self._feeding = None
        self.turns.read()
        self.port.press(False)
        self.pacer.make_up()
        self.port.respond()
        if self.turns.manual:
            return
        self.port.hands_free()
        for frame in self.buffer.take(True):
            if not isinstance(frame, Item):
                self.pacer.push(frame)

    def _begin(self, asked: Item | None, params: ResponseParams, reading: bool = False) -> None:
        if self.turns.begin(reading):
            self._begin_response(asked, params)

    def _begin_response(
        self, asked: Item | None, params: ResponseParams, timings: dict[str, float] | None = None
    ) -> None:
        model, self._asked = self.model, asked
        self.response = Response(self.send, self.items, model.output_rate, self._id, params, model.calls, timings)
        self.pacer.wake()

    async def cancel(self, samples: int | None = None) -> None:
        """End the response under way; ``samples``: of it that were heard, if the client knows better."""
        response = self.response
        if self._feeding is not None:  # it has not been heard to its end
            self._feeding.stop()
            self._transcription.drop()
            await self.port.discard()
            self._end_feeding()
            heard = ""
        else:
            heard = await self.port.truncate(samples)
        if response is not None and response is self.response:
            self.turns.cancelled()
            self._end_response("cancelled", "client_cancelled", heard)

    def _end_response(self, status: str, reason: str | None = None, heard: str | None = None) -> None:
        response, self.response = self.response, None
        assert response is not None
        self._write_down(True)
        response.end(status, reason, usage_of(self.items, self._asked, response.item, response.made()), heard)
        self._idle_since_ms = self._heard.now_ms
        self.port.reconfigure(self._config_of(self.settings))
        self._sync()
        self.pump()

    # The session's frames.

    def _due(self, next_: float) -> float | None:
        """When a frame of silence is due where there is no microphone and something is to be said."""
        if not self.turns.busy or self._feeding is not None:
            return None
        if self.turns.writing or (self.response is not None and not self.response.spoken):
            return 0.0  # nobody listens: as fast as it goes
        return next_ if self.turns.manual else max(next_, self._last_sound + _QUIET_S)

    def _happened(self, done: Done, made_up: bool, frame: np.ndarray) -> None:
        tick: Tick = done.value
        self._done = done
        self._heard.frame(frame, made_up)
        for each in tick.events:
            self._one(each)
        if done.mode is Mode.LISTENING and not self._pressed:
            self._do(self.turns.listening())
        elif done.mode is Mode.IDLE and not self._pressed and not made_up:
            self._idle()
        if self.response is not None and done.mode in (Mode.ANSWERING, Mode.DUCKED):
            self.response.sound(tick.pcm, done.played)
        if self.turns.busy:
            self.pacer.wake()

    def _one(self, what: Event) -> None:
        """One event of the session, in the protocol's terms."""
        kind, turns, self._last = what.kind, self.turns, what
        if kind is EventKind.SPEECH_STARTED:
            self._do(turns.speech_started())
            self._heard.speech_started(what.at_ms)
        elif kind is EventKind.SPEECH_STOPPED:
            self._heard.speech_stopped(what.at_ms)
        elif kind is EventKind.ANSWER_STARTED:
            self._heard.decided(what.at_ms)
            self._do(turns.decided())
        elif kind is EventKind.TURN_IGNORED:
            self._do(turns.ignored())
        elif kind is EventKind.USER_TEXT:
            self._transcription.hear(what.delta)
            self._write_down(False)
        elif kind is EventKind.TRANSCRIBED:
            self._do(turns.transcribed())
        elif kind is EventKind.ANSWER_TEXT:
            self._said.append(what.delta)
            self._say()
        elif kind is EventKind.ANSWER_CALL:
            self._do(turns.audible())
            if self.response is not None:
                self.response.call(what.delta)
        elif kind is EventKind.ANSWER_AUDIBLE:
            self._do(turns.audible())
            self._say()
        elif kind is EventKind.INTERRUPTED:
            self._do(turns.interrupted())
        elif kind is EventKind.ANSWER_FINISHED:
            self._do(turns.finished())

    # What the turns may ask for.

    def _do(self, actions: list[Do]) -> None:
        for action in actions:
            self._ACTIONS[action](self)

    def _begin_turn(self) -> None:
        self._heard.begin(self.port.config.duplex.before_ms)

    def _go_on(self) -> None:
        self._said = []
        self._transcription.drop()

    def _end_turn(self) -> None:
        self.port.press(False)
        self.pacer.make_up()
        self.port.hands_free()

    def _drop_turn(self) -> None:
        self._heard.take()
        self.send("input_audio_buffer.cleared")

    def _commit_turn(self) -> None:
        turn = self._committed = self._heard.take()
        if turn is not None:
            self._commit(turn)
            self._transcription.item = turn
            self._write_down(False)

    def _hold(self) -> None:
        self._held = self._transcription.item = self._committed
        self._committed = None
        self.pacer.wake()

    def _written(self) -> None:
        self._write_down(True)
        self._held = self._held if self.turns.held else None

    def _begin_answer(self) -> None:
        turn, self._committed, timings = self._committed, None, None
        if turn is not None and self._done is not None:
            timings = self._heard.timings(self._done.late_ms)
            self._on_event("first_audio", {"ms": timings["first_ms"]})
        self._begin_response(turn, ResponseParams(self.settings), timings)

    def _finish_response(self) -> None:
        self._say()
        full = self._done is not None and self._done.full
        self._end_response(*(("incomplete", "max_output_tokens") if full else ("completed", None)))

    def _interrupt_response(self) -> None:
        response = self.response
        assert response is not None and self._last is not None
        self._end_response("cancelled", "turn_detected", self._last.text)
        if response.spoken:
            end = response.item.sent_ms
            self.send("conversation.item.truncated", item_id=response.item.id, content_index=0, audio_end_ms=end)

    _ACTIONS: ClassVar[dict[Do, Callable[[Conversation], None]]] = {
        Do.BEGIN_TURN: _begin_turn,
        Do.GO_ON: _go_on,
        Do.END_TURN: _end_turn,
        Do.STOP_TURN: lambda self: self._heard.stop(),
        Do.DROP_TURN: _drop_turn,
        Do.COMMIT: _commit_turn,
        Do.HOLD: _hold,
        Do.WRITTEN: _written,
        Do.DISCARD: lambda self: self.port.drop(),
        Do.RESPOND: lambda self: self.port.respond(),
        Do.BEGIN_RESPONSE: _begin_answer,
        Do.FINISH_RESPONSE: _finish_response,
        Do.INTERRUPT_RESPONSE: _interrupt_response,
    }

    # Parts of the above.

    def _commit(self, item: Item) -> None:
        before = self.items.last_id()
        self.send("input_audio_buffer.committed", item_id=item.id, previous_item_id=before)
        self.items.add(item)
        self.send("conversation.item.added", previous_item_id=before, item=item.seen())
        self.send("conversation.item.done", previous_item_id=before, item=item.seen())

    def _say(self) -> None:
        if self.response is not None and self._said:
            self._write_down(True)
            text, self._said = "".join(self._said), []
            self.response.say(text)

    def _write_down(self, complete: bool) -> None:
        """What was heard, as far as it is known."""
        self._transcription.tell(self.settings.transcribes, complete)

    def _idle(self) -> None:
        """Nobody speaks: for too long?"""
        detection, now_ms, since_ms = self.settings.detection, self._heard.now_ms, self._idle_since_ms
        timeout = detection.get("idle_timeout_ms") if detection is not None else None
        if not timeout or self.turns.stage is not Stage.IDLE or self.turns.held or now_ms - since_ms < timeout:
            return
        self._idle_since_ms = now_ms
        item = Item("user", None, spoken=True, rate=self.model.input_rate)
        start, end = self._heard.client_ms(since_ms), self._heard.client_ms(now_ms)
        self.send("input_audio_buffer.timeout_triggered", audio_start_ms=start, audio_end_ms=end, item_id=item.id)
        self._commit(item)
        self.turns.ask()
        self._begin(item, ResponseParams(self.settings))
        self._transcription.item = item
        self.port.press(True)
        for _ in range(4):
            self.pacer.make_up()
        self._end_turn()
        self.port.respond()

    def _fail(self, error: BaseException) -> None:
        """A fault of ours: say so, once, and hang up."""
        if not self.closed.is_set():
            self.closed.set()
            self.error(RequestError(f"the session has failed: {error}"[:200], "server_error", status=500))
