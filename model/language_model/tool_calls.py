"""Function calls as a language model writes them: how its chat template shows them, and calls read as they are written.

    calls = CallFormat.of(template)         None: the template shows no calls, or in a form that is not known here
    kinds = calls.push(token, state)        which tokens of a reply are said, which are part of a call
    reader = CallReader(calls)
    for piece in reader.push(text): ...     the call's name, then its arguments as they come

The form is found by writing one call with the template: a marker or none, then JSON that holds the name and the
arguments (Hermes and Qwen: ``<tool_call>{"name": …, "arguments": …}</tool_call>``; Llama 3: ``{"name": …, "parameters":
…}``; Mistral: ``[TOOL_CALLS] [{…}, {…}]``), or the name before the JSON of its arguments. Whatever stands behind the
first call of a reply is part of a call: none of it is said.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import takewhile
from typing import Any, NamedTuple

from ..errors import DuologueError
from ..streaming import State
from ..tokens import TokenKind
from .chat_template import PROBE, ChatTemplate
from .messages import Given, Message

_NAME: str = PROBE["function"]["name"]
_ARGUMENTS = {"key": "value"}
_CALL: dict[str, Any] = {
    "role": "assistant",
    "content": "",
    "tool_calls": [
        {"id": "call00000", "type": "function", "function": {"name": _NAME, "arguments": _ARGUMENTS}},
    ],
}
_MARK = "\ue002"
_JSON = json.JSONDecoder()


def call_id(number: int) -> str:
    """What a reply's call number 0, 1, … is called in messages: nine characters, as Mistral's templates want them."""
    return f"call{number:05}"


class CallPiece(NamedTuple):
    """What a text adds to a call.

    number: of the call in its reply, from 0. name: of the function, in the first piece of a call; "": in the others.
    arguments: more of their JSON. ended: nothing more of this call follows.
    """

    number: int
    name: str
    arguments: str
    ended: bool


@dataclass
class CallState(State):
    """Of the reply under way. undecided: tokens that may begin a call. said: a token that is none has come. inside: a
    call has begun. forced: ids that are to come next."""

    undecided: list[int] = field(default_factory=list)
    said: bool = False
    inside: bool = False
    forced: list[int] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class CallFormat:
    """How a family of models writes calls.

    marker: what stands before a call, without spaces; "": the JSON itself begins the reply.
    name_key, arguments_key: of the JSON object. name_key "": the name stands before the JSON of the arguments.
    opening, behind_name: the template's own text before the name, and between name and arguments.
    """

    template: ChatTemplate
    marker: str
    name_key: str
    arguments_key: str
    opening: str
    behind_name: str

    @classmethod
    def of(cls, template: ChatTemplate) -> CallFormat | None:
        """The form in which a template shows calls; None: it shows none, or in a form that is not known here."""
        if not template.takes_tools:
            return None
        user = {"role": "user", "content": "hello"}
        try:
            said = template.render([user, {"role": "assistant", "content": _MARK}], (PROBE,), reply=False)
            shown = template.render([user, _CALL], (PROBE,), reply=False)
        except DuologueError:
            return None
        pairs = zip(said.partition(_MARK)[0], shown, strict=False)
        text = shown[sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs)) :]
        start = text.find("{")
        try:
            found, _ = _JSON.raw_decode(text, start)
        except (ValueError, IndexError):
            return None
        if found == _ARGUMENTS and _NAME in text[:start]:
            opening, _, behind = text[:start].rpartition(_NAME)
            return cls(template=template, marker=_squeezed(opening), name_key="", arguments_key="", opening=opening,
                       behind_name=behind)  # fmt: skip
        keys = {json.dumps(value): key for key, value in found.items()} if isinstance(found, dict) else {}
        name_key = keys.get(json.dumps(_NAME))
        arguments_key = keys.get(json.dumps(_ARGUMENTS)) or keys.get(json.dumps(json.dumps(_ARGUMENTS)))
        if name_key is None or arguments_key is None:
            return None
        name_at = text.index(_NAME, start)
        arguments_at = text.index("{", start + 1)
        return cls(
            template=template, marker=_squeezed(text[:start]).rstrip("["), name_key=name_key,
            arguments_key=arguments_key, opening=text[:name_at], behind_name=text[name_at + len(_NAME) : arguments_at],
        )  # fmt: skip

    def begin(self, name: str | None) -> CallState:
        """The state of a reply that has not begun. name: of a function that is to be called; "": any; None: none is."""
        if name is None:
            return CallState()
        text = self.opening + (name + self.behind_name if name else "")
        return CallState(forced=self.template.encode_markup(text))

    @functools.cached_property
    def first_tokens(self) -> set[int]:
        """Ids of which one begins a call: whoever may not call may not say them first."""
        start = self.opening.lstrip()
        texts = {start, f" {start}", self.opening, f"\n{start}"}
        return {ids[0] for text in texts if (ids := self.template.encode_markup(text)) and self._starts(ids[:1])}

    def push(self, token: int, state: CallState) -> list[TokenKind]:
        """The kinds of the tokens that one more decides, the oldest undecided one first: REPLY or CALL."""
        if state.inside:
            return [TokenKind.CALL]
        state.undecided.append(token)
        decided: list[TokenKind] = []
        while state.undecided:
            if self._opens(state.undecided, state.said):
                state.inside = True
                decided += [TokenKind.CALL] * len(state.undecided)
                state.undecided = []
            elif self._may_open(state.undecided, state.said):
                break
            else:
                state.said = state.said or bool(_squeezed(self._text(state.undecided[:1])))
                decided.append(TokenKind.REPLY)
                del state.undecided[0]
        return decided

    def end(self, state: CallState) -> list[TokenKind]:
        """The same where the reply is over."""
        decided, state.undecided = [TokenKind.REPLY] * len(state.undecided), []
        return decided

    def message(self, said: Sequence[int]) -> Message:
        """A reply, as ids, as a message of the assistant: its calls in the form that templates take."""
        state, kinds = CallState(), list[TokenKind]()
        for token in said:
            kinds += self.push(token, state)
        kinds += self.end(state)
        words = [token for token, kind in zip(said, kinds, strict=True) if kind is TokenKind.REPLY]
        calls = read_calls(self, self._text(said[len(words) :]))
        if not calls:
            return {"role": "assistant", "content": [Given(tuple(said))]}
        listed = [
            {"id": call_id(at), "type": "function", "function": {"name": name, "arguments": json.loads(arguments)}}
            for at, (name, arguments) in enumerate(calls)
        ]
        return {"role": "assistant", "content": [Given(tuple(words))] if words else "", "tool_calls": listed}

    def _text(self, ids: Sequence[int]) -> str:
        return self.template.decode(ids, special=True)

    def _starts(self, ids: Sequence[int]) -> bool:
        """Whether ids say something, and it may be the beginning of a call."""
        return bool(_squeezed(self._text(ids))) and self._may_open(ids, said=False)

    @property
    def _begins(self) -> str:
        return self.marker or _squeezed(f'{{"{self.name_key}":"')

    def _opens(self, ids: Sequence[int], said: bool) -> bool:
        """Whether a call begins in the first of these tokens."""
        return any(rest.startswith(self._begins) for rest in self._rests(ids, said))

    def _may_open(self, ids: Sequence[int], said: bool) -> bool:
        """Whether one may."""
        return any(self._begins.startswith(rest) for rest in self._rests(ids, said))

    def _rests(self, ids: Sequence[int], said: bool) -> list[str]:
        """The text of ids from each character of the first of them on; JSON alone begins a reply or no call."""
        text, first = _squeezed(self._text(ids)), len(_squeezed(self._text(ids[:1])))
        if not self.marker:
            return [] if said else [text]
        return [text[at:] for at in range(first)]


class CallReader:
    """Reads the text of a reply's calls, in pieces of any size.

    A name is given once it is whole; arguments are given as they come. A call that breaks off has no end.
    """

    def __init__(self, calls: CallFormat) -> None:
        self._calls = calls
        self._text = ""  # of the call under way, and what stands before it
        self._number = 0
        self._name = ""  # of the call under way, once it is known
        self._given = 0  # characters of its arguments that have been given

    def push(self, text: str) -> list[CallPiece]:
        """What these characters add."""
        self._text += text
        found: list[CallPiece] = []
        while (piece := self._next()) is not None:
            found.append(piece)
        return found

    def _next(self) -> CallPiece | None:
        name, start, behind = self._header()
        if not name or start is None:
            return None
        arguments, end = self._value(start)
        if arguments.startswith('"'):  # a string that holds the JSON
            arguments = "" if end is None else str(_loaded(arguments, ""))
        if end is not None and behind is not None:  # the object that holds them ends too
            end = self._value(behind)[1]
        new = arguments[self._given :]
        if end is None and not new and self._name:
            return None
        piece = CallPiece(self._number, "" if self._name else name, new, end is not None)
        if end is None:
            self._name, self._given = name, len(arguments)
        else:
            self._text, self._name, self._given, self._number = self._text[end:], "", 0, self._number + 1
        return piece

    def _header(self) -> tuple[str, int | None, int | None]:
        """The name, where the arguments begin, and where the object begins that holds both; None: not known yet."""
        calls, text = self._calls, self._text
        if not calls.name_key:
            at = text.find("{")
            head = text[:at] if at >= 0 else ""
            marker = calls.opening.strip()
            name = head.rpartition(marker)[2] if marker else head
            behind = calls.behind_name.strip()
            return (name.removesuffix(behind) if behind else name.strip()).strip(), at if at >= 0 else None, None
        begin = text.find("{")
        if begin < 0:
            return "", None, None
        name, arguments, at = "", None, begin + 1
        while (field_ := self._field(at)) is not None:
            key, start = field_
            value, end = self._value(start)
            if key == calls.name_key and end is not None:
                found = _loaded(value, "")
                name = found if isinstance(found, str) else ""
            elif key == calls.arguments_key:
                arguments = start
            if end is None:
                break
            at = end
        if arguments is None and self._value(begin)[1] is not None:
            arguments = -1  # it has none
        return name, arguments, begin

    def _field(self, at: int) -> tuple[str, int] | None:
        """The next key of an object from ``at`` on, and where its value begins."""
        while at < len(self._text) and self._text[at] in ", \t\r\n":
            at += 1
        try:
            key, end = _JSON.raw_decode(self._text, at)
        except ValueError:
            return None
        while end < len(self._text) and self._text[end] in ": \t\r\n":
            end += 1
        return (key, end) if isinstance(key, str) and end < len(self._text) else None

    def _value(self, start: int) -> tuple[str, int | None]:
        """As much as there is of the JSON value that begins there, and where it ends; None: it goes on."""
        if start < 0:
            return "{}", len(self._text)
        depth, quoted, at, text = 0, False, start, self._text
        while at < len(text):
            char = text[at]
            if quoted:
                if char == "\\":
                    at += 1
                elif char == '"':
                    quoted = False
            elif char == '"':
                quoted = True
            elif char in "{[":
                depth += 1
            elif char in "}]":
                depth -= 1
                if depth < 0:  # a bare number or word, ended by the object around it
                    return text[start:at].rstrip(), at
            elif depth == 0 and char == ",":
                return text[start:at].rstrip(), at
            at += 1
            if depth == 0 and not quoted and at <= len(text) and text[at - 1] in '"}]':
                return text[start:at], at
        return text[start:], None


def read_calls(calls: CallFormat, text: str) -> list[tuple[str, str]]:
    """The calls that are whole in a text: names, and arguments as JSON objects."""
    found: list[tuple[str, str]] = []
    name, arguments = "", ""
    for piece in CallReader(calls).push(text):
        name, arguments = piece.name or name, ("" if piece.name else arguments) + piece.arguments
        if piece.ended and isinstance(_loaded(arguments, None), dict):
            found.append((name, arguments))
    return found


def _loaded(text: str, otherwise: Any) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return otherwise


def _squeezed(text: str) -> str:
    return "".join(text.split())
