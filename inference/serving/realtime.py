"""OpenAI's Realtime protocol: what a client may ask of its conversation, event by event.

Whatever is wrong with an event is told in an error event that names it, and changes nothing.
"""

from __future__ import annotations

import itertools
import logging
import time
from typing import Any

import numpy as np

from ...model.errors import DuologueError
from ..duplex import Mode
from ..engine import FRAME_S
from .conversation import Conversation
from .errors import RequestError
from .events import parse
from .formats import AudioFormat, Framer, from_base64
from .items import Item

_BACKLOG_S = 120  # of sound that may wait to be heard; more is refused
_QUIET_S = 0.24  # a microphone that has sent nothing for so long has stopped
_WRITE_FRAMES = 10  # within which a turn that waits for its answer is written down
_UNDECIDED = -1  # frames: the session has not come to the turn's end yet
_SHORTEST_MS = 100  # of sound that can be committed, as in the API
_log = logging.getLogger(__name__)


class RealtimeSession(Conversation):
    """A conversation whose client speaks the protocol."""

    async def handle(self, message: str) -> None:
        """One message of the client. Whatever is wrong with it becomes an error event."""
        event_id = None
        try:
            data = parse(message)
            event_id = data.get("event_id")
            await self._HANDLERS[data["type"]](self, data)
        except RequestError as error:
            self.error(error, event_id if event_id is not None else _event_id(message))
        except DuologueError as error:
            self.error(RequestError(str(error)), event_id)

    # What a client may ask for.

    async def _update(self, data: dict[str, Any]) -> None:
        change = data.get("session")
        if not isinstance(change, dict):
            raise RequestError("session must be an object", "missing_required_parameter", "session")
        settings = self.settings.updated(change)
        manual, was_manual = settings.detection is None, self.settings.detection is None
        if settings.input is not self.settings.input:
            self._framer = Framer(settings.input, self._rate, self._frame)
        self.settings = settings
        await self.seat.call("configure", settings.config())
        if manual and not was_manual:
            await self._forget_turn()
            await self.seat.call("press", False)
        elif was_manual and not manual:
            await self._forget_turn()
            await self.seat.call("hands_free")
        self._send("session.updated", session=settings.session)

    async def _append(self, data: dict[str, Any]) -> None:
        sound = from_base64(data["audio"])
        waiting_s = (len(self._submitted) + len(self._waiting)) * FRAME_S + len(sound) / 2 / self._framer.format.rate
        if waiting_s > _BACKLOG_S:
            raise RequestError(f"{waiting_s:.0f} s of audio wait to be heard", "input_audio_buffer_full", "audio")
        frames = self._framer.push(sound)
        self._last_sound = time.monotonic()
        if self.settings.detection is None:
            width = 2 if self._framer.format is AudioFormat.PCM else 1
            self._uncommitted_ms += len(sound) * 1000 / width / self._framer.format.rate
            self._keep(frames)
            self._pump()
        else:
            for frame in frames:
                self._tick(frame)

    async def _commit(self, data: dict[str, Any]) -> None:
        if self.settings.detection is not None:
            if self._turn is None or self._mode is not Mode.LISTENING:
                raise RequestError("no speech has been heard since the last commit", "input_audio_buffer_commit_empty")
            self._ask("press", False)
            self._tick(np.zeros(self._frame, np.float32), made_up=True)
            await self.seat.call("hands_free")
            return
        if self._uncommitted_ms < _SHORTEST_MS:
            raise RequestError(
                f"the buffer holds {self._uncommitted_ms} ms of audio; at least {_SHORTEST_MS} can be committed",
                "input_audio_buffer_commit_empty",
            )
        self._keep(self._framer.flush())
        item, self._turn, self._uncommitted_ms = self._turn, None, 0.0
        assert item is not None
        self._waiting.append(item)
        self._committed(item)
        self._pump()

    async def _clear(self, data: dict[str, Any]) -> None:
        self._framer.clear()
        if self.settings.detection is None:
            last = max((i + 1 for i, what in enumerate(self._waiting) if isinstance(what, Item)), default=0)
            del self._waiting[last:]
            self._turn, self._uncommitted_ms = None, 0.0
            if self._pressed:
                await self._forget_turn()
        elif self._held is None:
            await self._forget_turn()
        self._send("input_audio_buffer.cleared")

    async def _create_item(self, data: dict[str, Any]) -> None:
        item = self._item_of(data["item"])
        before = self.items.add(item, data.get("previous_item_id"))
        if item.role == "user" and data.get("previous_item_id") is None:
            item.wanted = True
        else:
            if item.role == "assistant":  # what stands before it is answered
                for other in itertools.takewhile(lambda other: other is not item, self.items):
                    other.wanted = False
            self._changed()
        self._send("conversation.item.added", previous_item_id=before, item=item.seen())
        self._send("conversation.item.done", previous_item_id=before, item=item.seen())

    async def _retrieve_item(self, data: dict[str, Any]) -> None:
        item = self.items.find(data["item_id"], code="item_retrieve_invalid_item_id")  # which clients wait for
        self._send("conversation.item.retrieved", item=item.seen(self.settings.output))

    async def _delete_item(self, data: dict[str, Any]) -> None:
        item = self.items.find(data["item_id"])
        if self.response is not None and item is self.response.item:
            await self._cancel_response("client_cancelled")
        self.items.delete(item.id)
        if item is self._held:
            self._held = None
            await self.seat.call("discard")
        self._changed()
        self._send("conversation.item.deleted", item_id=item.id)

    async def _truncate_item(self, data: dict[str, Any]) -> None:
        item, end_ms = self.items.find(data["item_id"]), data["audio_end_ms"]
        if item.role != "assistant" or not item.spoken:
            raise RequestError("only the audio of an answer can be truncated", "invalid_value", "item_id")
        if data["content_index"] != 0:
            raise RequestError("an answer has one part: content_index is 0", "invalid_value", "content_index")
        if not 0 <= end_ms <= item.sent_ms:
            raise RequestError(
                f"audio_end_ms is {end_ms}; {item.sent_ms} ms of the answer have been sent",
                "invalid_value",
                "audio_end_ms",
            )
        samples = end_ms * self._output_rate // 1000
        if self.response is not None and item is self.response.item:
            await self._cancel_response("client_cancelled", samples)
        elif item is self.items.last("assistant") and self.response is None and not self._decided:
            item.text = (await self.seat.call("truncate", samples)).value
        elif end_ms < item.sent_ms:  # long ago: as many of its words as of its time
            words = (item.text or "").split()
            item.text = " ".join(words[: len(words) * end_ms // item.sent_ms])
            self._changed()
        _cut(item, samples)
        item.sent_ms = end_ms
        self._send("conversation.item.truncated", item_id=item.id, content_index=0, audio_end_ms=end_ms)

    async def _create_response(self, data: dict[str, Any]) -> None:
        params = data.get("response") or {}
        if self._finishing:
            raise RequestError("the server is shutting down", "server_shutting_down", status=503)
        if self.response is not None or self._decided:
            raise RequestError(
                "a response is under way: wait for response.done, or cancel it",
                "conversation_already_has_active_response",
            )
        if params.get("conversation") not in (None, "auto") or params.get("input") is not None:
            raise RequestError(
                "responses outside the conversation are not served", "unsupported_value", "response.conversation"
            )
        if params.get("tools"):
            raise RequestError("this model has no use for tools", "unsupported_value", "response.tools")
        if params.get("output_modalities") not in (None, ["audio"], ["text"]):
            raise RequestError(
                "output_modalities must be ['audio'] or ['text']", "invalid_value", "response.output_modalities"
            )
        wanted = [item for item in self.items if item.wanted]
        if self._held is not None:
            await self._answer_held(params)
            return
        last = self.items.last("user")
        asked = wanted or ([last] if last is not None and last.text else [])
        if not asked:
            raise RequestError("there is nothing to answer: no item of the user", "nothing_to_answer")
        await self._answer_items(asked, params)

    async def _cancel(self, data: dict[str, Any]) -> None:
        wanted = data.get("response_id")
        if self.response is None or wanted not in (None, self.response.id):
            raise RequestError("there is no such response under way", "response_cancel_not_active", "response_id")
        await self._cancel_response("client_cancelled")

    async def _clear_output(self, data: dict[str, Any]) -> None:
        raise RequestError("output_audio_buffer.clear is for WebRTC: use conversation.item.truncate", "invalid_value")

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

    def _item_of(self, data: dict[str, Any]) -> Item:
        """An item that a client creates.

        Raises:
            RequestError: of a kind that the model knows nothing of.
        """
        if data.get("type") != "message":
            raise RequestError(
                f"items of type {str(data.get('type'))[:80]!r} are not served", "unsupported_value", "item.type"
            )
        item = Item(data["role"], "", rate=self._rate)
        given = data.get("id")
        if given is not None:
            if not 1 <= len(given) <= 64:
                raise RequestError("an item's id has 1 to 64 characters", "invalid_value", "item.id")
            item.id = given
        texts, sounds = [], []
        for part in data["content"]:
            kind = part.get("type")
            if kind in ("input_text", "output_text", "text") and isinstance(part.get("text"), str):
                texts.append(part["text"])
            elif kind == "input_audio" and item.role == "user" and isinstance(part.get("audio"), str):
                sounds.append(from_base64(part["audio"]))
            else:
                raise RequestError(f"content of type {kind!r} is not served here", "unsupported_value", "item.content")
        if not texts and not sounds:
            raise RequestError("an item has at least one text or sound", "invalid_value", "item.content")
        if sounds:
            item.spoken, item.text, item.about = True, None, "\n".join(texts)
            framer = Framer(self.settings.input, self._rate, self._frame)
            for frame in (*(f for sound in sounds for f in framer.push(sound)), *framer.flush()):
                item.hear(frame)
        else:
            item.text = "\n".join(texts)
        return item


def _cut(item: Item, samples: int) -> None:
    """Drop the sound behind so many samples."""
    sound = np.concatenate([np.zeros(0, np.int16), *item.sound])[:samples]
    item.sound = [sound]


def _event_id(message: str) -> str | None:
    """The event_id of a message that is no event otherwise."""
    import json

    try:
        found = json.loads(message)
    except (ValueError, RecursionError):
        return None
    return found.get("event_id") if isinstance(found, dict) else None
