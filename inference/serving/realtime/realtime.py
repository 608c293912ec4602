"""OpenAI's Realtime protocol: what a client may ask of its conversation, event by event.

Whatever is wrong with an event is told in an error event that names it, and changes nothing; of ``session.update``,
field by field (protocol/session_update.py).
``rate_limits.updated`` is never sent, for no limit counts tokens.
"""

from __future__ import annotations

import asyncio
import dataclasses
import itertools
import logging
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from ....model.errors import DuologueError
from ...session.policy import Mode
from ..http.limits import Limits, check_texts
from ..protocol.errors import RequestError
from ..protocol.events import parse, read_object
from ..protocol.formats import AudioFormat, Framer, from_base64, in_seconds
from ..protocol.given_item import item_of
from ..protocol.items import LONGEST_S, Item, Items, new_id, newest
from ..protocol.response import Response
from ..protocol.response_params import ResponseParams
from ..protocol.session_update import Update, update
from ..protocol.settings import Settings
from ..workers.pool import FRAME_S, PoolFull
from .conversation import RealtimeConversation
from .out_of_band import OutOfBand, Question
from .questioner import Questioner

_BACKLOG_S = 120  # of sound that may wait to be heard; more is refused
_HELD_S = 4  # of sound that may be under way in a turn that the client ends; then it is read no further for a while
_SHORTEST_MS = 100  # of sound that can be committed, as in the API
_ASIDES = 4  # responses outside the conversation that may be under way at a time
_log = logging.getLogger(__name__)


class RealtimeSession(RealtimeConversation):
    """A conversation whose client speaks the protocol.

    Args:
        questioner: gives a session slot for a response outside the conversation.
        limits: of the client.
    """

    def __init__(self, *args: Any, questioner: Callable[[], Questioner], limits: Limits) -> None:
        super().__init__(*args)
        self._questioner, self._limits, self._past_chars = questioner, limits, limits.past_chars
        self._heard_of = time.monotonic()  # the client
        self._asides: list[OutOfBand] = []
        self._cut = False  # without turn detection: some of the turn's sound was refused

    async def close(self) -> None:
        """Leave."""
        await super().close()
        for aside in self._asides:
            aside.task.cancel()

    async def finish(self) -> None:
        """Let answers under way come to their end, and begin no others."""
        await super().finish()
        await asyncio.gather(*(aside.task for aside in self._asides), return_exceptions=True)

    async def idle(self) -> None:
        """Returns once nothing has come from the client for too long, and it waits for nothing."""
        while (left := self._heard_of + self._limits.idle_s - time.monotonic()) > 0:
            await asyncio.sleep(left)
            if self._busy or self._pacer.under_way or self._asides:
                self._heard_of = time.monotonic()

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

    # What a client may ask for.

    async def _update(self, data: dict[str, Any]) -> None:
        change = data.get("session")
        if not isinstance(change, dict):
            raise RequestError("session must be an object", "missing_required_parameter", "session")
        done = update(self.settings, change)
        settings = done.settings
        twice = dataclasses.replace(self._limits, text_chars=2 * self._limits.text_chars)
        check_texts(settings.session, twice)  # what was set before counts too
        manual, was_manual = settings.detection is None, self.settings.detection is None
        if manual != was_manual and self._feeding is not None:
            await asyncio.wait([self._feeding])
        settings = await self._settled(done)
        if settings.input is not self.settings.input:
            self._framer = Framer(settings.input, self._rate, self._frame)
        self.settings = settings
        if manual and not was_manual:
            self._uncommitted_ms, self._cut = 0.0, False
            await self._forget_turn()
            await self.slot.call("press", False)
        elif was_manual and not manual:
            await self._forget_turn()
            await self.slot.call("hands_free")
        if done.held or done.warnings or not done.errors:
            session = settings.seen()
            warnings = [*session.get("warnings", []), *done.warnings]
            self._send("session.updated", session=session | ({"warnings": warnings} if warnings else {}))
        for error in done.errors:
            self.error(error, data.get("event_id"))

    async def open(self, first: dict[str, Any] | None = None) -> None:
        """Greet the client; ``first``: what its session begins with, as in ``session.update``."""
        self.settings = update(self.settings, first or {}).settings
        self._framer = Framer(self.settings.input, self._rate, self._frame)
        await super().open()

    async def _settled(self, done: Update) -> Settings:
        """The settings as the model takes them: without texts that do not fit into its context."""
        before = self.settings.session
        try:
            await self._configure(done.settings)
            return done.settings
        except DuologueError as error:
            kept = done.settings.with_field("instructions", before["instructions"]).with_field("tools", before["tools"])
            changed = [name for name in ("instructions", "tools") if kept.session[name] != done.settings.session[name]]
            if not changed:
                raise
            done.errors.append(RequestError(str(error), "invalid_value", f"session.{changed[0]}"))
            done.held = [path for path in done.held if path not in ("instructions", "tools")]
            await self._configure(kept)
            return kept

    async def _append(self, data: dict[str, Any]) -> None:
        manual = self.settings.detection is None
        if manual and self._cut:
            return  # without what was refused before it, it would be another turn
        sound = from_base64(data["audio"])
        width = 2 if self._framer.format is AudioFormat.PCM else 1
        sound_s = len(sound) / width / self._framer.format.rate
        # Without turn detection the client is read no faster than it is heard (see below).
        waiting_s = (len(self._waiting) + (0 if manual else self._pacer.under_way)) * FRAME_S + sound_s
        why = f"{waiting_s:.0f} s of audio wait to be heard" if waiting_s > _BACKLOG_S else ""
        if manual and self._uncommitted_ms / 1000 + sound_s > LONGEST_S:
            why = f"a turn has at most {LONGEST_S} s of audio"
        if why:
            self._cut = manual
            rest = "; nothing more is taken until the buffer is committed or cleared" if manual else ""
            raise RequestError(f"{why}{rest}", "input_audio_buffer_full", "audio")
        self._last_sound = time.monotonic()
        for part in in_seconds(sound, self._framer.format):  # a client may append minutes at once
            frames = self._framer.push(part)
            if manual:
                self._uncommitted_ms += len(part) * 1000 / width / self._framer.format.rate
                self._keep(frames)
                self._pump()
                while self._pacer.under_way * FRAME_S > _HELD_S and not self.closed.is_set():
                    await asyncio.sleep(FRAME_S)
            elif self._feeding is not None:
                self._waiting += frames
            else:
                for frame in frames:
                    self._pacer.push(frame)
            await asyncio.sleep(0)

    async def _commit(self, data: dict[str, Any]) -> None:
        if self.settings.detection is not None:
            if self._turn is None or self._mode is not Mode.LISTENING:
                raise RequestError("no speech has been heard since the last commit", "input_audio_buffer_commit_empty")
            self._ask("press", False)
            self._pacer.make_up()
            await self.slot.call("hands_free")
            return
        if self._uncommitted_ms < _SHORTEST_MS:
            raise RequestError(
                f"the buffer holds {self._uncommitted_ms} ms of audio; at least {_SHORTEST_MS} can be committed",
                "input_audio_buffer_commit_empty",
            )
        self._keep(self._framer.flush())
        item, self._turn, self._uncommitted_ms, self._cut = self._turn, None, 0.0, False
        assert item is not None
        self._waiting.append(item)
        self._committed(item)
        self._pump()

    async def _clear(self, data: dict[str, Any]) -> None:
        self._framer.clear()
        if self.settings.detection is None:
            last = max((i + 1 for i, what in enumerate(self._waiting) if isinstance(what, Item)), default=0)
            del self._waiting[last:]
            self._turn, self._uncommitted_ms, self._cut = None, 0.0, False
            if self._pressed:
                await self._forget_turn()
        elif self._feeding is not None:
            self._waiting = []
        elif self._held is None:
            await self._forget_turn()
        self._send("input_audio_buffer.cleared")

    async def _create_item(self, data: dict[str, Any]) -> None:
        item = await asyncio.to_thread(item_of, data["item"], self.settings.input, self._rate, self._frame)
        waiting_s = item.seconds + sum(other.seconds for other in self.items if other.wanted)
        if waiting_s > LONGEST_S:
            what = f"{waiting_s:.0f} s of sound wait for a response: at most {LONGEST_S} s can be answered at once"
            raise RequestError(what, "invalid_value", "item.content")
        if item.role == "result" and not any(item.call_id == other.call_id for other in self.items.called()):
            what = f"no function was called with call_id {item.call_id[:80]!r}"
            raise RequestError(what, "invalid_value", "item.call_id")
        before = self.items.add(item, data.get("previous_item_id"))
        if item.role == "result" or (item.role == "user" and data.get("previous_item_id") is None):
            item.wanted = True
        elif item.role in ("system", "call"):
            if self.response is None and not self._decided:
                await self._configure(self.settings)
        else:
            if item.role == "assistant":  # what stands before it is answered
                for other in itertools.takewhile(lambda other: other is not item, self.items):
                    other.wanted = False
            self._changed()
        self._send("conversation.item.added", previous_item_id=before, item=item.seen())
        self._send("conversation.item.done", previous_item_id=before, item=item.seen())

    async def _retrieve_item(self, data: dict[str, Any]) -> None:
        item = self.items.find(data["item_id"], code="item_retrieve_invalid_item_id")  # which clients wait for
        seen = await asyncio.to_thread(item.seen, self.settings.output)
        self._send("conversation.item.retrieved", item=seen)

    async def _delete_item(self, data: dict[str, Any]) -> None:
        item = self.items.find(data["item_id"])
        if self.response is not None and item is self.response.item:
            await self._cancel_response("client_cancelled")
        self.items.delete(item.id)
        if item is self._held:
            self._held = None
            await self.slot.call("discard")
        self._changed()
        self._send("conversation.item.deleted", item_id=item.id)

    async def _truncate_item(self, data: dict[str, Any]) -> None:
        item, end_ms = self.items.find(data["item_id"]), data["audio_end_ms"]
        if item.role != "assistant" or not item.spoken:
            raise RequestError("only the audio of an answer can be truncated", "invalid_value", "item_id")
        if data["content_index"] != 0:
            raise RequestError("an answer has one part: content_index is 0", "invalid_value", "content_index")
        if end_ms < 0:
            raise RequestError(f"audio_end_ms is {end_ms}; it must be 0 or more", "invalid_value", "audio_end_ms")
        end_ms = min(end_ms, item.sent_ms)  # clients measure what they have played by clocks of their own
        samples = end_ms * self._output_rate // 1000
        if self.response is not None and item is self.response.item:
            await self._cancel_response("client_cancelled", samples)
        elif item is self.items.last("assistant") and self.response is None and not self._decided:
            item.text = (await self.slot.call("truncate", samples)).value
        elif end_ms < item.sent_ms:  # long ago: as many of its words as of its time
            words = (item.text or "").split()
            item.text = " ".join(words[: len(words) * end_ms // item.sent_ms])
            self._changed()
        _cut(item, samples)
        item.sent_ms = end_ms
        self._send("conversation.item.truncated", item_id=item.id, content_index=0, audio_end_ms=end_ms)

    async def _create_response(self, data: dict[str, Any]) -> None:
        params = ResponseParams.checked(data.get("response") or {}, self.settings)
        if self._finishing:
            raise RequestError("the server is shutting down", "server_shutting_down", status=503)
        if params.outside:
            self._answer_aside(params, data.get("event_id"))
            return
        if self.response is not None or self._decided:
            raise RequestError(
                "a response is under way: wait for response.done, or cancel it",
                "conversation_already_has_active_response",
            )
        if params.context is not None:
            await self._answer_input(params)
            return
        wanted = [item for item in self.items if item.wanted]
        if self._held is not None:
            await self._answer_held(params)
            return
        self._sync(now=True)
        last = self.items.last("user")
        again = last is not None and last.text and not params.own_instructions
        await self._answer_items(wanted or ([last] if last is not None and again else []), params)

    async def _answer_input(self, params: ResponseParams) -> None:
        """With items of its own in the place of the conversation's, which comes back behind the answer."""
        given = Items()
        for data in self._checked_input(params):
            item = self._given(data)
            given.add(dataclasses.replace(item, id=new_id("item"), wanted=False, sound=list(item.sound)))
        answered = next((item for item in reversed(list(given)) if item.role == "assistant"), None)
        asked = list(itertools.takewhile(lambda item: item is not answered, reversed(list(given))))[::-1]
        asked = [item for item in asked if item.role == "user"]
        for item in asked:
            item.wanted = True
        if system := given.system():
            both = "\n\n".join(filter(None, (params.instructions, system)))
            params = dataclasses.replace(params, settings=params.settings.with_field("instructions", both))
        self._stale = True
        await self.slot.call("remember", newest(given.past(), self._past_chars))
        await self._answer_items(asked, params)

    async def _cancel(self, data: dict[str, Any]) -> None:
        wanted = data.get("response_id")
        for aside in self._asides:
            if wanted is not None and aside.response is not None and aside.response.id == wanted:
                aside.task.cancel()
                return
        if self.response is None or wanted not in (None, self.response.id):
            raise RequestError("there is no such response under way", "response_cancel_not_active", "response_id")
        await self._cancel_response("client_cancelled")

    async def _clear_output(self, data: dict[str, Any]) -> None:
        raise RequestError(
            "output_audio_buffer.clear is for WebRTC, where the server knows what has been played: use response.cancel "
            "and conversation.item.truncate",
            "unsupported_value",
            "type",
        )

    _HANDLERS = {  # noqa: RUF012
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
        given = params.context
        items = self.items if given is None else map(self._given, self._checked_input(params))
        question = Question.of(items).recent(self._limits.past_chars if given is None else self._limits.text_chars)

        def begin() -> Response:
            return Response(self._send, None, self._output_rate, None, params, self._calls)

        def fail(error: Exception) -> None:
            if not isinstance(error, DuologueError):
                _log.error("a response outside the conversation failed", exc_info=error)
                error = RequestError("the response has failed", "server_error", status=500)
            self.error(error if isinstance(error, RequestError) else RequestError(str(error)), event_id)

        aside = OutOfBand(self._questioner(), self._rate, question, params.settings, begin, fail)
        self._asides.append(aside)
        aside.task.add_done_callback(lambda _: self._asides.remove(aside))

    def _checked_input(self, params: ResponseParams) -> list[dict[str, Any]]:
        given, most = params.context or [], self._limits.messages
        if len(given) > most:
            raise RequestError(f"there are {len(given)} items; at most {most} are read", param="response.input")
        return given

    def _given(self, data: dict[str, Any]) -> Item:
        """An item of a response's own input: a new one, or one of the conversation's by its id."""
        if data.get("type") == "item_reference":
            return self.items.find(data["id"], "response.input")
        return item_of(data, self.settings.input, self._rate, self._frame)


def _cut(item: Item, samples: int) -> None:
    """Drop the sound behind so many samples."""
    sound = np.concatenate([np.zeros(0, np.int16), *item.sound])[:samples]
    item.sound = [sound]


def _event_id(message: str) -> str | None:
    """The event_id of a message that is no event otherwise."""
    try:
        return read_object(message, "the message").get("event_id")
    except RequestError:
        return None
