"""What the client appends, on its way to the session, and the user's turns in it, on their way into the items."""

from __future__ import annotations

import time

import numpy as np

from ..protocol.errors import RequestError
from ..protocol.formats import AudioFormat
from ..protocol.items import Item
from ..protocol.settings import Settings
from ..protocol.transcription import Transcription
from .common import Common
from .heard_turn import HeardTurn
from .input_buffer import InputBuffer
from .turns import Stage

_QUIET_S = 0.24  # a microphone that has sent nothing for so long has stopped


class Hearing:
    """The user's side of one conversation.

    waits: the session hears items, and what is appended comes after them. pressed: push-to-talk is.
    committed: the turn that was committed last. held: a turn that waits for ``response.create``.
    """

    def __init__(self, common: Common) -> None:
        self._common = common
        settings, model = common.settings, common.model
        self.buffer = InputBuffer(settings.input, model.input_rate, model.frame)
        self.turn = HeardTurn(common.send, model.input_rate)
        self.transcription = Transcription(common.send, settings.abilities.transcribes)
        self.waits = self.pressed = False
        self.committed: Item | None = None
        self.held: Item | None = None
        self._last_sound = 0.0  # when the client appended any, by time.monotonic()

    def forget(self) -> None:
        """All of it."""
        self.buffer.waiting = []
        self.turn.forget()

    async def follow(self, settings: Settings) -> None:
        """Other settings hold."""
        common, manual = self._common, settings.detection is None
        was_manual = common.turns.manual
        self.set_format(settings)
        common.settings = settings
        self.set_turns(settings)
        if manual != was_manual:
            await self.forget_turn()
            if manual:
                self.buffer.begin_turns()
            else:
                common.port.hands_free()

    def set_format(self, settings: Settings) -> None:
        """Take what is appended for the format that the settings say; the sound of tracks is always PCM."""
        self.buffer.listen_to(settings.input if self._common.output is None else AudioFormat.PCM)

    def set_turns(self, settings: Settings) -> None:
        """Let turns begin and end as the settings say."""
        turns = self._common.turns
        turns.manual, turns.unanswered = settings.detection is None, settings.transcription_only
        turns.on_request = settings.config().on_request

    # What the client appends.

    def append(self, piece: bytes) -> None:
        """A second of sound, or less."""
        self._last_sound = time.monotonic()
        if self._common.turns.manual:
            self.buffer.keep(piece)
            self.pump()
        elif self.waits:
            self.buffer.waiting += self.buffer.frames(piece)
        else:
            for frame in self.buffer.frames(piece):
                self._common.pacer.push(frame)

    def commit(self) -> None:
        """The turn is over.

        Raises:
            RequestError: there is none, or too short a one.
        """
        turns = self._common.turns
        if turns.manual:
            self.add(self.buffer.commit())
            self.pump()
        elif turns.stage is Stage.HEARING:
            self.end_turn()
        else:
            raise RequestError("no speech has been heard since the last commit", "input_audio_buffer_commit_empty")

    async def clear(self) -> None:
        """What is not committed was not said."""
        turns = self._common.turns
        self.buffer.clear(turns.manual)
        if self.pressed if turns.manual else not self.waits and not turns.held:
            await self.forget_turn()

    def pump(self) -> None:
        """Without turn detection: let the session hear what waits, unless an answer is under way, or a turn waits for
        one."""
        common = self._common
        if not common.turns.manual or not common.turns.open_to_all:
            return
        for what in self.buffer.take(not common.turns.held):
            if isinstance(what, Item):
                self._press(False)
                self.committed = what
                common.do(common.turns.committed())
                common.pacer.make_up()
            else:
                self._press(True)
                common.pacer.push(what)

    async def set_aside(self) -> None:
        """Without turn detection: a response comes first, and what is not committed is heard, anew, once it is over."""
        if self.pressed:
            self._press(False)
            await self._common.port.discard()
            self.buffer.rewind()

    def resume(self) -> None:
        """The session has heard the items: what was appended meanwhile comes next."""
        self.waits = False
        self._common.port.hands_free()
        for frame in self.buffer.take(True):
            if not isinstance(frame, Item):
                self._common.pacer.push(frame)

    def due(self, next_: float) -> float:
        """When a frame of silence is due in the place of the microphone's next, which would be due then, by
        time.monotonic()."""
        return next_ if self._common.turns.manual else max(next_, self._last_sound + _QUIET_S)

    # The user's turn.

    def frame(self, frame: np.ndarray, made_up: bool) -> None:
        """One more frame (frame,) has been heard."""
        self.turn.frame(frame, made_up)

    def begin_turn(self) -> None:
        """The user has begun to speak."""
        self.turn.begin(self._common.port.config.duplex.before_ms)

    def go_on(self) -> None:
        """The turn had not ended."""
        self._common.said = []
        self.transcription.drop()

    def end_turn(self) -> None:
        """Let the session take it for over."""
        self._common.port.press(False)
        self._common.pacer.make_up()
        self._common.port.hands_free()

    def drop_turn(self) -> None:
        """It was nobody's."""
        self.turn.take()
        self._common.send("input_audio_buffer.cleared")

    def commit_turn(self) -> None:
        """It becomes an item."""
        item = self.committed = self.turn.take()
        if item is not None:
            self.add(item)
            self.transcription.item = item
            self.write_down(False)

    def hold(self) -> None:
        """The item waits for a response."""
        self.held = self.transcription.item = self.committed
        self.committed = None
        self._common.pacer.wake()

    def written(self) -> None:
        """All that was heard of it is written down."""
        self.write_down(True)
        self.held = self.held if self._common.turns.held else None

    async def forget_turn(self) -> None:
        """What is being heard was nobody's turn."""
        common = self._common
        common.turns.forget()
        self.turn.take()
        self.held, self.pressed, common.said = None, False, []
        self.transcription.drop()
        if common.turns.manual:
            common.port.press(False)
        if not common.turns.responding:  # otherwise all that the session hears has been committed
            await common.port.discard()

    def tell_manner(self, probabilities: dict[str, float]) -> None:
        """How the turn was spoken that is over: an event beside the API's."""
        item = self.turn.item or self.committed or self.held
        if item is not None:
            self._common.send("input_audio_buffer.manner", item_id=item.id, manner=probabilities)

    def add(self, item: Item) -> None:
        """A turn that is over becomes an item of the conversation."""
        items, send = self._common.items, self._common.send
        before = items.last_id()
        send("input_audio_buffer.committed", item_id=item.id, previous_item_id=before)
        items.add(item)
        send("conversation.item.added", previous_item_id=before, item=item.seen())
        send("conversation.item.done", previous_item_id=before, item=item.seen())

    def write_down(self, complete: bool) -> None:
        """What was heard, as far as it is known."""
        self.transcription.tell(self._common.settings.transcribes, complete)

    def _press(self, down: bool) -> None:
        if self.pressed != down:
            self.pressed = down
            self._common.port.press(down)
