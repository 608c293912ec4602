"""What stands around the words and the speech of a turn: which ids the language model is fed, and when.

A model reads turns in one of two ways. :class:`FixedPrompt`: the same few ids around every turn, as its config says
them. :class:`ChatPrompt`: the language model's own chat template, with system prompt, tools and tool results; the ids
fed are those that transformers' ``apply_chat_template`` gives for the conversation so far, so that a template which
writes past turns otherwise than the last one is followed too: what differs is forgotten and fed again.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Sequence
from itertools import takewhile
from typing import Protocol

from ..dialogue_state import ChatState, DialogueState
from ..errors import DuologueError
from ..speech_lm_config import PromptConfig
from ..tokens import TokenLayout
from .chat_template import SPEECH, ChatTemplate, Given, Message, Tool, Written, schemas
from .tool_calls import CallFormat


class Prompt(Protocol):
    """Around a turn. Its methods return the ids to feed; what is to be forgotten first, they truncate themselves.

    follows_instructions, takes_tools: whether a system prompt, or tools, reach the model.
    calls: how the model writes calls of them; None: in no form that is known.
    ends: ids that end a reply.
    """

    follows_instructions: bool
    takes_tools: bool
    calls: CallFormat | None
    ends: frozenset[int]

    def begin(self, instructions: str, tools: Sequence[Tool]) -> ChatState | None:
        """What is remembered of a conversation in which nothing has been said."""

    def before_speech(self, state: DialogueState) -> list[int]:
        """A turn of speech begins."""

    def behind_speech(self, state: DialogueState, end: int, question: Sequence[int]) -> list[int]:
        """It is over, its last embedding before position ``end``, and ``question`` is asked about it in writing."""

    def typed(self, state: DialogueState, ids: Sequence[int]) -> list[int]:
        """A turn in writing."""

    def messages(self, state: DialogueState, messages: Sequence[Message]) -> list[int]:
        """Messages as a chat template takes them: a user's, tool calls and their results."""

    def takes(self, turns: int) -> int:
        """Positions that so many turns take besides their words and their speech, at most."""

    def around(self, state: DialogueState) -> int:
        """Positions that the next turn takes besides its words, its speech and its reply, at most."""


class FixedPrompt:
    """The ids of a :class:`PromptConfig`. With ``past_in_words`` a turn's speech is forgotten where the next begins."""

    follows_instructions = takes_tools = False
    calls: CallFormat | None = None

    def __init__(self, config: PromptConfig, layout: TokenLayout, past_in_words: bool) -> None:
        self.config, self.layout, self.past_in_words = config, layout, past_in_words
        self.ends = frozenset({layout.eos})

    def begin(self, instructions: str, tools: Sequence[Tool]) -> None:
        return None

    def before_speech(self, state: DialogueState) -> list[int]:
        rest = [] if state.pending is None else [state.pending]
        if self.past_in_words and state.text_start > state.turn_start:
            state.llm.truncate(state.turn_start)
            rest = state.written
        return [*rest, *(self.config.next_prefix_ids if state.turn else self.config.prefix_ids)]

    def behind_speech(self, state: DialogueState, end: int, question: Sequence[int]) -> list[int]:
        return [*question, *self.config.suffix_ids]

    def typed(self, state: DialogueState, ids: Sequence[int]) -> list[int]:
        words, layout = list(ids), self.layout
        if layout.transcript is not None and layout.reply is not None:  # as if the model had just written it down
            words = [layout.transcript, *words, layout.reply]
        else:
            words += self.config.suffix_ids
        return [*self.before_speech(state), *words]

    def messages(self, state: DialogueState, messages: Sequence[Message]) -> list[int]:
        raise DuologueError("this model has no chat template: it takes questions, no messages")

    def takes(self, turns: int) -> int:
        markers = len(self.config.next_prefix_ids) + len(self.config.suffix_ids) + 3
        return len(self.config.prefix_ids) + turns * markers

    def around(self, state: DialogueState) -> int:
        before = max(len(self.config.prefix_ids), len(self.config.next_prefix_ids))
        return before + len(self.config.suffix_ids) + 2


class ChatPrompt:
    """The chat template of the language model's tokenizer."""

    follows_instructions = True

    def __init__(self, template: ChatTemplate) -> None:
        self.template = template
        self.takes_tools, self.ends = template.takes_tools, template.ends
        self.calls = CallFormat.of(template)
        user = {"role": "user", "content": "a"}
        one, two = ([user, *[{"role": "assistant", "content": "a"}, user] * more] for more in (0, 1))
        self._first = len(template.write(one).ids)
        self._each = len(template.write(two).ids) - self._first

    def begin(self, instructions: str, tools: Sequence[Tool]) -> ChatState:
        return ChatState(system=instructions, tools=schemas(tools), began=time.time())

    def before_speech(self, state: DialogueState) -> list[int]:
        chat = self._between_turns(state)
        ids, given = self._written(chat, [{"role": "user", "content": [Given((SPEECH,))]}])
        return self._new(state, chat, ids[: given[-1].start])

    def behind_speech(self, state: DialogueState, end: int, question: Sequence[int]) -> list[int]:
        chat = _chat(state)
        speech = Given((SPEECH,) * (end - state.turn_start))
        message = {"role": "user", "content": [speech, self._text(question)] if question else [speech]}
        ids, given = self._written(chat, [message])
        chat.messages.append((chat.turn_start, message))
        speech_at = [place for place in given if ids[place.start : place.stop] == list(speech.ids)]
        return ids[speech_at[-1].stop :]

    def typed(self, state: DialogueState, ids: Sequence[int]) -> list[int]:
        return self.messages(state, [{"role": "user", "content": [self._text(ids)]}])

    def messages(self, state: DialogueState, messages: Sequence[Message]) -> list[int]:
        chat = self._between_turns(state, answered=bool(messages) and messages[0]["role"] == "assistant")
        ids = self._written(chat, messages).ids
        new = self._new(state, chat, ids)
        chat.messages += [(chat.turn_start, copy.deepcopy(dict(message))) for message in messages]
        return new

    def takes(self, turns: int) -> int:
        return self._first + turns * self._each

    def around(self, state: DialogueState) -> int:
        if not (chat := _chat(state)).fed:
            return len(self._written(chat, [{"role": "user", "content": ""}]).ids)
        return self._first + self._each

    def _between_turns(self, state: DialogueState, answered: bool = False) -> ChatState:
        """The reply under way becomes a message, as far as it was generated.

        answered: the reply comes as a message, the next one. Where it has come already, or comes, one of which nothing
            was generated is none.
        """
        chat = _chat(state)
        if chat.reply_start is not None:
            said = [*chat.fed[chat.reply_start :], *([] if state.pending is None else [state.pending])]
            message: Message = {"role": "assistant", "content": [Given(tuple(said))]}
            if self.calls is not None and chat.tools:
                message = self.calls.message(said)
            if said or not (answered or (chat.messages and chat.messages[-1][1]["role"] == "assistant")):
                chat.messages.append((chat.reply_start, message))
            chat.reply_start = None
        chat.turn_start = len(chat.fed)
        return chat

    def _written(self, chat: ChatState, more: Sequence[Message]) -> Written:
        system = [{"role": "system", "content": chat.system}] if chat.system else []
        messages = [*system, *(message for _, message in chat.messages), *more]
        return self.template.write(messages, chat.tools, began=chat.began)

    def _new(self, state: DialogueState, chat: ChatState, ids: list[int]) -> list[int]:
        """What is to be fed of ids: all behind what they have in common with what was fed."""
        same = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(chat.fed, ids, strict=False)))
        if SPEECH in ids[same:]:
            raise DuologueError("the chat template writes past speech otherwise than it was heard: it cannot be used")
        if same < len(chat.fed):
            state.llm.truncate(same)
            del chat.fed[same:]
            chat.turn_start = min(chat.turn_start, same)
            chat.messages = [(min(start, same), message) for start, message in chat.messages]
        return ids[same:]

    def _text(self, ids: Sequence[int]) -> str | Given:
        """The text that ids stand for, or the ids where it would not give the same again by itself."""
        text = self.template.decode(ids)
        return text if self.template.encode(text) == list(ids) else Given(tuple(ids))


def _chat(state: DialogueState) -> ChatState:
    assert state.chat is not None
    return state.chat
