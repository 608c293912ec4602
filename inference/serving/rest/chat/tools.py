"""The functions of a chat completion that a model may call, and which it must."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from .....model.language_model.messages import Tool
from .....model.language_model.tool_calls import call_id
from ...protocol.errors import RequestError
from ..fields import unsupported
from .messages import Answer, Result, Said, Talk

_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
_NOT_STRICT = "tools: strict has no effect: arguments are not held to the schema"


def read_tools(tools: Any) -> tuple[tuple[Tool, ...], tuple[str, ...]]:
    """The schemas of functions as chat templates take them; and what is to be said where a wish has no effect.

    Raises:
        RequestError: something that is no function.
    """
    if tools is None:
        return (), ()
    if not isinstance(tools, list):
        raise RequestError("tools must be a list", "invalid_type", "tools")
    found, strict = list[Tool](), False
    for at, tool in enumerate(tools):
        where = f"tools.{at}"
        if isinstance(tool, dict) and isinstance(tool.get("type"), str) and tool["type"] != "function":
            unsupported(f"{where} is of type {tool['type'][:40]!r}; there are functions alone", f"{where}.type")
        function = tool.get("function") if isinstance(tool, dict) else None
        name = function.get("name") if isinstance(function, dict) else None
        if not isinstance(function, dict) or not isinstance(name, str) or not _NAME.fullmatch(name):
            wrong = f"{where}.function needs a name of 1 to 64 letters, digits, _ and -"
            raise RequestError(wrong, "invalid_value", f"{where}.function")
        if not isinstance(function.get("parameters", {}), dict):
            raise RequestError(
                f"{where}.function.parameters must be a JSON schema", "invalid_type", f"{where}.function.parameters"
            )
        strict = strict or bool(function.get("strict"))
        usual = {"description": "", "parameters": {"type": "object", "properties": {}}}
        schema = function | {name: value for name, value in usual.items() if name not in function}  # in the order given
        schema.pop("strict", None)
        found.append({"type": "function", "function": schema})
    return tuple(found), (_NOT_STRICT,) if strict else ()


def choice(wanted: Any, tools: Sequence[Tool]) -> dict[str, Any]:
    """``tool_choice`` as fields of ``Sampling``.

    Raises:
        RequestError: another shape, or a function that is not among the tools.
    """
    if wanted in (None, "auto"):
        return {}
    if wanted == "none":
        return {"may_call": False}
    names = [tool["function"]["name"] for tool in tools if isinstance(tool, dict)]
    function = wanted.get("function") if isinstance(wanted, dict) and wanted.get("type") == "function" else None
    name = function.get("name") if isinstance(function, dict) else None
    if wanted == "required" and names:
        return {"must_call": ""}
    if name in names:
        return {"must_call": name}
    raise RequestError(
        "tool_choice is none, auto, required, or a function that is among the tools", "invalid_value", "tool_choice"
    )


def as_messages(talk: Talk, words: Sequence[str]) -> list[dict[str, Any]]:
    """A talk as messages for a chat template. words: of each of the user's turns, recordings written down.

    Calls are named as templates want them (call_id), whatever the client calls them.
    """
    said, ids, names, found = iter(words), dict[str, str](), dict[str, str](), list[dict[str, Any]]()
    for entry in talk.entries:
        if isinstance(entry, Said):
            found.append({"role": "user", "content": next(said)})
        elif isinstance(entry, Result):
            found.append(
                {"role": "tool", "content": entry.text, "tool_call_id": ids[entry.id], "name": names[entry.id]}
            )
        elif isinstance(entry, Answer):
            message: dict[str, Any] = {"role": "assistant", "content": entry.text}
            if entry.calls:
                ids |= {call.id: call_id(len(ids) + at) for at, call in enumerate(entry.calls)}
                names |= {call.id: call.name for call in entry.calls}
                message["tool_calls"] = [
                    {"id": ids[call.id], "type": "function",
                     "function": {"name": call.name, "arguments": call.arguments}}
                    for call in entry.calls
                ]  # fmt: skip
            found.append(message)
    return found
