"""Turns in a language model's own tokens, written by its chat template; it answers at once.

    system: … user: [speech] instruction assistant: answer <end of turn> user: …
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ...data_prep.datasets.question_sets import QuestionSet, history_of
from ...model.language_model.chat_template import SPEECH, ChatTemplate, Given, Message
from .turns import HISTORY, Hearing, Row


class ChatTokens:
    """The tokens of a chat template's tokenizer.

    Raises:
        DuologueError: a template that cannot be used (see :class:`ChatTemplate`).
    """

    transcribes = False
    speech = SPEECH

    def __init__(self, tokenizer: Any) -> None:
        self.template = ChatTemplate(tokenizer)
        self.eos = self.template.eos
        self.pad: int = self.eos if tokenizer.pad_token_id is None else tokenizer.pad_token_id

    def encode(self, text: str) -> list[int]:
        return self.template.encode(text)

    def decode(self, ids: list[int]) -> str:
        return self.template.decode(ids)

    def row(self, system: str | None = None) -> ChatRow:
        return ChatRow(self, system=system)


@dataclass
class ChatRow(Row):
    """A row as the chat template writes it, up to the end of the last answer. Only answers and their ends count."""

    tokens: ChatTokens
    system: str | None = None
    messages: list[Message] = field(default_factory=list)
    counted: list[tuple[int, float]] = field(default_factory=list)  # which Given is an answer, and its weight
    turns: list[dict[str, Any]] = field(default_factory=list)  # how each was added, but for its speech

    def __post_init__(self) -> None:
        if self.system and not self.messages:
            self.messages.append({"role": "system", "content": self.system})

    def hear(self, speech: int) -> None:
        self.messages.append({"role": "user", "content": [Given((SPEECH,) * speech)]})
        ids, given = self.tokens.template.write(self.messages, reply=False)
        self._set(ids[: given[-1].stop], given)

    def add_turn(
        self,
        question: str,
        answer: str | None,
        speech: int = 0,
        question_weight: float = 1.0,
        answer_weight: float = 1.0,
        instruction: str | None = None,
    ) -> None:
        """A transcript has no place in it: ``question_weight`` is without effect."""
        tokens = self.tokens
        self.turns.append(
            {"question": question, "answer": answer, "answer_weight": answer_weight, "instruction": instruction}
        )
        self.spoken += tokens.encode(question) if speech else []
        if speech and answer is None:
            self.hear(speech)
            return
        asked: list[str | Given] = [Given((SPEECH,) * speech)] if speech else [question]
        if instruction:
            asked.append(instruction if speech else f"\n{instruction}")
        self.messages.append({"role": "user", "content": asked})
        ids, given = tokens.template.write(self.messages)  # just what is fed before an answer is generated
        if answer is not None:
            said = tokens.encode(answer)
            self.said = range(len(ids), len(ids) + len(said))
            self.counted.append((len(given), answer_weight))
            self.messages.append({"role": "assistant", "content": [Given(tuple(said))]})
            ids, given = [*ids, *said, tokens.eos], [*given, self.said]
        self._set(ids, given)

    def _set(self, ids: list[int], given: list[range]) -> None:
        self.ids, self.weights = ids, [0.0] * len(ids)
        for at, weight in self.counted:
            end = ids.index(self.tokens.eos, given[at].stop)  # behind it at once, or a space behind it
            self.weights[given[at].start : end + 1] = [weight] * (end + 1 - given[at].start)

    def add_before(
        self, turn: Mapping[str, Any], rng: np.random.Generator, questions: QuestionSet, hearing: Hearing | None = None
    ) -> str | None:
        """As the data has them, in speech or in writing. An answer counts where its question is heard."""
        for question, answer in history_of(turn)[-HISTORY:]:
            found = hearing(question, answer) if hearing else None
            frames, clip, instruction = found or (0, -1, None)
            self.add_turn(question, answer, frames, answer_weight=float(frames > 0), instruction=instruction)
            self.clips += [clip] if frames else []
        return turn.get("answer")

    def in_writing(self) -> ChatRow:
        row = self.tokens.row(self.system)
        for turn in self.turns:
            row.add_turn(**turn)
        return row

    def takes(self, turn: Mapping[str, Any]) -> bool:
        """One without a past of its own, and of the same system prompt."""
        return not history_of(turn) and (turn.get("system") or None) == (self.system or None)
