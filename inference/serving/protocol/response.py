"""One response on its way to the client: the events from ``response.created`` to ``response.done``, in their order."""

from __future__ import annotations

import base64
from collections.abc import Callable
from typing import Any

import numpy as np

from .formats import Resampler, encode
from .items import Item, Items, new_id
from .response_params import ResponseParams
from .settings import Settings
from .usage import frames, words

Send = Callable[..., None]


class Response:
    """What is being answered.

    Args:
        send: called with an event's type and its fields.
        items: where the answer becomes an item; None: nowhere. rate: of the model's speech, Hz.
        settings: as they were when it began. conversation: its id; None: outside of it.
        timings: what the user waited for, in ms; ours, beside what the API's object has.
    """

    def __init__(
        self,
        send: Send,
        items: Items | None,
        settings: Settings,
        rate: int,
        conversation: str | None,
        params: ResponseParams,
        timings: dict[str, float] | None = None,
    ) -> None:
        self._send, self._items, self._settings, self._rate = send, items, settings, rate
        self._conversation, self._params, self._timings = conversation, params, timings
        self.id = new_id("resp")
        self.spoken = params.modalities == ["audio"]
        self.item = Item("assistant", "", spoken=self.spoken, status="in_progress", rate=rate)
        self.played = 0  # samples of it, at the model's rate
        self._resampler = Resampler(rate, params.output.rate)
        self._delivered = 0  # samples, at the client's rate
        self._begun = False
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
        self._deliver(self._resampler.push(new))

    def end(self, status: str, reason: str | None, usage: dict[str, Any], heard: str | None = None) -> None:
        """It is over; ``heard``: what of it was heard, if not all."""
        item = self.item
        item.status = "completed" if status == "completed" else "incomplete"
        if self.spoken and self._begun and status == "completed":
            self._deliver(self._resampler.push(np.zeros(0, np.float32), last=True))
        if heard is not None:
            item.text = heard
        if self._begun:
            part = self._part()
            if self.spoken:
                self._send("response.output_audio.done", **part)
                self._send("response.output_audio_transcript.done", **part, transcript=item.text or "")
            else:
                self._send("response.output_text.done", **part, text=item.text or "")
            self._send("response.content_part.done", **part, part=self._content(item.text or ""))
            self._send("response.output_item.done", response_id=self.id, output_index=0, item=item.seen())
            if self._items is not None:
                self._send("conversation.item.done", previous_item_id=self._before, item=item.seen())
        self._status, self._reason, self._usage = status, reason, usage
        self._send("response.done", response=self.seen())

    def made(self) -> tuple[int, int]:
        """Tokens of its text and of its sound."""
        return words(self.item.text), frames(self.played, self._rate) if self.spoken else 0

    def seen(self) -> dict[str, Any]:
        """As the protocol shows it."""
        details: dict[str, Any] | None = None
        if self._status != "in_progress":
            details = {"type": self._status} | ({"reason": self._reason} if self._reason else {})
        output, params = self._settings.session["audio"]["output"], self._params
        format_ = output["format"] if params.output is self._settings.output else {"type": params.output.value}
        return {
            "object": "realtime.response",
            "id": self.id,
            "status": self._status,
            "status_details": details,
            "output": [self.item.seen()] if self._begun else [],
            "conversation_id": self._conversation,
            "output_modalities": params.modalities,
            "max_output_tokens": params.tokens or self._settings.session["max_output_tokens"],
            "audio": {"output": {"format": format_, "voice": output["voice"]}},
            "usage": self._usage,
            "metadata": params.metadata,
            "timings": self._timings,
            **self._settings.warnings,
        }

    def _begin(self) -> None:
        if self._begun:
            return
        self._begun = True
        self._send("response.output_item.added", response_id=self.id, output_index=0, item=self.item.seen())
        if self._items is not None:
            self._before = self._items.last_id()
            self._items.add(self.item)
            self._send("conversation.item.added", previous_item_id=self._before, item=self.item.seen())
        self._send("response.content_part.added", **self._part(), part=self._content(""))

    def _deliver(self, pcm: np.ndarray) -> None:
        if len(pcm):
            self._delivered += len(pcm)
            self.item.sent_ms = self._delivered * 1000 // self._params.output.rate
            data = base64.b64encode(encode(pcm, self._params.output)).decode()
            self._send("response.output_audio.delta", **self._part(), delta=data)

    def _part(self) -> dict[str, Any]:
        return {"response_id": self.id, "item_id": self.item.id, "output_index": 0, "content_index": 0}

    def _content(self, text: str) -> dict[str, Any]:
        return {"type": "audio", "transcript": text} if self.spoken else {"type": "text", "text": text}
