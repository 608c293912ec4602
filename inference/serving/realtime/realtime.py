"""OpenAI's Realtime protocol: what a client may ask of its conversation, event by event.

Whatever is wrong with an event is told in an error event that names it, and changes nothing; of ``session.update``,
field by field (protocol/session_update.py). Its code is the API's own where clients go by it.
``rate_limits.updated`` is never sent, for no limit counts tokens.
"""

from __future__ import annotations

import asyncio
import dataclasses
import itertools
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Any, ClassVar

import numpy as np

from ....model.errors import DuologueError
from ..http.limits import Limits, check_texts
from ..protocol.errors import RequestError
from ..protocol.events import parse, read_object
from ..protocol.formats import from_base64
from ..protocol.given_item import item_of
from ..protocol.items import LONGEST_S, Item, Items, new_id
from ..protocol.response import Response
from ..protocol.response_params import ResponseParams
from ..protocol.session_update import Update, update
from ..protocol.settings import Settings
from ..requests.out_of_band import OutOfBand, Question
from ..requests.questioner import Questioner
from ..workers.pool import FRAME_S, PoolFull
from .conversation import Conversation
from .turns import Refused

_HELD_S = 4  # of sound that may be under way in a turn that the client ends; then it is read no further for a while
_ASIDES = 4  # responses outside the conversation that may be under way at a time
_log = logging.getLogger(__name__)


class RealtimeSession:
    """A conversation whose client speaks the protocol.

    Args:
        questioner: gives a session slot for a response outside the conversation.
        limits: of the client.
    """

    def __init__(self, conversation: Conversation, questioner: Callable[[], Questioner], limits: Limits) -> None:
        self.conversation = conversation
        self._questioner, self._limits = questioner, limits
        self._heard_of = time.monotonic()  # the client
        self._asides: list[OutOfBand] = []
        self._finishing = False

    @property
    def items(self) -> Items:
        """Of its conversation."""
        return self.conversation.items

    @property
    def closed(self) -> asyncio.Event:
        """Set once there is nothing more to come."""
        return self.conversation.closed

    async def open(self, first: dict[str, Any] | None = None) -> None:
        """Greet the client; ``first``: what its session begins with, as in ``session.update``."""
        await self.conversation.open(update(self.conversation.settings, first or {}).settings)

    def close(self) -> None:
        """Leave."""
        self.conversation.close()
        for aside in self._asides:
            aside.task.cancel()

    async def finish(self) -> None:
        """Let answers under way come to their end, and begin no others."""
        self._finishing = True
        while self.conversation.response is not None and not self.closed.is_set():
            await asyncio.sleep(0.05)
        await asyncio.gather(*(aside.task for aside in self._asides), return_exceptions=True)

    async def idle(self) -> None:
        """Returns once nothing has come from the client for too long, and it waits for nothing."""
        while (left := self._heard_of + self._limits.idle_s - time.monotonic()) > 0:
            await asyncio.sleep(left)
            if self.conversation.busy or self._asides:
                self._heard_of = time.monotonic()

    def error(self, error: RequestError, event_id: Any = None) -> None:
        """An error event."""
        self.conversation.error(error, event_id)

    async def handle(self, message: str) -> None:
        """One message of the client. Whatever is wrong with it becomes an error event."""
        self._heard_of = time.monotonic()
        event_id = None
        try:
            data = parse(message, self._limits)
            event_id = data.get("event_id")
            handler = self._HANDLERS.get(data["type"])
            if handler is None:  # of a later version of the protocol
                raise RequestError(f"{data['type']} is not served", "unsupported_value", "type")
            await handler(self, data)
        except RequestError as error:
            self.error(error, event_id if event_id is not None else _event_id(message))
        except PoolFull as full:
            self.error(RequestError(str(full), "server_overloaded", status=503), event_id)
        except DuologueError as error:
            self.error(RequestError(str(error)), event_id)

    def hear(self, sound: bytes) -> None:
        """What has come over a track: 16-bit samples at 24 kHz."""
        self._heard_of = time.monotonic()
        conversation, hearing = self.conversation, self.conversation.hearing
        manual = conversation.turns.manual
        if manual and hearing.buffer.cut:
            return
        try:
            hearing.buffer.check(sound, manual, conversation.pacer.under_way)
        except RequestError as error:
            if manual:  # once, until the buffer is committed or cleared
                self.error(error)
        else:
            hearing.append(sound)

    # What a client may ask for.

    async def _update(self, data: dict[str, Any]) -> None:
        change, conversation = data.get("session"), self.conversation
        if not isinstance(change, dict):
            raise RequestError("session must be an object", "missing_required_parameter", "session")
        done = update(conversation.settings, change)
        twice = dataclasses.replace(self._limits, text_chars=2 * self._limits.text_chars)
        check_texts(done.settings.session, twice)  # what was set before counts too
        if (done.settings.detection is None) is not conversation.turns.manual:
            await conversation.answers.fed()
        settings = await self._settled(done)
        await conversation.hearing.follow(settings)
        if done.held or done.warnings or not done.errors:
            session = settings.seen()
            warnings = [*session.get("warnings", []), *done.warnings]
            conversation.send("session.updated", session=session | ({"warnings": warnings} if warnings else {}))
        for error in done.errors:
            self.error(error, data.get("event_id"))

    async def _settled(self, done: Update) -> Settings:
        """The settings as the model takes them: without texts that do not fit into its context."""
        before = self.conversation.settings.session
        try:
            await self.conversation.configure(done.settings)
            return done.settings
        except DuologueError as error:
            kept = done.settings.with_field("instructions", before["instructions"]).with_field("tools", before["tools"])
            changed = [name for name in ("instructions", "tools") if kept.session[name] != done.settings.session[name]]
            if not changed:
                raise
            done.errors.append(RequestError(str(error), "invalid_value", f"session.{changed[0]}"))
            done.held = [path for path in done.held if path not in ("instructions", "tools")]
            await self.conversation.configure(kept)
            return kept

    async def _append(self, data: dict[str, Any]) -> None:
        conversation, hearing = self.conversation, self.conversation.hearing
        if conversation.output is not None:
            raise RequestError("the sound of a call comes over its track", "unsupported_value", "type")
        manual = conversation.turns.manual
        if manual and hearing.buffer.cut:
            return  # without what was refused before it, it would be another turn
        sound = from_base64(data["audio"])
        # Without turn detection the client is read no faster than it is heard (see below).
        hearing.buffer.check(sound, manual, conversation.pacer.under_way)
        for piece in hearing.buffer.pieces(sound):  # a client may append minutes at once
            hearing.append(piece)
            while manual and conversation.pacer.under_way * FRAME_S > _HELD_S and not self.closed.is_set():
                await asyncio.sleep(FRAME_S)
            await asyncio.sleep(0)

    async def _commit(self, data: dict[str, Any]) -> None:
        self.conversation.hearing.commit()

    async def _clear(self, data: dict[str, Any]) -> None:
        await self.conversation.hearing.clear()
        self.conversation.send("input_audio_buffer.cleared")

    async def _create_item(self, data: dict[str, Any]) -> None:
        conversation = self.conversation
        item = await asyncio.to_thread(self._item_of, data["item"])
        waiting_s = item.seconds + sum(other.seconds for other in self.items if other.wanted)
        if waiting_s > LONGEST_S:
            what = f"{waiting_s:.0f} s of sound wait for a response: at most {LONGEST_S} s can be answered at once"
            raise RequestError(what, "invalid_value", "item.content")
        if item.role == "result" and not any(item.call_id == other.call_id for other in self.items.called()):
            what = f"no function was called with call_id {item.call_id[:80]!r}"
            raise RequestError(what, "invalid_tool_call_id", "item.call_id")
        before = self.items.add(item, data.get("previous_item_id"))
        if item.role == "result" or (item.role == "user" and data.get("previous_item_id") is None):
            item.wanted = True
        elif item.role == "system":
            try:
                if conversation.turns.open_to_all:
                    await conversation.configure(conversation.settings)
            except DuologueError:  # it does not fit
                self.items.delete(item.id)
                raise
        elif item.role != "call":
            if item.role == "assistant":  # what stands before it is answered
                for other in itertools.takewhile(lambda other: other is not item, self.items):
                    other.wanted = False
            conversation.memory.changed()
        conversation.send("conversation.item.added", previous_item_id=before, item=item.seen())
        conversation.send("conversation.item.done", previous_item_id=before, item=item.seen())

    async def _retrieve_item(self, data: dict[str, Any]) -> None:
        item = self.items.find(data["item_id"], code="item_retrieve_invalid_item_id")
        seen = await asyncio.to_thread(item.seen, self.conversation.settings.output)
        self.conversation.send("conversation.item.retrieved", item=seen)

    async def _delete_item(self, data: dict[str, Any]) -> None:
        item = self.items.find(data["item_id"], code="item_delete_invalid_item_id")
        conversation = self.conversation
        if conversation.response is not None and item is conversation.response.item:
            await conversation.answers.cancel()
        self.items.delete(item.id)
        conversation.deleted(item)
        conversation.send("conversation.item.deleted", item_id=item.id)

    async def _truncate_item(self, data: dict[str, Any]) -> None:
        item = self.items.find(data["item_id"], code="item_truncate_invalid_item_id")
        end_ms = data["audio_end_ms"]
        if item.role != "assistant" or not item.spoken:
            raise RequestError("only the audio of an answer can be truncated", "invalid_value", "item_id")
        if data["content_index"] != 0:
            raise RequestError("an answer has one part: content_index is 0", "invalid_value", "content_index")
        if end_ms < 0:
            raise RequestError(f"audio_end_ms is {end_ms}; it must be 0 or more", "invalid_value", "audio_end_ms")
        end_ms = min(end_ms, item.sent_ms)  # clients measure what they have played by clocks of their own
        samples = end_ms * self.conversation.model.output_rate // 1000
        await self.conversation.answers.truncate(item, samples, end_ms)
        item.sound = [np.concatenate([np.zeros(0, np.int16), *item.sound])[:samples]]
        item.sent_ms = end_ms
        self.conversation.send(
            "conversation.item.truncated", item_id=item.id, content_index=0, audio_end_ms=end_ms
        )

    async def _create_response(self, data: dict[str, Any]) -> None:
        params = ResponseParams.checked(data.get("response") or {}, self.conversation.settings)
        if self._finishing:
            raise RequestError("the server is shutting down", "server_shutting_down", status=503)
        if params.outside:
            self._answer_aside(params, data.get("event_id"))
            return
        given = None
        if params.context is not None:
            given, params = self._input(params)
        try:
            await self.conversation.answers.respond(params, given)
        except Refused as refused:
            raise RequestError(str(refused), "conversation_already_has_active_response") from None

    async def _cancel(self, data: dict[str, Any]) -> None:
        wanted, response = data.get("response_id"), self.conversation.response
        for aside in self._asides:
            if wanted is not None and aside.response is not None and aside.response.id == wanted:
                aside.task.cancel()
                return
        if response is None or wanted not in (None, response.id):
            what = "Cancellation failed: no such response is under way"  # clients know it by its first words
            raise RequestError(what, "response_cancel_not_active", "response_id")
        await self.conversation.answers.cancel()

    async def _clear_output(self, data: dict[str, Any]) -> None:
        if self.conversation.output is not None:
            await self.conversation.answers.silence()
            return
        raise RequestError(
            "output_audio_buffer.clear is for WebRTC, where the server knows what has been played: use response.cancel "
            "and conversation.item.truncate",
            "unsupported_value",
            "type",
        )

    _HANDLERS: ClassVar[dict[str, Callable[[RealtimeSession, dict[str, Any]], Awaitable[None]]]] = {
        "session.update": _update,
        "input_audio_buffer.append": _append,
        "input_audio_buffer.commit": _commit,
        "input_audio_buffer.clear": _clear,
        "conversation.item.create": _create_item,
        "conversation.item.retrieve": _retrieve_item,
        "conversation.item.delete": _delete_item,
        "conversation.item.truncate": _truncate_item,
        "response.create": _create_response,
        "response.cancel": _cancel,
        "output_audio_buffer.clear": _clear_output,
    }

    def _answer_aside(self, params: ResponseParams, event_id: Any) -> None:
        """A response outside the conversation."""
        if len(self._asides) >= _ASIDES:
            raise RequestError(f"{_ASIDES} responses outside the conversation are under way", "rate_limit_exceeded")
        items: list[Item] = list(self.items) if params.context is None else self._given(params)
        few = self._limits.past_chars if params.context is None else self._limits.text_chars
        question, model = Question.of(items).recent(few), self.conversation.model

        def begin() -> Response:
            return Response(self.conversation.send, None, model.output_rate, None, params, model.calls)

        def fail(error: Exception) -> None:
            if not isinstance(error, DuologueError):
                _log.error("a response outside the conversation failed", exc_info=error)
                error = RequestError("the response has failed", "server_error", status=500)
            self.error(error if isinstance(error, RequestError) else RequestError(str(error)), event_id)

        aside = OutOfBand(self._questioner(), model.input_rate, question, params.settings, begin, fail)
        self._asides.append(aside)
        aside.task.add_done_callback(lambda _: self._asides.remove(aside))

    def _given(self, params: ResponseParams) -> list[Item]:
        """A response's own input: new items, and items of the conversation by their ids."""
        given, most = params.context or [], self._limits.messages
        if len(given) > most:
            raise RequestError(f"there are {len(given)} items; at most {most} are read", param="response.input")
        return [
            self.items.find(data["id"], "response.input")
            if data.get("type") == "item_reference"
            else self._item_of(data)
            for data in given
        ]

    def _input(self, params: ResponseParams) -> tuple[Items, ResponseParams]:
        """The same for a response in the conversation: as items of which the last of the user's are asked."""
        items = Items()
        for item in self._given(params):
            items.add(dataclasses.replace(item, id=new_id("item"), wanted=False))
        for item in itertools.takewhile(lambda item: item.role != "assistant", reversed(list(items))):
            item.wanted = item.role in ("user", "result")
        settings = params.settings.instructed(items.system())
        return items, dataclasses.replace(params, settings=settings, own_instructions=True)

    def _item_of(self, data: dict[str, Any]) -> Item:
        model = self.conversation.model
        return item_of(data, self.conversation.settings.input, model.input_rate, model.frame)


def _event_id(message: str) -> str | None:
    """The event_id of a message that is no event otherwise."""
    try:
        return read_object(message, "the message").get("event_id")
    except RequestError:
        return None
