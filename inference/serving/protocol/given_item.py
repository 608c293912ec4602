"""An item that a client creates: a message of texts and sounds, a function's call, or what one returned."""

from __future__ import annotations

from typing import Any

from .errors import RequestError
from .formats import AudioFormat, Framer, from_base64, in_seconds
from .items import Item, new_id


def item_of(data: dict[str, Any], format_: AudioFormat, rate: int, frame: int) -> Item:
    """The item.

    Args:
        format_: of its sound. rate, frame: of the session: Hz, and samples in 80 ms.

    Raises:
        RequestError: of a kind that the model knows nothing of.
    """
    kind = data.get("type")
    if kind == "function_call":
        item = Item("call", data["arguments"], name=data["name"], call_id=data.get("call_id") or new_id("call"))
    elif kind == "function_call_output":
        item = Item("result", data["output"], call_id=data["call_id"])
    elif kind == "message":
        item = _message(data, format_, rate, frame)
    else:
        raise RequestError(f"items of type {str(kind)[:80]!r} are not served", "unsupported_value", "item.type")
    given = data.get("id")
    if given is not None:
        if not 1 <= len(given) <= 64:
            raise RequestError("an item's id has 1 to 64 characters", "invalid_value", "item.id")
        item.id = given
    return item


def _message(data: dict[str, Any], format_: AudioFormat, rate: int, frame: int) -> Item:
    item = Item(data["role"], "", rate=rate)
    texts, sounds = [], []
    for part in data["content"]:
        kind = part.get("type")
        if kind in ("input_text", "output_text", "text") and isinstance(part.get("text"), str):
            texts.append(part["text"])
        elif kind == "output_audio" and item.role == "assistant" and isinstance(part.get("transcript"), str):
            texts.append(part["transcript"])  # what was said before, in words: its sound is of no more use
        elif kind == "input_audio" and item.role == "user" and isinstance(part.get("audio"), str):
            sounds.append(from_base64(part["audio"]))
        else:
            raise RequestError(f"content of type {kind!r} is not served here", "unsupported_value", "item.content")
    if not texts and not sounds:
        raise RequestError("an item has at least one text or sound", "invalid_value", "item.content")
    if not sounds:
        item.text = "\n".join(texts)
        return item
    item.spoken, item.text, item.about = True, None, "\n".join(texts)
    framer = Framer(format_, rate, frame)
    for sound in sounds:
        for piece in in_seconds(sound, format_):
            for heard in framer.push(piece):
                item.hear(heard)
    for heard in framer.flush():
        item.hear(heard)
    return item
