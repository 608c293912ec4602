"""One response on its way to the client: the events from ``response.created`` to ``response.done``, in their order."""

from __future__ import annotations

import base64
from collections.abc import Callable
from typing import Any

import numpy as np

from ....model.language_model.tool_calls import CallFormat, CallReader
from .formats import Resampler, encode
from .items import Item, Items, new_id
from .response_params import ResponseParams
from .usage import frames, words

Send = Callable[..., None]


class Response:
    """What is being answered: at most one message, and any number of functions called.

    Args:
        send: called with an event's type and its fields.
        items: where the answer becomes items; None: nowhere. rate: of the model's speech, Hz.
        conversation: its id; None: outside of it.
        calls: how the model writes calls; None: it calls nothing.
        timings: what the user waited for, in ms; ours, beside what the API's object has.
        play: takes its sound, as its id and samples at ``rate``, where the client hears it and is sent none in events.
    """

    def __init__(
        self,
        send: Send,
        items: Items | None,
        rate: int,
        conversation: str | None,
        params: ResponseParams,
        calls: CallFormat | None = None,
        timings: dict[str, float] | None = None,
        play: Callable[[str, np.ndarray], None] | None = None,
    ) -> None:
        self._play = play
        self._send, self._items, self._rate = send, items, rate
        self._conversation, self._params, self._timings = conversation, params, timings
        self._reader = None if calls is None else CallReader(calls)
        self.id = new_id("resp")
        self.spoken = params.modalities == ["audio"]
        self.item = Item("assistant", "", spoken=self.spoken, status="in_progress", rate=rate)
        self.played = 0  # samples of it, at the model's rate
        self._resampler = Resampler(rate, params.output.rate)
        self._delivered = 0  # samples, at the client's rate
        self._output: list[Item] = []  # the items that it has, in order
        self._before: dict[str, str | None] = {}  # the items that they stand behind, by their ids
        self._status = "in_progress"
        self._reason: str | None = None
        self._usage: dict[str, Any] | None = None
        send("response.created", response=self.seen())

    def say(self, text: str) -> None:
        """More of its text, with the spaces that belong there."""
        delta = text if self.item.text else text.lstrip()
        if not delta:
            return
        self._begin()
        self.item.text = (self.item.text or "") + delta
        kind = "response.output_audio_transcript.delta" if self.spoken else "response.output_text.delta"
        self._send(kind, **self._part(), delta=delta)

    def sound(self, pcm: np.ndarray, played: int) -> None:
        """A frame of its speech (n,); ``played``: samples of it up to here, the frame included."""
        new, self.played = pcm[: max(0, played - self.played)], played
        if not self.spoken or not len(new):
            return
        self._begin()
        self.item.hear(new)
        if self._play is None:
            self._deliver(self._resampler.push(new))
        else:
            self._play(self.id, new)
            self.item.sent_ms = self.played * 1000 // self._rate

    def call(self, text: str) -> None:
        """More of its calls, as the model writes them."""
        for piece in self._reader.push(text) if self._reader is not None else ():
            if piece.name:
                made = Item("call", "", status="in_progress", name=piece.name, call_id=new_id("call"))
                self._add(made)
            item = self._output[-1]
            item.text = (item.text or "") + piece.arguments
            if piece.arguments:
                self._send("response.function_call_arguments.delta", **self._at(item), call_id=item.call_id,
                           delta=piece.arguments)  # fmt: skip
            if piece.ended:
                self._end_call(item, "completed")

    def end(self, status: str, reason: str | None, usage: dict[str, Any], heard: str | None = None) -> None:
        """It is over; ``heard``: what of it was heard, if not all."""
        item = self.item
        item.status = "completed" if status == "completed" else "incomplete"
        if self.spoken and self._play is None and item in self._output and status == "completed":
            self._deliver(self._resampler.push(np.zeros(0, np.float32), last=True))
        if heard is not None:
            item.text = heard
        if item in self._output:
            part = self._part()
            if self.spoken:
                self._send("response.output_audio.done", **part)
                self._send("response.output_audio_transcript.done", **part, transcript=item.text or "")
            else:
                self._send("response.output_text.done", **part, text=item.text or "")
            self._send("response.content_part.done", **part, part=self._content(item.text or ""))
            self._done(item)
        for made in self._output:
            if made.status == "in_progress":
                self._end_call(made, "incomplete")
        self._status, self._reason, self._usage = status, reason, usage
        self._send("response.done", response=self.seen())

    def made(self) -> tuple[int, int]:
        """Tokens of its text and of its sound."""
        text = sum(words(item.text) for item in self._output)
        return text, frames(self.played, self._rate) if self.spoken else 0

    def seen(self) -> dict[str, Any]:
        """As the protocol shows it."""
        details: dict[str, Any] | None = None
        if self._status != "in_progress":
            details = {"type": self._status} | ({"reason": self._reason} if self._reason else {})
        session = self._params.settings.session
        output = session["audio"]["output"]
        warnings = [*self._params.settings.warnings.get("warnings", []), *self._params.warnings]
        return {
            "object": "realtime.response",
            "id": self.id,
            "status": self._status,
            "status_details": details,
            "output": [item.seen() for item in self._output],
            "conversation_id": self._conversation,
            "output_modalities": session["output_modalities"],
            "max_output_tokens": session["max_output_tokens"],
            "audio": {"output": {"format": output["format"], "voice": output["voice"]}},
            "usage": self._usage,
            "metadata": self._params.metadata,
            "timings": self._timings,
            **({"warnings": warnings} if warnings else {}),
        }

    def _begin(self) -> None:
        if self.item not in self._output:
            self._add(self.item)
            self._send("response.content_part.added", **self._part(), part=self._content(""))

    def _add(self, item: Item) -> None:
        """One item more."""
        self._output.append(item)
        index = len(self._output) - 1
        self._send("response.output_item.added", response_id=self.id, output_index=index, item=item.seen())
        if self._items is not None:
            before = self._before[item.id] = self._items.last_id()
            self._items.add(item)
            self._send("conversation.item.added", previous_item_id=before, item=item.seen())

    def _end_call(self, item: Item, status: str) -> None:
        item.status = status
        self._send("response.function_call_arguments.done", **self._at(item), call_id=item.call_id, name=item.name,
                   arguments=item.text or "")  # fmt: skip
        self._done(item)

    def _done(self, item: Item) -> None:
        index = self._output.index(item)
        self._send("response.output_item.done", response_id=self.id, output_index=index, item=item.seen())
        if self._items is not None:
            self._send("conversation.item.done", previous_item_id=self._before[item.id], item=item.seen())

    def _deliver(self, pcm: np.ndarray) -> None:
        if len(pcm):
            self._delivered += len(pcm)
            self.item.sent_ms = self._delivered * 1000 // self._params.output.rate
            data = base64.b64encode(encode(pcm, self._params.output)).decode()
            self._send("response.output_audio.delta", **self._part(), delta=data)

    def _at(self, item: Item) -> dict[str, Any]:
        return {"response_id": self.id, "item_id": item.id, "output_index": self._output.index(item)}

    def _part(self) -> dict[str, Any]:
        return {**self._at(self.item), "content_index": 0}

    def _content(self, text: str) -> dict[str, Any]:
        return {"type": "audio", "transcript": text} if self.spoken else {"type": "text", "text": text}
