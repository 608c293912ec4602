"""The responses of one conversation: how each begins, in answer to what, and how it ends."""

from __future__ import annotations

from collections.abc import Callable

from ....model.errors import DuologueError
from ..protocol.items import Item, Items
from ..protocol.response import Response
from ..protocol.response_params import ResponseParams
from ..protocol.usage import usage_of
from ..workers.pool import Done
from .common import Common
from .hearing import Hearing
from .memory import Memory
from .pacing import Feeding
from .turns import Do, Stage


class Answers:
    """The assistant's side of one conversation.

    Args:
        failed: is told of a fault of ours.

    done: the session's last frame.
    """

    def __init__(
        self, common: Common, hearing: Hearing, memory: Memory, failed: Callable[[BaseException], None]
    ) -> None:
        self._common, self._hearing, self._memory, self._failed = common, hearing, memory, failed
        self.done: Done | None = None
        self._feeding: Feeding | None = None  # the sound of items is on its way to the session
        self._asked: Item | None = None  # what the answer under way answers
        self._idle_since_ms = 0

    def stop(self) -> None:
        """Hand over no more of the sound of items."""
        if self._feeding is not None:
            self._feeding.stop()

    async def fed(self) -> None:
        """Returns once the sound of items has been heard."""
        if self._feeding is not None:
            await self._feeding.over()

    # What the client wants.

    async def respond(self, params: ResponseParams, given: Items | None = None) -> None:
        """A response to the turn that waits, or to items, ``given`` ones or the conversation's.

        Raises:
            Refused: a response is under way. DuologueError: there can be none, or a turn waits and is not asked about.
        """
        common = self._common
        *first, do = common.turns.ask(given is not None)
        common.do(first)
        try:
            if do is Do.ANSWER_HELD:
                await self._answer_held(params)
            else:
                await self._answer(params, given)
        except DuologueError:
            common.turns.asked_in_vain()
            common.port.reconfigure(common.config(common.settings))
            self._memory.sync()
            self._hearing.pump()
            raise

    async def cancel(self, samples: int | None = None) -> None:
        """End the response under way; ``samples``: of it that were heard, if the client knows better."""
        common, response = self._common, self._common.response
        if self._feeding is not None:  # it has not been heard to its end
            self._feeding.stop()
            self._hearing.transcription.drop()
            await common.port.discard()
            self._end_feeding()
            heard = ""
        else:
            if samples is None and common.output is not None and response is not None and response.spoken:
                samples = common.output.played(response.id)
            heard = await common.port.truncate(samples)
        if common.output is not None:
            common.output.clear()
        if response is not None and response is common.response:
            common.turns.cancelled()
            self._end("cancelled", "client_cancelled", heard)

    async def silence(self) -> None:
        """Play nothing more of the response under way, or of the last one."""
        if self._common.response is not None and self._common.response.spoken:
            await self.cancel()
        elif self._common.output is not None:
            self._common.output.clear()

    async def truncate(self, item: Item, samples: int, end_ms: int) -> None:
        """An answer of which no more was heard."""
        common = self._common
        if common.response is not None and item is common.response.item:
            await self.cancel(samples)
        elif item is common.items.last("assistant") and common.turns.open_to_all:
            item.text = await common.port.truncate(samples)
        elif end_ms < item.sent_ms:  # long ago: as many of its words as of its time
            said = (item.text or "").split()
            item.text = " ".join(said[: len(said) * end_ms // item.sent_ms])
            self._memory.changed()

    async def _answer_held(self, params: ResponseParams) -> None:
        await self._common.port.configure(self._common.config(params.settings))
        item, self._hearing.held = self._hearing.held, None
        for other in self._common.items:  # written before it was spoken: part of what was said, from the next turn on
            if other.wanted:
                self._memory.outdate()
            other.wanted = False
        self._begin(item, params)
        self._common.port.respond()

    async def _answer(self, params: ResponseParams, given: Items | None) -> None:
        common, port = self._common, self._common.port
        await self._hearing.set_aside()
        items = common.items if given is None else given
        if given is None:
            self._memory.remember()
        else:
            self._memory.remember_others(given)
        asked, last = [item for item in items if item.wanted], items.last("user")
        if not asked and last is not None and last.text and not params.own_instructions:
            asked = [last]  # once more
        results = [item for item in asked if item.role == "result"]
        spoken = [item for item in asked if item.wanted and item.spoken and not results]
        texts = [item.about if item in spoken else item.text or "" for item in asked if item.role == "user"]
        text = " ".join(texts)
        await port.configure(common.config(params.settings))
        if results:
            called, told = items.calls_of(results)
            await port.results(called, [*told, *([{"role": "user", "content": text}] if text.strip() else [])])
        elif not asked:
            await port.speak_first()
        elif not spoken:
            await port.type(text)
        elif text.strip():
            await port.about(text)
        for item in asked:
            item.wanted = False
        self._begin(asked[-1] if asked else None, params, bool(spoken))
        if spoken:
            self._hearing.transcription.item = spoken[-1]
            port.press(True)
            self._hearing.waits = True
            self._feeding = Feeding(common.pacer, spoken, self._end_feeding, self._failed)

    def _end_feeding(self) -> None:
        """The session has heard the items, or is to hear no more of them."""
        self._feeding = None
        common = self._common
        common.turns.read()
        common.port.press(False)
        common.pacer.make_up()
        common.port.respond()
        if common.turns.manual:
            self._hearing.waits = False
        else:
            self._hearing.resume()

    def _begin(self, asked: Item | None, params: ResponseParams, reading: bool = False) -> None:
        if self._common.turns.begin(reading):
            self._begin_response(asked, params)

    def _begin_response(
        self, asked: Item | None, params: ResponseParams, timings: dict[str, float] | None = None
    ) -> None:
        common, model, self._asked = self._common, self._common.model, asked
        play = None if common.output is None else common.output.play
        common.response = Response(
            common.send, common.items, model.output_rate, common.id, params, model.calls, timings, play
        )
        common.pacer.wake()

    # What the session tells.

    @property
    def feeding(self) -> bool:
        """Whether the sound of items is on its way to the session."""
        return self._feeding is not None

    def begin(self) -> None:
        """The answer to a turn has begun by itself."""
        common, hearing = self._common, self._hearing
        turn, hearing.committed, timings = hearing.committed, None, None
        if turn is not None and self.done is not None:
            timings = hearing.turn.timings(self.done.late_ms)
            common.count("first_audio", {"ms": timings["first_ms"]})
        self._begin_response(turn, ResponseParams(common.settings), timings)

    def say(self) -> None:
        """What it has said so far becomes part of the response."""
        common = self._common
        if common.response is not None and common.said:
            self._hearing.write_down(True)
            text, common.said = "".join(common.said), []
            common.response.say(text)

    def finish(self) -> None:
        """All of it has been said."""
        self.say()
        full = self.done is not None and self.done.full
        self._end(*(("incomplete", "max_output_tokens") if full else ("completed", None)))

    def interrupt(self, heard: str) -> None:
        """The user speaks over it, and means it."""
        common, response = self._common, self._common.response
        assert response is not None
        self._end("cancelled", "turn_detected", heard)
        if not response.spoken:
            return
        item, output = response.item, common.output
        if output is not None:
            played = output.played(response.id)
            output.clear()
            played_ms = played * 1000 // common.model.output_rate
            if played_ms < item.sent_ms:
                item.sent_ms = played_ms
                common.port.cut(played, lambda words: setattr(item, "text", words))
        common.send("conversation.item.truncated", item_id=item.id, content_index=0, audio_end_ms=item.sent_ms)

    def idle(self) -> None:
        """Nobody speaks: for too long?"""
        common, hearing = self._common, self._hearing
        detection, now_ms, since_ms = common.settings.detection, hearing.turn.now_ms, self._idle_since_ms
        timeout = detection.get("idle_timeout_ms") if detection is not None else None
        if not timeout or common.turns.stage is not Stage.IDLE or common.turns.held or now_ms - since_ms < timeout:
            return
        self._idle_since_ms = now_ms
        item = Item("user", None, spoken=True, rate=common.model.input_rate)
        start, end = hearing.turn.client_ms(since_ms), hearing.turn.client_ms(now_ms)
        common.send("input_audio_buffer.timeout_triggered", audio_start_ms=start, audio_end_ms=end, item_id=item.id)
        hearing.add(item)
        common.turns.ask()
        self._begin(item, ResponseParams(common.settings))
        hearing.transcription.item = item
        common.port.press(True)
        for _ in range(4):
            common.pacer.make_up()
        hearing.end_turn()
        common.port.respond()

    def _end(self, status: str, reason: str | None = None, heard: str | None = None) -> None:
        common = self._common
        response, common.response = common.response, None
        assert response is not None
        self._hearing.write_down(True)
        response.end(status, reason, usage_of(common.items, self._asked, response.item, response.made()), heard)
        if common.output is not None:
            common.output.finish(response.id)
        self._idle_since_ms = self._hearing.turn.now_ms
        common.port.reconfigure(common.config(common.settings))
        self._memory.sync()
        self._hearing.pump()
