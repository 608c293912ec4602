"""The messages of a chat completion as a talk: the system prompt, what was said and called, and what is asked now."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from ...protocol.errors import RequestError
from ..fields import unsupported

# A reply that was spoken, by its id, and where it is asked for -> its text.
Recalled = Callable[[str, str], str]


@dataclass(frozen=True)
class Sound:
    """A recording, in base64. where: it stands in the request."""

    data: str | memoryview
    where: str


@dataclass
class Said:
    """What the user said in one turn, in order: texts and recordings."""

    parts: list[str | Sound] = field(default_factory=list)

    @property
    def text(self) -> str:
        """The texts, joined."""
        return " ".join(part for part in self.parts if isinstance(part, str))

    @property
    def sounds(self) -> list[Sound]:
        """The recordings."""
        return [part for part in self.parts if isinstance(part, Sound)]


@dataclass(frozen=True)
class Called:
    """A function that was called. arguments: a JSON object."""

    id: str
    name: str
    arguments: dict[str, Any]


@dataclass(frozen=True)
class Answer:
    """What the assistant said, and what it called."""

    text: str
    calls: tuple[Called, ...] = ()


@dataclass(frozen=True)
class Result:
    """What a call of that id returned."""

    id: str
    text: str


@dataclass
class Talk:
    """instructions: the system prompt. entries: what was said, answered and returned, in order; the user's turns
    are one where they follow one another."""

    instructions: str = ""
    entries: list[Said | Answer | Result] = field(default_factory=list)

    @property
    def calls(self) -> bool:
        """Whether functions were called in it."""
        return any(isinstance(each, Result) or (isinstance(each, Answer) and each.calls) for each in self.entries)

    @property
    def past(self) -> list[tuple[Said, str]]:
        """What was said and answered before the question."""
        found, said = list[tuple[Said, str]](), Said()
        for entry in self.entries:
            if isinstance(entry, Answer):
                found.append((said, entry.text))
            said = entry if isinstance(entry, Said) else Said()
        return found

    @property
    def question(self) -> Said:
        """What is asked."""
        last = self.entries[-1]
        return last if isinstance(last, Said) else Said()

    def sounds_before(self) -> list[Sound]:
        """Recordings before the question."""
        return [sound for entry in self.entries[:-1] if isinstance(entry, Said) for sound in entry.sounds]


def read_messages(messages: Any, most: int, recalled: Recalled) -> Talk:
    """The talk in at most so many messages.

    Raises:
        RequestError: another shape, or nothing at the end that could be answered.
    """
    if not isinstance(messages, list) or not messages:
        raise RequestError("messages must be a list of at least one message", "invalid_value", "messages")
    if len(messages) > most:
        raise RequestError(f"there are {len(messages)} messages; at most {most} are read", "invalid_value", "messages")
    talk, system, called = Talk(), list[str](), dict[str, Called]()
    for i, message in enumerate(messages):
        where = f"messages.{i}"
        role = message.get("role") if isinstance(message, dict) else None
        if role in ("system", "developer"):
            system.append(_texts(message, where))
        elif role == "assistant":
            answer = _answer(message, where, recalled)
            called |= {call.id: call for call in answer.calls}
            talk.entries.append(answer)
        elif role == "tool":
            id_ = message.get("tool_call_id")
            if not isinstance(id_, str) or id_ not in called:
                where += ".tool_call_id"
                raise RequestError(f"{where} names no call before it", "invalid_value", where)
            talk.entries.append(Result(id_, _texts(message, where)))
        elif role == "user":
            parts = _parts(message.get("content"), where, sounds=True)
            if talk.entries and isinstance(before := talk.entries[-1], Said):
                before.parts += parts
            else:
                talk.entries.append(Said(parts))
        else:
            where += ".role"
            raise RequestError(f"{where} must be user, assistant, tool or system", "invalid_value", where)
    if not talk.entries or isinstance(talk.entries[-1], Answer):
        raise RequestError("the last message must be the user's, or a tool's", "invalid_value", "messages")
    talk.instructions = "\n\n".join(system)
    return talk


def _answer(message: dict[str, Any], where: str, recalled: Recalled) -> Answer:
    """An earlier reply: its text, or that of the speech which it names; and its calls."""
    if message.get("function_call"):
        unsupported(f"{where}.function_call: calls are served as tool_calls", f"{where}.function_call")
    calls = message.get("tool_calls") or []
    if not isinstance(calls, list):
        raise RequestError(f"{where}.tool_calls must be a list", "invalid_type", f"{where}.tool_calls")
    made = tuple(_called(call, f"{where}.tool_calls.{at}") for at, call in enumerate(calls))
    audio = message.get("audio")
    if message.get("content") is None and audio is not None:
        if not isinstance(audio, dict) or not isinstance(audio.get("id"), str):
            raise RequestError(f"{where}.audio needs the id of an earlier reply", "invalid_value", f"{where}.audio")
        return Answer(recalled(audio["id"], f"{where}.audio.id"), made)
    return Answer("" if message.get("content") in (None, "") else _texts(message, where), made)


def _called(call: Any, where: str) -> Called:
    function = call.get("function") if isinstance(call, dict) else None
    if not isinstance(function, dict) or not isinstance(call.get("id"), str):
        raise RequestError(f"{where} must have an id and a function", "invalid_value", where)
    name, text = function.get("name"), function.get("arguments")
    try:
        arguments = json.loads(text) if isinstance(text, str) and text.strip() else {}
    except (ValueError, RecursionError):
        arguments = None
    if not isinstance(name, str) or not isinstance(arguments, dict):
        wrong = f"{where}.function must have a name, and arguments that are a JSON object"
        raise RequestError(wrong, "invalid_value", where)
    return Called(call["id"], name, arguments)


def _texts(message: dict[str, Any], where: str) -> str:
    return " ".join(str(part) for part in _parts(message.get("content"), where, sounds=False))


def _parts(content: Any, where: str, *, sounds: bool) -> list[str | Sound]:
    parts = [{"type": "text", "text": content}] if isinstance(content, str) else content
    if not isinstance(parts, list) or not parts:
        raise RequestError(f"{where}.content must be a text or a list of parts", "invalid_value", f"{where}.content")
    found: list[str | Sound] = []
    for part in parts:
        kind = part.get("type") if isinstance(part, dict) else None
        if kind in ("text", "refusal") and isinstance(part.get(kind), str):
            found.append(part[kind])
        elif kind == "input_audio" and sounds:
            audio = part.get("input_audio")
            if not isinstance(audio, dict) or not isinstance(audio.get("data"), (str, memoryview)):
                raise RequestError(f"{where}: input_audio needs data", "invalid_value", f"{where}.content")
            found.append(Sound(audio["data"], f"{where}.content"))
        else:
            unsupported(f"content of type {str(kind)[:40]!r} is not served here", f"{where}.content")
    return found
