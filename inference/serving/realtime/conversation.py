"""One client's conversation: the session's frames and events on one side, the protocol's events on the other.

What the client appends are the session's frames, and the session's frames are what it is sent while an answer is under
way: sound is sent as it is to be played, not ahead of it. So what was sent is what was heard, but for what the client
still holds when it is interrupted, which ``conversation.item.truncate`` tells.

Without turn detection, what is appended while an answer is under way waits until it is over.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import numpy as np

from ....model.errors import DuologueError
from ....model.language_model.tool_calls import CallFormat
from ...session.events import Event, EventKind, Tick
from ...session.policy import FRAME_MS, Mode
from ...session.state import SessionConfig
from ..http.limits import Limits
from ..protocol.errors import RequestError
from ..protocol.events import event
from ..protocol.formats import Framer
from ..protocol.items import Item, Items, new_id, newest
from ..protocol.response import Response
from ..protocol.response_params import ResponseParams
from ..protocol.settings import Abilities, Settings
from ..protocol.transcription import Transcription
from ..protocol.usage import frames, usage, words
from ..workers.pool import Done, SessionSlot
from .pacing import Pacer

_QUIET_S = 0.24  # a microphone that has sent nothing for so long has stopped
_AT_ONCE = 12  # frames that are handed over before others have their turn


class RealtimeConversation:
    """The protocol's side of one session.

    Args:
        slot: the session's slot of the pool.
        send: takes one JSON text for the client, and does not wait.
        model: the name that the client is told.
        input_rate, output_rate: of the session, Hz.
        abilities: of the model. calls: how it writes calls of functions; None: it calls none.
        on_event: is told of our events by their types, for counting.
    """

    def __init__(
        self,
        slot: SessionSlot,
        send: Callable[[str], None],
        model: str,
        input_rate: int,
        output_rate: int,
        abilities: Abilities,
        calls: CallFormat | None = None,
        on_event: Callable[[str, dict[str, Any]], None] = lambda kind, fields: None,
    ) -> None:
        self._past_chars = Limits().past_chars  # that the session is told of, where it has to read the items again
        self._reading: asyncio.Future[Done] | None = None  # the past, by the session
        self.slot, self._write, self._on_event = slot, send, on_event
        self._rate, self._output_rate = input_rate, output_rate
        self._frame = FRAME_MS * input_rate // 1000
        self.settings = Settings.initial(model, new_id("sess"), abilities)
        self._config, self._calls = self.settings.config(), calls  # config: the session's
        self.items = Items()
        self._conversation = new_id("conv")
        self._framer = Framer(self.settings.input, input_rate, self._frame)
        self._mode = Mode.IDLE
        self.response: Response | None = None
        # The user's turn that is being heard, or was and is not committed yet.
        self._turn: Item | None = None
        self._turn_end_ms = self._decided_ms = 0
        self._onset_ms: int | None = None  # of speech over an answer
        self._recent: list[np.ndarray] = []
        # The answer that was decided upon and of which nothing has been heard.
        self._decided = False
        self._held: Item | None = None  # a turn that waits for `response.create`
        self._writing = False  # it is being written down
        self._asked: Item | None = None  # what the answer under way answers
        self._said_text: list[str] = []  # pieces of an answer that came before its response began
        self._transcription = Transcription(self._send, abilities.transcribes)
        # Time. Frames that were made up do not count in the client's.
        self._stream_ms = 0
        self._made_up_ms = 0
        self._pacer = Pacer(slot, self._frame, self._due, self._happened, self._fail)
        self._last_sound = 0.0  # when the client appended any, by time.monotonic()
        self._waiting: list[np.ndarray | Item] = []  # without turn detection: frames not heard yet, and commits
        self._pressed = False
        self._feeding: asyncio.Task[None] | None = None  # the sound of items is on its way to the session
        self._uncommitted_ms = 0.0
        self._idle_since_ms = 0
        self._stale = False  # the items and what the session remembers differ
        self._finishing = False
        self.closed = asyncio.Event()

    async def open(self) -> None:
        """Greet the client."""
        self._config = self.settings.config()
        await self.slot.call("configure", self._config)
        if self.settings.detection is None:
            await self.slot.call("press", False)
        self._pacer.start()
        self._send("session.created", session=self.settings.seen())

    async def close(self) -> None:
        """Leave."""
        if self._feeding is not None:
            self._feeding.cancel()
        self._pacer.stop()
        self.slot.leave()
        self._waiting, self._recent = [], []

    async def finish(self) -> None:
        """Let an answer under way come to its end, and begin no other."""
        self._finishing = True
        while self.response is not None and not self.closed.is_set():
            await asyncio.sleep(0.05)

    def error(self, error: RequestError, event_id: Any = None) -> None:
        """An error event."""
        self._send("error", error={**error.body(), "event_id": event_id if isinstance(event_id, str) else None})

    # Parts of the above.

    def _send(self, kind: str, **fields: Any) -> None:
        self._on_event(kind, fields)
        self._write(event(kind, fields))

    def _keep(self, frames: list[np.ndarray]) -> None:
        """What is appended without turn detection."""
        self._turn = self._turn or Item("user", None, spoken=True, rate=self._rate)
        for frame in frames:
            self._turn.hear(frame)
        self._waiting += frames

    def _pump(self) -> None:
        """Let the session hear what waits, unless an answer is under way or a turn waits for one."""
        last = max((i + 1 for i, what in enumerate(self._waiting) if isinstance(what, Item)), default=0)
        if self.response is not None or self._decided:
            return
        hear = self._waiting if self._held is None else self._waiting[:last]
        self._waiting = [] if self._held is None else self._waiting[last:]
        for what in hear:
            if isinstance(what, Item):
                self._press(False)
                self._hold(what)
                self._pacer.make_up()
            else:
                self._press(True)
                self._pacer.push(what)

    def _press(self, down: bool) -> None:
        if self._pressed != down:
            self._pressed = down
            self._ask("press", down)

    def _hold(self, item: Item) -> None:
        """A turn that waits for its answer, and is written down meanwhile."""
        self._held, self._writing, self._transcription.item = item, True, item
        self._pacer.wake()

    async def _forget_turn(self) -> None:
        """What is being heard was nobody's turn."""
        self._turn, self._held, self._writing = None, None, False
        self._decided, self._pressed = False, False
        self._said_text = []
        self._transcription.drop()
        if self.settings.detection is None:
            self._ask("press", False)
        await self.slot.call("discard")

    def _changed(self) -> None:
        """The items are not what the session remembers."""
        self._stale = True
        self._sync()

    def _sync(self, now: bool = False) -> None:
        """Let the session read the items anew, if it has to; ``now``: even while it reads what they were before."""
        if self._stale and self.response is None and not self._decided and self._held is None:
            if self._reading is not None and not now:
                return  # a client may add hundreds of items: they are read once the last have been
            self._stale = False
            reading = self._reading = self._ask("remember", newest(self.items.past(), self._past_chars))
            reading.add_done_callback(self._read)

    def _read(self, reading: asyncio.Future[Done]) -> None:
        if reading is self._reading:
            self._reading = None
            if not reading.cancelled():
                self._sync()

    def _ask(self, method: str, *args: Any) -> asyncio.Future[Done]:
        """Something of the session that nobody waits for."""
        future = self.slot.call(method, *args)
        future.add_done_callback(self._called)
        return future

    def _called(self, future: asyncio.Future[Done]) -> None:
        if not future.cancelled() and (error := future.exception()) is not None:
            self._fail(error)

    async def _answer_held(self, params: ResponseParams) -> None:
        await self._configure(params.settings)
        item, self._held, self._writing = self._held, None, False
        for other in self.items:  # written before it was spoken: part of what was said, from the next turn on
            self._stale, other.wanted = self._stale or other.wanted, False
        self._start_response(item, params)
        await self.slot.call("respond")

    async def _answer_items(self, asked: list[Item], params: ResponseParams) -> None:
        spoken = [item for item in asked if item.wanted and item.spoken]
        texts = [item.about if item in spoken else item.text or "" for item in asked if item.role == "user"]
        text = " ".join(texts)
        results = [item for item in asked if item.role == "result"]
        self._decided = True  # so that nothing else is answered meanwhile
        try:
            await self._configure(params.settings)
            if results:
                called, told = self.items.calls_of(results)
                written = [{"role": "user", "content": text}] if text.strip() else []
                await self.slot.call("results", called, [*told, *written])
            elif not asked:
                await self.slot.call("speak_first")
            elif not spoken:
                await self.slot.call("type", text)
            elif text.strip():
                await self.slot.call("about", text)
        except DuologueError:
            self._decided = False
            await self._configure(self.settings)
            raise
        for item in asked:
            item.wanted = False
        self._start_response(asked[-1] if asked else None, params)
        if not spoken or results:
            return
        self._transcription.item = spoken[-1]
        self._feeding = asyncio.create_task(self._feed(spoken))

    async def _feed(self, spoken: list[Item]) -> None:
        """Let the session hear these items, no more at a time than others can wait for."""
        try:
            self._ask("press", True)
            for item in spoken:
                waveform = await asyncio.to_thread(item.waveform)
                for i, frame in enumerate(waveform.reshape(-1, self._frame), 1):
                    self._pacer.make_up(frame)
                    if i % _AT_ONCE == 0:
                        await self._pacer.caught_up()
            self._fed()
        except Exception as fault:  # a fault of ours must not leave a client waiting for ever
            self._fail(fault)

    def _fed(self) -> None:
        """The session has heard the items, or is to hear no more of them: what was appended meanwhile comes next."""
        self._feeding = None
        self._ask("press", False)
        self._pacer.make_up()
        self._ask("respond")
        if self.settings.detection is None:
            return
        self._ask("hands_free")
        frames, self._waiting = self._waiting, []
        for frame in frames:
            if not isinstance(frame, Item):
                self._pacer.push(frame)

    async def _configure(self, settings: Settings) -> None:
        """Let the session behave so: for one response, or from now on."""
        config = self._config_of(settings)
        if config != self._config:
            await self.slot.call("configure", config)
            self._config = config

    def _config_of(self, settings: Settings) -> SessionConfig:
        """What the client says as the system is part of the instructions."""
        told = self.items.system() if settings.abilities.instructions else ""
        if told:
            given = settings.session["instructions"]
            settings = settings.with_field("instructions", "\n\n".join(filter(None, (given, told))))
        return settings.config()

    def _start_response(
        self, asked: Item | None, params: ResponseParams | None = None, timings: dict[str, float] | None = None
    ) -> None:
        if self.response is None:
            self._decided, self._asked = False, asked
            self.response = Response(
                self._send, self.items, self._output_rate, self._conversation,
                params or ResponseParams(self.settings), self._calls, timings,
            )  # fmt: skip
            self._pacer.wake()

    async def _cancel_response(self, reason: str, samples: int | None = None) -> None:
        response = self.response
        if self._feeding is not None:  # it has not been heard to its end
            self._feeding.cancel()
            self._transcription.drop()
            await self.slot.call("discard")
            self._fed()
            heard = ""
        else:
            heard = (await self.slot.call("truncate", samples)).value
        if response is not None and response is self.response:
            self._end_response("cancelled", reason, heard)

    def _end_response(self, status: str, reason: str | None = None, heard: str | None = None) -> None:
        response, self.response = self.response, None
        assert response is not None
        self._write_down(True)
        response.end(status, reason, self._usage(response), heard)
        self._idle_since_ms = self._stream_ms
        config = self._config_of(self.settings)
        if config != self._config:
            self._config = config
            self._ask("configure", config)
        self._sync()
        self._pump()

    def _usage(self, response: Response) -> dict[str, Any]:
        asked, answer = self._asked, response.item
        before = sum(words(item.text) for item in self.items if item not in (asked, answer))
        if asked is None:
            return usage(before, 0, 0, *response.made())
        if asked.spoken:
            return usage(before, 0, frames(sum(map(len, asked.sound)), asked.rate), *response.made())
        return usage(before, words(asked.text), 0, *response.made())

    # The session's frames.

    @property
    def _busy(self) -> bool:
        """Whether time must go on even if the client sends nothing."""
        return self.response is not None or self._decided or self._writing

    def _due(self, next_: float) -> float | None:
        """When a frame of silence is due where there is no microphone and something is to be said."""
        if not self._busy or self._feeding is not None:
            return None
        if self._writing or (self.response is not None and not self.response.spoken):
            return 0.0  # nobody listens: as fast as it goes
        return next_ if self.settings.detection is None else max(next_, self._last_sound + _QUIET_S)

    def _happened(self, done: Done, made_up: bool, frame: np.ndarray) -> None:
        tick: Tick = done.value
        self._stream_ms += FRAME_MS
        self._made_up_ms += FRAME_MS * made_up
        self._mode = done.mode
        keep = 300 // FRAME_MS + 1
        self._recent = [*self._recent[-keep:], frame]
        if self.settings.detection is not None and self._turn is not None:
            self._turn.hear(frame)
        for each in tick.events:
            self._one(each, done)
        if self.settings.detection is not None and not self._pressed:
            if done.mode is Mode.LISTENING and self._turn is None and self.response is None and not self._decided:
                self._begin_turn(self._stream_ms if self._onset_ms is None else self._onset_ms)
            elif done.mode is Mode.IDLE:
                self._idle(made_up)
        if self.response is not None and done.mode in (Mode.ANSWERING, Mode.DUCKED):
            self.response.sound(tick.pcm, done.played)
        if self._busy:
            self._pacer.wake()

    def _one(self, what: Event, done: Done) -> None:
        """One event of the session, in the protocol's terms."""
        kind = what.kind
        if kind is EventKind.SPEECH_STARTED:
            if self._decided and self._turn is not None:  # the turn had not ended
                self._decided, self._said_text = False, []
                self._transcription.drop()
            self._onset_ms = what.at_ms
        elif kind is EventKind.SPEECH_STOPPED:
            self._turn_end_ms = what.at_ms
        elif kind is EventKind.ANSWER_STARTED:
            self._decided_ms = what.at_ms
            self._answer_decided()
        elif kind is EventKind.TURN_IGNORED:
            if self._turn is not None:
                self._stopped(self._turn)
                self._send("input_audio_buffer.cleared")
            self._turn = None
        elif kind is EventKind.USER_TEXT:
            self._transcription.hear(what.delta)
            self._write_down(False)
        elif kind is EventKind.TRANSCRIBED:
            self._transcribed()
        elif kind is EventKind.ANSWER_TEXT:
            self._said_text.append(what.delta)
            self._say()
        elif kind is EventKind.ANSWER_CALL:
            self._audible(done.late_ms)
            if self.response is not None:
                self.response.call(what.delta)
        elif kind is EventKind.ANSWER_AUDIBLE:
            self._audible(done.late_ms)
        elif kind is EventKind.INTERRUPTED:
            self._interrupted(what.text)
        elif kind is EventKind.ANSWER_FINISHED:
            self._audible(done.late_ms)
            if self.response is not None:
                full = ("incomplete", "max_output_tokens") if done.full else ("completed", None)
                self._end_response(*full)

    def _client_ms(self, at_ms: int) -> int:
        """Of the session's time -> of what the client has appended."""
        return max(0, at_ms - self._made_up_ms)

    def _begin_turn(self, onset_ms: int) -> None:
        """The user has begun to speak."""
        padding = self.settings.config().duplex.before_ms
        self._onset_ms = None
        self._turn = Item("user", None, spoken=True, rate=self._rate)
        for frame in self._recent:
            self._turn.hear(frame)
        start = self._client_ms(onset_ms - padding)
        self._send("input_audio_buffer.speech_started", audio_start_ms=start, item_id=self._turn.id)

    def _stopped(self, turn: Item) -> None:
        end = self._client_ms(self._turn_end_ms)
        self._send("input_audio_buffer.speech_stopped", audio_end_ms=end, item_id=turn.id)

    def _committed(self, item: Item) -> None:
        before = self.items.last_id()
        self._send("input_audio_buffer.committed", item_id=item.id, previous_item_id=before)
        self.items.add(item)
        self._send("conversation.item.added", previous_item_id=before, item=item.seen())
        self._send("conversation.item.done", previous_item_id=before, item=item.seen())

    def _answer_decided(self) -> None:
        if self.response is not None or self._turn is None or self.settings.detection is None:
            return
        if self.settings.config().on_request:
            item, self._turn = self._turn, None
            self._stopped(item)
            self._committed(item)
            self._hold(item)
        else:
            self._decided = True
            self._pacer.wake()

    def _audible(self, late_ms: float) -> None:
        """The answer's first sample: the turn before it has ended for good."""
        if self.response is None:
            turn, self._turn = self._turn, None
            if turn is not None:
                self._stopped(turn)
                self._committed(turn)
                self._transcription.item = turn
                self._write_down(False)
            timings = None
            if turn is not None:
                endpoint, compute = self._decided_ms - self._turn_end_ms, self._stream_ms - self._decided_ms + late_ms
                timings = {"endpoint_ms": endpoint, "compute_ms": compute, "first_ms": endpoint + compute}
                self._on_event("first_audio", {"ms": endpoint + compute})
            self._start_response(turn, timings=timings)
        self._say()

    def _say(self) -> None:
        if self.response is not None and self._said_text:
            self._write_down(True)
            text, self._said_text = "".join(self._said_text), []
            self.response.say(text)

    def _write_down(self, complete: bool) -> None:
        """What was heard, as far as it is known."""
        self._transcription.tell(self.settings.transcribes, complete)

    def _transcribed(self) -> None:
        """All that was heard of the turn is written down."""
        if self._writing:
            self._writing = False
            self._write_down(True)
            if self.settings.transcription_only:
                self._held = None
                self._ask("discard")

    def _interrupted(self, heard: str) -> None:
        """The user spoke over the answer, and means it."""
        response = self.response
        self._begin_turn(self._stream_ms if self._onset_ms is None else self._onset_ms)
        if response is not None:
            self._end_response("cancelled", "turn_detected", heard)
            if response.spoken:
                end = response.item.sent_ms
                self._send("conversation.item.truncated", item_id=response.item.id, content_index=0, audio_end_ms=end)

    def _idle(self, made_up: bool) -> None:
        """Nobody speaks: for too long?"""
        detection = self.settings.detection
        timeout = detection.get("idle_timeout_ms") if detection is not None else None
        if not timeout or made_up or self.response is not None or self._decided or self._held is not None:
            return
        if self._stream_ms - self._idle_since_ms < timeout:
            return
        item = Item("user", None, spoken=True, rate=self._rate)
        start, end = self._client_ms(self._idle_since_ms), self._client_ms(self._stream_ms)
        self._idle_since_ms = self._stream_ms
        self._send("input_audio_buffer.timeout_triggered", audio_start_ms=start, audio_end_ms=end, item_id=item.id)
        self._committed(item)
        self._start_response(item)
        self._transcription.item = item
        self._ask("press", True)
        for _ in range(4):
            self._pacer.make_up()
        self._ask("press", False)
        self._pacer.make_up()
        self._ask("hands_free")
        self._ask("respond")

    def _fail(self, error: BaseException) -> None:
        """A fault of ours: say so, once, and hang up."""
        if not self.closed.is_set():
            self.closed.set()
            self.error(RequestError(f"the session has failed: {error}"[:200], "server_error", status=500))
