"""The protocol's events, checked by the ``openai`` package's own models, in both directions."""

from __future__ import annotations

import json
from typing import Any, get_args

from openai.types.realtime import RealtimeClientEvent, RealtimeServerEvent
from pydantic import BaseModel, ValidationError

from ..http.limits import Limits, check_marks, check_texts
from .errors import RequestError, field_error
from .items import new_id


def _by_type(union: Any) -> dict[str, type[BaseModel]]:
    """The union's models by the one value of their field ``type``."""
    models = get_args(get_args(union)[0])
    return {get_args(model.model_fields["type"].annotation)[0]: model for model in models}


CLIENT = _by_type(RealtimeClientEvent)
SERVER = _by_type(RealtimeServerEvent)
OURS = ("input_audio_buffer.manner",)  # events beside the API's, sent to those who ask for them
_DEEPEST = 32  # levels of nesting that any event has use for
_WITH_SOUND = ("input_audio_buffer.append", "conversation.item.create", "response.create")


def read_object(text: str | bytes, what: str) -> dict[str, Any]:
    """A JSON object of a client's, with no text in it that cannot be sent back.

    JSON may write half of a surrogate pair, as "\\ud83d" alone, and Python reads it; no UTF-8 holds it.

    Raises:
        RequestError: it is none.
    """
    try:
        plain = text if isinstance(text, str) else text.decode()
        data = json.loads(plain, parse_constant=_no_number)
        if "\\u" in plain:
            json.dumps(data, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise RequestError(f"{what} has half of a surrogate pair in it", "invalid_json") from None
    except (ValueError, RecursionError):
        raise RequestError(f"{what} is not JSON", "invalid_json") from None
    if not isinstance(data, dict):
        raise RequestError(f"{what} is not a JSON object", "invalid_json")
    if _depth(data) > _DEEPEST:
        raise RequestError(f"{what} is nested deeper than {_DEEPEST} levels", "invalid_json")
    return data


def parse(text: str, limits: Limits) -> dict[str, Any]:
    """A client's message as an event whose fields are there and of the right types.

    Raises:
        RequestError: it is none; ``event_id`` of the error says which, if the message had one.
    """
    check_marks(text, limits)
    data = read_object(text, "the message")
    kind = data.get("type")
    if not isinstance(kind, str):
        raise RequestError("the event has no type", "missing_required_parameter", "type")
    check_texts(data, limits, "audio" if kind in _WITH_SOUND else None)
    if kind not in CLIENT:
        raise RequestError(f"there is no client event {kind[:80]!r}", "invalid_value", "type")
    if kind != "session.update":  # which the settings check whole, what they were before included
        try:
            CLIENT[kind].model_validate(_without_references(data), strict=True)
        except ValidationError as error:
            raise field_error(error) from None
        except (RecursionError, OverflowError):
            raise RequestError("the event cannot be read", "invalid_value") from None
    return data


def event(kind: str, fields: dict[str, Any]) -> str:
    """A server's event as JSON. A field that its model does not allow is a fault of ours, and raises."""
    if kind in OURS:
        return json.dumps({"type": kind, "event_id": new_id("event"), **fields})
    return (
        SERVER[kind]
        .model_validate({"type": kind, "event_id": new_id("event"), **fields})
        .model_dump_json(exclude_unset=True, warnings=False)
    )


def _without_references(data: dict[str, Any]) -> dict[str, Any]:
    """The event without references to items, which the protocol has and the package's model does not."""
    response = data.get("response")
    if not isinstance(response, dict) or not isinstance(response.get("input"), list):
        return data
    plain = [item for item in response["input"] if not _is_reference(item)]
    return {**data, "response": {**response, "input": plain}}


def _is_reference(item: Any) -> bool:
    return isinstance(item, dict) and item.get("type") == "item_reference" and isinstance(item.get("id"), str)


def _no_number(name: str) -> None:
    raise ValueError(name)


def _depth(data: Any) -> int:
    depth, level = 0, [data]
    while level and depth <= _DEEPEST:
        depth += 1
        inside: list[Any] = []
        for value in level:
            if isinstance(value, dict):
                inside += value.values()
            elif isinstance(value, list):
                inside += value
        level = inside
    return depth
