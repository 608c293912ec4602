"""A conversation as the token ids that a language model was taught to read: its own chat template, its own tokens.

What :meth:`ChatTemplate.write` gives equals transformers' ``apply_chat_template`` for contents in writing. Where a
message holds speech, or a reply as it was generated, ids stand in the place of its text.

    template.write([{"role": "user", "content": [Given((SPEECH,) * 25), "Transcribe the speech."]}])
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from ..errors import DuologueError
from .messages import Given, Message, Tool, check_messages, parts, schemas

__all__ = ["PROBE", "SPEECH", "ChatTemplate", "Given", "Message", "Tool", "Written", "schemas"]

SPEECH = -200  # stands for an embedding of speech, as in LLaMA-Omni's code: no token of anybody's

# For a language model that was never taught to chat.
PLAIN = (
    "{{ bos_token }}{% for m in messages %}{{ m['role'] }}:"
    "{% if m['role'] == 'assistant' %}{{ m['content'] }}{{ eos_token }}{% else %} {{ m['content'] }}{% endif %}"
    "{{ '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}assistant:{% endif %}"
)
_OPEN, _CLOSE = "\ue000", "\ue001"  # of private use: around the number of what is given
_GIVEN = re.compile(f"{_OPEN}(\\d+){_CLOSE}")
_DATE = re.compile(r"strftime_now\(\s*(['\"])(.*?)\1\s*\)")
# A tool for finding out whether a template has a place for tools.
PROBE: dict[str, Any] = {
    "type": "function",
    "function": {"name": "probe", "description": "", "parameters": {"type": "object", "properties": {}}},
}


class Written(NamedTuple):
    """A conversation as ids, and where each :class:`Given` of it stands, in order."""

    ids: list[int]
    given: list[range]


class ChatTemplate:
    """The chat template of a transformers tokenizer, or a plain one where it has none.

    eos: ends a reply. ends: all ids that end one.
    takes_system, takes_tools: whether the template has a place for them. Without a place for a system message, its text
        stands before that of the first user message.

    Raises:
        DuologueError: a template that fails, or that does not show where a turn begins and ends.
    """

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer
        self._encode_piece: Callable[[str, bool], tuple[int, ...]] = functools.lru_cache(4096)(self._encoded)
        self._special = {id_ for id_, token in tokenizer.added_tokens_decoder.items() if token.special}
        user = {"role": "user", "content": "hello"}
        self.takes_system = self._accepts({"role": "system", "content": f"{_OPEN}9{_CLOSE}"}, user)
        self.takes_tools = self._lists(PROBE["function"]["name"], user)
        reply = {"role": "assistant", "content": [Given((SPEECH,))]}
        ids, given = self.write([user, reply, user], reply=False)
        after = ids[given[0].stop :]
        if not after or not given[0].start:
            raise DuologueError("the chat template puts no token before a question or after an answer")
        self.eos: int = next((id_ for id_ in after if id_ in self._special), after[0])
        others = {tokenizer.eos_token_id} - {None}
        self.ends = frozenset({self.eos, *others})

    def encode(self, text: str) -> list[int]:
        """A text by itself; special tokens in it are words like any other.

        Raises:
            DuologueError: half a surrogate pair, which is no character.
        """
        _check_characters(text)
        return list(self.tokenizer.encode(text, add_special_tokens=False, split_special_tokens=True))

    def encode_markup(self, text: str) -> list[int]:
        """A stretch of what a template writes: special tokens in it are what they stand for."""
        return list(self._encode_piece(text, True))

    def decode(self, ids: Sequence[int], special: bool = False) -> str:
        """The text of ids; special tokens are left out, unless ``special``."""
        tokens = list(ids)
        return str(self.tokenizer.decode(tokens, skip_special_tokens=not special, clean_up_tokenization_spaces=False))

    def write(
        self, messages: Sequence[Message], tools: Sequence[Tool] = (), reply: bool = True, began: float | None = None
    ) -> Written:
        """The ids of a conversation.

        Args:
            tools: functions that the model may call.
            reply: end with what stands before an assistant's message.
            began: when the conversation began, in seconds since 1970, for a template that writes the date; None: now.

        Raises:
            DuologueError: a template that fails, leaves out what it was given, or says it in another order; or
                messages that are none.
        """
        check_messages(messages)
        given: list[tuple[int, ...]] = []
        plain = [self._with_marks(message, given) for message in self._with_system_folded(messages)]
        text = self.render(plain, tools, reply, began)
        ids: list[int] = []
        places: list[range] = []
        for at, piece in enumerate(_GIVEN.split(text)):
            if at % 2 == 0:
                ids += self._encode_piece(piece, at > 0)
                continue
            if int(piece) != len(places):
                break
            places.append(range(len(ids), len(ids) + len(given[int(piece)])))
            ids += given[int(piece)]
        if len(places) != len(given):
            raise DuologueError("the chat template leaves out or moves what a message holds: it cannot be used here")
        return Written(ids, places)

    def _with_system_folded(self, messages: Sequence[Message]) -> list[Message]:
        if self.takes_system or not messages or messages[0]["role"] != "system":
            return list(messages)
        system, rest = messages[0], list(messages[1:])
        for at, message in enumerate(rest):
            if message["role"] == "user":
                rest[at] = {**message, "content": [*parts(system["content"]), "\n\n", *parts(message["content"])]}
                return rest
        raise DuologueError("the chat template has no system message, and there is no user message to hold its text")

    def _with_marks(self, message: Message, given: list[tuple[int, ...]]) -> Message:
        """The message with a text for content, in which a mark stands for what is given; that is appended."""
        content = message.get("content")
        if content is None:
            return message
        marked = []
        for part in parts(content):
            if isinstance(part, str) and self._is_harmless(part):
                marked.append(part)
            else:
                marked.append(f"{_OPEN}{len(given)}{_CLOSE}")
                given.append(tuple(self.encode(part)) if isinstance(part, str) else part.ids)
        return {**message, "content": "".join(marked)}

    def _is_harmless(self, text: str) -> bool:
        """Whether a text stays a text between the template's own words: it holds no special token."""
        if _OPEN in text:
            return False
        names = self.tokenizer.added_tokens_decoder.values()
        return not any(token.special and token.content in text for token in names)

    def render(
        self, messages: Sequence[Message], tools: Sequence[Tool], reply: bool, began: float | None = None
    ) -> str:
        """The text that the template writes; see :meth:`write`."""
        functions = schemas(tools) or None
        try:
            template = self.tokenizer.get_chat_template(tools=functions) if self.tokenizer.chat_template else PLAIN
            text = str(
                self.tokenizer.apply_chat_template(
                    [dict(message) for message in messages], tools=functions, tokenize=False,
                    chat_template=_of_date(template, began), add_generation_prompt=reply, enable_thinking=False,
                )
            )  # fmt: skip
        except Exception as error:  # jinja's own, of many kinds
            raise DuologueError(f"the chat template fails: {' '.join(str(error).split())}") from None
        _check_characters(text)
        return text

    def _accepts(self, *messages: Message) -> bool:
        try:
            return str(messages[0]["content"]) in self.render(messages, (), True)
        except DuologueError:
            return False

    def _lists(self, tool: str, message: Message) -> bool:
        try:
            return tool in self.render([message], (PROBE,), True)
        except DuologueError:
            return False

    def _encoded(self, text: str, inside: bool) -> tuple[int, ...]:
        """A stretch of the template's own text. inside: something stands before it, so that a tokenizer which puts a
        space before every text (SentencePiece) must not do so here."""
        if not text:
            return ()
        ids = tuple(self.tokenizer.encode(text, add_special_tokens=False))
        if inside and self._puts_space_first:
            before = tuple(self.tokenizer.encode("a", add_special_tokens=False))
            whole = tuple(self.tokenizer.encode(f"a{text}", add_special_tokens=False))
            if whole[: len(before)] == before:
                return whole[len(before) :]
        return ids

    @functools.cached_property
    def _puts_space_first(self) -> bool:
        first = self.tokenizer.convert_ids_to_tokens(self.tokenizer.encode("a", add_special_tokens=False))[0]
        return str(first).startswith("▁")


def _of_date(template: str, began: float | None) -> str:
    """The template with the date of ``began`` where it asks for today's."""
    if began is None:
        return template
    date = datetime.fromtimestamp(began)
    return _DATE.sub(lambda found: repr(date.strftime(found[2])), template)


def _check_characters(text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise DuologueError("a message has half a surrogate pair, which is no character") from None
