"""Long conversations of a model with a simulated user: a model behind an endpoint, one of this machine, or itself.

The user's model is told whom it plays, and reads the conversation with the roles changed: what the assistant said is
what it is to answer. The first thing that the user says is given.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch

from ...data_prep.datasets.question_sets import Exchange
from ...data_prep.text.endpoint import Endpoint, Messages
from ...data_prep.text.journal import Journal, key_of
from ...model.decoding.reply import reply
from ...model.dialogue_state import DialogueState, Sampling
from ...model.errors import DuologueError
from ..assistant.assistant import Assistant
from ..assistant.text_stream import ReplyText, ids_of, words_of

ROLE = (
    "You play a person who talks with a voice assistant. Go on with the conversation as people talk: one short "
    "sentence, a question, a remark or a new thought that follows from what the assistant said. Say nothing but what "
    "the person says, and never play the assistant."
)
CLOSING = "Goodbye."  # what ends a conversation when a user says it


class Speaker(Protocol):
    """Says what comes next. turns: (what was said to it, what it said), oldest first; text: what is said to it now."""

    def __call__(self, turns: Sequence[Exchange], text: str, system: str, seed: int) -> str: ...


@dataclass
class ModelSpeaker:
    """A model of this machine. It goes on from its last turn where the conversation does, and reads no turn twice."""

    assistant: Callable[[], Assistant]
    sampling: Sampling
    _last: tuple[str, list[Exchange], DialogueState] | None = None  # system, turns so far, and the state behind them

    @torch.inference_mode()
    def __call__(self, turns: Sequence[Exchange], text: str, system: str, seed: int) -> str:
        assistant = self.assistant()
        model, tokenizer = assistant.model, assistant.tokenizer
        if self._last is not None and self._last[:2] == (system, list(turns)):
            state = self._last[2]
        else:
            state = model.init_state(0, system if model.follows_instructions else "", ())
            for asked, said in turns:
                before = [words_of(tokenizer, model.layout, each) for each in (asked, said)]
                model.recall(before[0], before[1], state)
        self._last = None
        model.read_text(ids_of(tokenizer, model.layout, text)[0], state)
        state.rng.manual_seed(seed)
        found = ReplyText(tokenizer)
        for step in reply(model, state, self.sampling, aloud=False):
            found.push(step)
        answer = found.reply.text.strip()
        self._last = system, [*turns, (text, answer)], state
        return answer


@dataclass(frozen=True)
class EndpointSpeaker:
    """A model behind an OpenAI-compatible endpoint."""

    endpoint: Endpoint
    temperature: float

    def __call__(self, turns: Sequence[Exchange], text: str, system: str, seed: int) -> str:
        messages: Messages = [{"role": "system", "content": system}] if system else []
        for asked, said in turns:
            messages += [{"role": "user", "content": asked}, {"role": "assistant", "content": said}]
        return self.endpoint.ask([*messages, {"role": "user", "content": text}], self.temperature).strip()


@dataclass(frozen=True, kw_only=True)
class Talks:
    """
    turns: of a conversation, at most
    system: the model's system prompt
    role: what the user's model is told
    """

    turns: int = 8
    system: str = ""
    role: str = ROLE


def converse(
    model: Speaker, user: Speaker, openings: Sequence[str], talks: Talks, journal: Journal, about: str, seed: int = 0
) -> Iterator[list[Exchange]]:
    """A conversation for each opening; ``journal`` keeps every turn, so that a run that is broken off goes on with it.

    It ends with the turn in which somebody says nothing, or the user's goodbye.

    Args:
        about: what else the turns depend on: who speaks, and how.
    Raises:
        DuologueError: there are no openings; somebody's model fails.
    """
    if not openings:
        raise DuologueError("there is nothing that a user could begin with")
    for number, opening in enumerate(openings):
        turns: list[Exchange] = []
        said = opening
        while said and len(turns) < talks.turns:
            made = seed * 1_000_003 + 1_009 * number + 2 * len(turns)
            key = key_of({"about": about, "turns": turns, "said": said, "system": talks.system, "role": talks.role,
                          "seed": made})  # fmt: skip
            if key not in journal:
                answer = model(turns, said, talks.system, made)
                following = ""
                if answer and len(turns) + 1 < talks.turns:
                    # With the roles changed: the assistant said something, and the user answered it.
                    asked = [turn[0] for turn in (*turns, (said, answer))]
                    heard = [(turn[1], next_) for turn, next_ in zip(turns, asked[1:], strict=True)]
                    role = f"{talks.role}\nThe person began with: {opening}"
                    following = user(heard, answer, role, made + 1)
                journal.add({key: json.dumps([answer, following])})
            answer, following = json.loads(journal[key])
            if not answer:
                break
            turns.append((said, answer))
            said = "" if following.strip() in ("", CLOSING) else following
        yield turns
