"""Conversations in writing, for rows of text alone: of a question set, of the data's own clips, or of files.

:class:`TextRows` is what stages ask for rows beside those of speech, and for a turn that a clip may stand behind.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol
from zlib import crc32

import numpy as np

from ...checkpoints.files import broken
from ...data_prep.datasets.conversations import WrittenConversation, read_conversations
from ...data_prep.datasets.question_sets import QuestionSet
from ...model.errors import DuologueError
from .turns import Row, TurnTokens


class TextRows(Protocol):
    """Where rows of text alone come from."""

    def row(self, tokens: TurnTokens, number: int, rng: np.random.Generator) -> Row:
        """Row ``number``; ``rng`` for whatever is drawn within it."""

    def turn(self, number: int) -> tuple[str, str]:
        """A question and its answer."""


@dataclass(frozen=True)
class QuestionRows:
    """Those of a question set: four dialogues a row, of some categories (none: all), some in wordings for practice."""

    questions: QuestionSet
    seed: int
    categories: tuple[str, ...] = ()
    practice: float = 0.0

    def row(self, tokens: TurnTokens, number: int, rng: np.random.Generator) -> Row:
        drawn = (self.questions.dialogue(self.seed, at, practice=self.practice) for at in itertools.count(number * 64))
        wanted = (d for d in drawn if not self.categories or d.category in self.categories)
        first, *more = itertools.islice(wanted, 4)
        row = tokens.row(first.system)
        row.add_dialogue(first, 0.0, rng, self.questions)
        for dialogue in more:
            if row.takes(dialogue.fields()):
                row.add_dialogue(dialogue, 0.0, rng, self.questions)
        return row

    def turn(self, number: int) -> tuple[str, str]:
        dialogue = self.questions.dialogue(self.seed, number)
        return dialogue.question, dialogue.answer


class ClipRows:
    """Those of a data set's clips, as text: system prompt, history, what is said, instruction and answer."""

    def __init__(self, metas: Sequence[Mapping[str, Any]]) -> None:
        self.metas = metas
        self.answered = [at for at, meta in enumerate(self.metas) if meta.get("answer") and meta.get("text")]

    def row(self, tokens: TurnTokens, number: int, rng: np.random.Generator) -> Row:
        meta = self._meta(int(rng.integers(2**31)))
        row = tokens.row(meta.get("system"))
        answer = row.add_before(meta, rng, QuestionSet())
        row.add_turn(meta["text"], answer, instruction=meta.get("instruction"))
        return row

    def turn(self, number: int) -> tuple[str, str]:
        meta = self._meta(number)
        return meta["text"], meta["answer"]

    def _meta(self, number: int) -> Mapping[str, Any]:
        if not self.answered:
            raise DuologueError("no clip of the data has a question and an answer for rows of text: give questions=SET")
        return self.metas[self.answered[number % len(self.answered)]]


def text_rows(
    metas: Sequence[Mapping[str, Any]], questions: QuestionSet | None, seed: int, **of_questions: Any
) -> TextRows:
    """Of the question set where there is one, otherwise of clips with these metadata."""
    return ClipRows(metas) if questions is None else QuestionRows(questions, seed, **of_questions)


@dataclass(frozen=True)
class Exchange:
    """A turn in writing: what is asked, and the answer. slot: words that a right one contains. rejected: worse ones."""

    question: str
    answer: str
    slot: str | None
    instruction: str | None = None
    rejected: tuple[str, ...] = ()


@dataclass(frozen=True)
class WrittenDialogue:
    """A conversation in writing: its system prompt, if any, and its turns up to the first that is not answered."""

    system: str | None
    turns: tuple[Exchange, ...]

    @property
    def characters(self) -> int:
        """How long it is, roughly."""
        return sum(len(turn.question) + len(turn.answer) for turn in self.turns)

    def row(self, tokens: TurnTokens, longest: int, turns: int | None = None) -> Row:
        """The turns that fit into ``longest`` positions, or the first ``turns`` of them; the answers are learnt."""
        row = tokens.row(self.system)
        for turn in self.turns[:turns]:
            longer = row.copy()
            longer.add_turn(turn.question, turn.answer, question_weight=0.0, instruction=turn.instruction)
            if row.ids and len(longer.ids) > longest:
                break
            row = longer
        row.ids, row.weights = row.ids[:longest], row.weights[:longest]  # one turn that is longer is cut short
        return row


def read_dialogues(files: Sequence[str]) -> list[tuple[str, WrittenDialogue]]:
    """(name, conversation) of all files; those in which nothing written is answered are left out.

    Raises:
        DuologueError: a file that cannot be read, or nothing in them is answered.
    """
    found = []
    for file in files:
        for conversation in read_conversations(file):
            turns = tuple(_exchanges(conversation))
            said = (text for turn in turns for text in (turn.question, turn.answer, turn.instruction, *turn.rejected))
            if any(broken(text) for text in (conversation.system, *said) if text):
                raise DuologueError(f"{file} {conversation.id}: half a surrogate pair, which is no character")
            if turns:
                found.append((f"{file} {conversation.id}", WrittenDialogue(conversation.system, turns)))
    if not found:
        raise DuologueError(f"nothing in {', '.join(files)} has an answer in writing")
    return found


def _exchanges(conversation: WrittenConversation) -> Iterator[Exchange]:
    for turn in conversation.turns:
        if not turn.respond:
            continue  # said to nobody here
        if not turn.text or not turn.reply:
            return  # what follows goes on from what is not known
        yield Exchange(turn.text, turn.reply, turn.slot, turn.instruction, turn.rejected)


def hold_out(
    named: Sequence[tuple[str, WrittenDialogue]], fraction: float
) -> tuple[list[WrittenDialogue], list[WrittenDialogue]]:
    """What to learn from, and the fraction of the conversations that is held out, the same each time."""
    ordered = sorted(named, key=lambda one: (crc32(one[0].encode()), one[0]))
    count = int(fraction * len(ordered))
    return [one for _, one in ordered[count:]], [one for _, one in ordered[:count]]
