"""The conversation as the protocol sees it: a list of items; and as the model does: questions and answers."""

from __future__ import annotations

import json
import secrets
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ....model.language_model.tool_calls import call_id
from .errors import RequestError
from .formats import AudioFormat, to_base64

ITEMS = 500  # of one conversation; where there are more, the oldest is forgotten
LONGEST_S = 600  # of sound in one turn
_HEARD_S = 660  # of sound that a conversation keeps; the oldest is dropped first


def new_id(kind: str) -> str:
    """An id like the API's: item_…, resp_…, event_…"""
    return f"{kind}_{secrets.token_hex(12)}"


def newest(past: list[tuple[str, str]], characters: int) -> list[tuple[str, str]]:
    """The last questions and answers, so many that they have no more characters."""
    kept = len(past)
    while kept and (characters := characters - sum(map(len, past[kept - 1]))) >= 0:
        kept -= 1
    return past[kept:]


def arguments_of(text: str | None) -> dict[str, Any]:
    """A call's arguments; none of what is no JSON object."""
    try:
        found = json.loads(text or "{}")
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


@dataclass(eq=False)
class Item:
    """One message, or a function that the model called (role "call"), or what one returned (role "result").

    text: what was written, said, or (of the user) heard; None: not known yet. Of a call its arguments, of a result the
        result.
    name, call_id: of a call; of a result, that it belongs to.
    spoken: whether it is sound. sound: (n,) int16 at ``rate``, what there is of it.
    sent_ms: how much of an answer the client has been sent.
    about: what was asked in writing about the sound of the same item.
    """

    role: str
    text: str | None
    spoken: bool = False
    id: str = field(default_factory=lambda: new_id("item"))
    status: str = "completed"
    sound: list[np.ndarray] = field(default_factory=list)
    rate: int = 16_000
    sent_ms: int = 0
    about: str = ""
    name: str = ""
    call_id: str = ""
    wanted: bool = False  # the client appended it and no answer has been made to it yet

    def hear(self, pcm: np.ndarray) -> None:
        """More of its sound, (n,) float32 at ``rate``."""
        self.sound.append(np.round(np.clip(pcm, -1, 1) * 32767).astype(np.int16))

    def waveform(self) -> np.ndarray:
        """Its sound, (n,) float32 at ``rate``."""
        return np.concatenate([np.zeros(0, np.int16), *self.sound]).astype(np.float32) / 32768

    @property
    def seconds(self) -> float:
        """Of its sound."""
        return sum(map(len, self.sound)) / self.rate

    def seen(self, sound: AudioFormat | None = None) -> dict[str, Any]:
        """As the protocol shows it; with its sound, if a format is given."""
        head = {"id": self.id, "object": "realtime.item", "status": self.status}
        if self.role == "call":
            called = {"name": self.name, "call_id": self.call_id, "arguments": self.text or ""}
            return {**head, "type": "function_call", **called}
        if self.role == "result":
            return {**head, "type": "function_call_output", "call_id": self.call_id, "output": self.text or ""}
        kinds = {"user": ("input_text", "input_audio"), "assistant": ("output_text", "output_audio")}
        plain, audible = kinds.get(self.role, ("input_text", "input_text"))
        part: dict[str, Any] = {"type": audible if self.spoken else plain}
        part["transcript" if self.spoken else "text"] = self.text
        if self.spoken and sound is not None:
            part["audio"] = to_base64(self.waveform(), self.rate, sound)
        asked = [{"type": "input_text", "text": self.about}] if self.about else []
        content = [part, *asked] if self.status != "in_progress" else []
        return {**head, "type": "message", "role": self.role, "content": content}


class Items:
    """The items of one conversation, in order."""

    def __init__(self) -> None:
        self._items: list[Item] = []

    def __iter__(self) -> Any:
        return iter(self._items)

    def last(self, role: str | None = None) -> Item | None:
        """The last one, or the last of a role."""
        return next((item for item in reversed(self._items) if role in (None, item.role)), None)

    def find(self, id_: str, param: str = "item_id", code: str = "item_not_found") -> Item:
        """By its id.

        Raises:
            RequestError: there is none.
        """
        for item in self._items:
            if item.id == id_:
                return item
        raise RequestError(f"there is no item {id_[:80]!r}", code, param)

    def add(self, item: Item, after: str | None = None) -> str | None:
        """Append it, or insert it behind another ("root": first); returns the id of the one before it.

        Raises:
            RequestError: the id is taken, or the other is not there.
        """
        if any(other.id == item.id for other in self._items):
            raise RequestError(f"there is an item {item.id[:80]!r} already", "item_create_duplicate_item_id", "item.id")
        at = len(self._items)
        if after is not None:
            at = 0 if after == "root" else self._items.index(self.find(after, "previous_item_id")) + 1
        before = self._items[at - 1].id if at else None
        self._items.insert(at, item)
        del self._items[: max(0, len(self._items) - ITEMS)]
        self._drop_old_sound()
        return before

    def delete(self, id_: str) -> Item:
        """Take it out.

        Raises:
            RequestError: there is none.
        """
        item = self.find(id_)
        self._items.remove(item)
        return item

    def last_id(self) -> str | None:
        """Of the last item."""
        return self._items[-1].id if self._items else None

    def past(self) -> list[tuple[str, str]]:
        """Questions and answers, in words; what waits to be answered is left out."""
        pairs: list[tuple[str, str]] = []
        question: list[str] = []
        for item in self._items:
            if item.role == "user" and not item.wanted and item.text:
                question.append(item.text)
            elif item.role == "assistant" and question:
                pairs.append((" ".join(question), item.text or ""))
                question = []
        return [*pairs, (" ".join(question), "")] if question else pairs

    def called(self) -> list[Item]:
        """Calls of functions."""
        return [item for item in self._items if item.role == "call"]

    def system(self) -> str:
        """What the client says to the model besides its instructions."""
        return "\n\n".join(item.text for item in self._items if item.role == "system" and item.text)

    def calls_of(self, results: list[Item]) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        """Results of functions as messages of a chat template, in the order of the calls; and the assistant's message
        that called them."""
        wanted = {item.call_id for item in results}
        made = [item for item in self.called() if item.call_id in wanted]
        calls = [
            {
                "id": call_id(at),
                "type": "function",
                "function": {"name": item.name, "arguments": arguments_of(item.text)},
            }
            for at, item in enumerate(made)
        ]
        told = []
        for at, item in enumerate(made):
            output = next(result.text or "" for result in results if result.call_id == item.call_id)
            told.append({"role": "tool", "name": item.name, "content": output, "tool_call_id": call_id(at)})
        return {"role": "assistant", "content": "", "tool_calls": calls}, told

    def _drop_old_sound(self) -> None:
        left = float(_HEARD_S)
        for item in reversed(self._items):
            left -= item.seconds
            if left < 0:
                item.sound = []
