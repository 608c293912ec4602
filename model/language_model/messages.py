"""What a chat template is given: messages and tools, checked, in the one form that templates read."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..errors import DuologueError


@dataclass(frozen=True)
class Given:
    """Part of a message's content: these ids stand there as they are."""

    ids: tuple[int, ...]


Content = str | Sequence[str | Given]
Message = Mapping[str, Any]  # role, content (a Content), and whatever else the template reads: tool_calls, name
# The JSON schema of a function, or a Python function with annotations and a docstring, as transformers takes them.
Tool = Mapping[str, Any] | Callable[..., Any]


def schemas(tools: Sequence[Tool]) -> list[dict[str, Any]]:
    """The JSON schema of each tool.

    Raises:
        DuologueError: a function that has no annotations or no docstring, or something that is no tool.
    """
    return [_schema(tool) for tool in tools]


def _schema(tool: Tool) -> dict[str, Any]:
    if isinstance(tool, Mapping):
        return dict(tool)
    if not callable(tool):
        raise DuologueError(f"a tool is {tool!r:.40}; it must be the JSON schema of a function, or a Python function")
    from transformers.utils import get_json_schema

    try:
        return dict(get_json_schema(tool))
    except Exception as error:  # of several kinds, some of several lines
        raise DuologueError(f"a tool is a function without a schema: {' '.join(str(error).split())}") from None


def check_messages(messages: Sequence[Message]) -> None:
    """Raises DuologueError unless they are objects with a role."""
    for message in messages:
        if not isinstance(message, Mapping) or not isinstance(message.get("role"), str):
            raise DuologueError(f"a message is {message!r:.40}; it must be an object with 'role'")


def parts(content: Any) -> list[str | Given]:
    """A content in pieces; those of the form {"type": "text", "text"} as their text.

    Raises:
        DuologueError: a piece that is neither text nor ids.
    """
    found: list[str | Given] = []
    for part in content if isinstance(content, list | tuple) else [content]:
        text = part.get("text") if isinstance(part, Mapping) and part.get("type") == "text" else part
        if not isinstance(text, str | Given):
            raise DuologueError(f"a message holds {part!r:.40}; it must be text")
        found.append(text)
    return found
