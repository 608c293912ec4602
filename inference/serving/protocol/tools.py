"""Functions that a client lets the model call: as the Realtime API declares them, and as chat templates take them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from .errors import RequestError

CALLS_NONE = "this model calls no tools: it has learnt no way to"


@dataclass(frozen=True)
class ToolChoice:
    """may_call: whether the model may call any function. must_call: one that it must call; "": any; None: none."""

    may_call: bool = True
    must_call: str | None = None


def functions(tools: list[Any], where: str) -> tuple[list[dict[str, Any]], list[str]]:
    """Declared tools: those that are functions, and the kinds of the others.

    Raises:
        RequestError: a function without a name, or two of one name.
    """
    found: list[dict[str, Any]] = []
    strange: list[str] = []
    for at, tool in enumerate(tools):
        kind = tool.get("type", "function")
        if kind != "function":
            strange.append(str(kind)[:40])
            continue
        name = tool.get("name")
        if not isinstance(name, str) or not name or any(name == other["name"] for other in found):
            what = "a function has a name of its own"
            raise RequestError(what, "invalid_value", f"{where}.tools.{at}.name")
        if not isinstance(tool.get("parameters") or {}, dict):
            what = "parameters must be a JSON schema"
            raise RequestError(what, "invalid_value", f"{where}.tools.{at}.parameters")
        found.append({**tool, "type": "function"})
    return found, strange


def check_choice(given: Any, where: str) -> Any:
    """A ``tool_choice``.

    Raises:
        RequestError: one that is none.
    """
    named = isinstance(given, dict) and given.get("type") == "function" and isinstance(given.get("name"), str)
    if given not in ("auto", "none", "required") and not named:
        what = "tool_choice must be 'auto', 'none', 'required' or {'type': 'function', 'name': …}"
        raise RequestError(what, "invalid_value", f"{where}.tool_choice")
    return given


def choice(given: Any, tools: list[dict[str, Any]], where: str = "response") -> ToolChoice:
    """What a checked ``tool_choice`` means with these tools.

    Raises:
        RequestError: a call is required of a function that is not declared.
    """
    if given == "none" or given in (None, "auto"):
        return ToolChoice(may_call=given != "none")
    name = given["name"] if isinstance(given, dict) else ""
    if not tools or (name and not any(tool["name"] == name for tool in tools)):
        what = f"tool_choice asks for {name or 'a function'!r}, which is not in tools"
        raise RequestError(what, "invalid_value", f"{where}.tool_choice")
    return ToolChoice(must_call=name if name or len(tools) > 1 else tools[0]["name"])


def schemas(tools: list[dict[str, Any]]) -> tuple[dict[str, Any], ...]:
    """Declared functions in the form that chat templates take."""
    return tuple(
        {
            "type": "function",
            "function": {
                "name": tool["name"],
                "description": tool.get("description") or "",
                "parameters": tool.get("parameters") or {"type": "object", "properties": {}},
            },
        }
        for tool in tools
    )
