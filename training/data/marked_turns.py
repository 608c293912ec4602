"""Turns in a question set's own vocabulary, with markers; a word outside of it becomes <unk>.

    <bos> <user> [speech] <transcript> question <reply> answer <eos> <user> …
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...data_prep.datasets.question_sets import QuestionSet, history_of, question_set
from ...data_prep.text.plain_text import words_or_text
from ...model.speech_lm_config import PromptConfig, SpeechLMConfig
from ...model.tokens import TokenLayout
from .turns import HISTORY, Hearing, Row


class MarkedTokens:
    """The tokens of a question set's vocabulary. ``prompt.next_prefix_ids`` begins with ``eos``."""

    transcribes = True

    def __init__(self, table: Mapping[str, int]) -> None:
        self._table, self._names, self._unknown = table, list(table), table["<unk>"]
        self.prompt = PromptConfig(
            prefix_ids=(table["<bos>"], table["<user>"]),
            suffix_ids=(table["<transcript>"],),
            next_prefix_ids=(table["<eos>"], table["<user>"]),
        )
        self.reply = table["<reply>"]  # between the transcript and the answer
        self.eos, self.pad, self.speech = table["<eos>"], table["<pad>"], table["<speech>"]

    def encode(self, text: str) -> list[int]:
        """The words of a text, which may be written as people write."""
        return [self._table.get(word, self._unknown) for word in words_or_text(text).split()]

    def decode(self, ids: list[int]) -> str:
        return " ".join(self._names[id_] for id_ in ids if not self._names[id_].startswith("<"))

    def row(self, system: str | None = None) -> MarkedRow:
        """Without the system prompt, for which there is no marker."""
        return MarkedRow(self)


@functools.cache
def marked_tokens(questions: str) -> MarkedTokens:
    """Those of a question set's own vocabulary."""
    return MarkedTokens(question_set(questions).token_ids())


def marked_config(questions: str, **parts: Any) -> SpeechLMConfig:
    """A model of these parts that writes in a question set's own tokens: what it heard, then its answer.

    It listens as the stages here teach it: with CTC at the places of speech, the past in writing, and not too long.
    """
    table, decoder = question_set(questions).token_ids(), parts.get("unit_decoder")
    markers = ("bos", "eos", "pad", "user", "speech", "transcript", "reply", "query", "noise", "wait")
    layout = TokenLayout(
        **{name: table[f"<{name}>"] for name in markers},
        text=(sum(token.startswith("<") for token in table), len(table)),
        units=0 if decoder is None else decoder.units,
    )
    usual: dict[str, Any] = {"transcript_ctc": 0.4, "history": 192, "past_in_words": True}
    return SpeechLMConfig(layout=layout, prompt=marked_tokens(questions).prompt, **usual | parts)


@dataclass
class MarkedRow(Row):
    """A row with markers."""

    tokens: MarkedTokens

    def add(self, ids: list[int], weight: float) -> None:
        self.ids += ids
        self.weights += [weight] * len(ids)

    def hear(self, speech: int) -> None:
        prompt = self.tokens.prompt
        self.add([*(prompt.next_prefix_ids[1:] if self.ids else prompt.prefix_ids), *[self.tokens.speech] * speech], 0)

    def add_turn(
        self,
        question: str,
        answer: str | None,
        speech: int = 0,
        question_weight: float = 1.0,
        answer_weight: float = 1.0,
        instruction: str | None = None,
    ) -> None:
        tokens, asked = self.tokens, self.tokens.encode(question)
        self.hear(speech)
        self.add(list(tokens.prompt.suffix_ids), 0)
        self.add(asked, question_weight)
        if instruction:  # as if it had been spoken last
            self.add(tokens.encode(instruction), 0)
        if speech:
            self.spoken += asked
        if answer is not None:
            self.add([tokens.reply, *tokens.encode(answer), tokens.eos], answer_weight)
            self.said = range(len(self.ids) - 1 - len(tokens.encode(answer)), len(self.ids) - 1)

    def add_before(
        self, turn: Mapping[str, Any], rng: np.random.Generator, questions: QuestionSet, hearing: Hearing | None = None
    ) -> str | None:
        """In writing. A follow-up goes on from another turn each time (:meth:`QuestionSet.behind_another_turn`). If it
        only says the last answer again ("what did you say"), that is mostly cut short, as if it had been interrupted,
        and so is what is said again: what nobody heard was not said.
        """
        history, answer = history_of(turn)[-HISTORY:], turn.get("answer")
        if not history:
            return answer
        for question, earlier in history[:-1]:
            self.add_turn(question, earlier, question_weight=0.0)
        before = history[-1]
        if answer is not None:
            other = questions.behind_another_turn(turn.get("template", ""), turn.get("question", ""), rng)
            before, answer = other or (before, answer)
        question, earlier = before
        if answer != earlier:
            self.add_turn(question, earlier, question_weight=0.0)
            return answer
        words = earlier.split()
        heard = " ".join(words[: int(rng.integers(1, len(words) + 1 + len(words) // 3))])
        self.add_turn(question, heard, question_weight=0.0, answer_weight=0.0)  # no answer to the question, perhaps
        return heard

    def takes(self, turn: Mapping[str, Any]) -> bool:
        return True
