"""Question sets: written questions and their answers, reached by name, so that stages and suites can take any of them.

    question_set("nano").dialogue(0, 7, Split.TEST)     of a bundled one: data_prep/NAME/question_set.py
    question_set("mine.jsonl")                          of a file of conversations (see conversations.py)
"""

from __future__ import annotations

import functools
import importlib.util
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ...model.errors import DuologueError
from ..text.plain_text import plain
from .conversations import read_instructions
from .splits import Split, operand_split


@dataclass(frozen=True, kw_only=True)
class Dialogue:
    """A question and its answer.

    category, kind: what it is about, widely and narrowly; "" where the set does not say
    template: the id of the wording: kind and eight hex digits
    slot: the words that a right reply contains, one after the other; "" where any answer may be right
    operands: the kind and what was asked about, "plus 35 47"
    before: question and answer of the turn that it goes on from; None: of none
    """

    category: str
    kind: str
    template: str
    question: str
    answer: str
    slot: str
    operands: str
    before: tuple[str, str] | None = None


class QuestionSet:
    """What a set of questions can be asked for. All is a function of its arguments."""

    name: str
    categories: tuple[str, ...] = ()
    small_talk: frozenset[str] = frozenset()  # categories whose answers do not tell which question was heard

    def dialogue(
        self, seed: int, index: int, split: Split | str = Split.TRAIN, *, fillers: bool = True, practice: float = 0.0
    ) -> Dialogue:
        """The ``index``-th dialogue of a seed.

        fillers: whether "please" and "well" may stand around the question, where the set has such.
        practice: the fraction of training's dialogues in wordings that only training has, where the set has such.
        """
        raise NotImplementedError

    def distinct(self, seed: int, count: int, split: Split | str) -> Iterator[Dialogue]:
        """The first ``count`` dialogues of a seed whose questions differ. Raises DuologueError for too few."""
        seen: set[str] = set()
        for index in range(1_000 * count):
            dialogue = self.dialogue(seed, index, split)
            asked = f"{dialogue.before} {dialogue.question}"
            if asked not in seen:
                seen.add(asked)
                yield dialogue
                if len(seen) == count:
                    return
        raise DuologueError(
            f"{self.name} has only {len(seen)} questions for {split}: fewer than {count} were asked for"
        )

    def written(self, split: Split | str | None = None) -> list[Dialogue] | None:
        """All dialogues in a split (None: in any), in their order; None: the set makes them, without end."""
        return None

    def kinds(self, split: Split, practice: float) -> dict[str, str]:
        """{kind: category} of what is drawn at all; {"": ""} where they are not told apart."""
        return {"": ""}

    def aside(self, seed: int, index: int, split: Split | str) -> tuple[str, str]:
        """The ``index``-th statement that needs no answer, and the turn state behind it: "noise"; or a command that is
        obeyed in silence, and "query"."""
        raise DuologueError(f"{self.name} has no statements that need no answer")

    def drill(self, index: int, rng: np.random.Generator, alone: float) -> str:
        """Words to practise; one by itself with probability ``alone``."""
        raise DuologueError(f"{self.name} has no drills: give drills=0")

    def pauses_in(self, question: str) -> list[int]:
        """After how many words one may pause, because what was said so far is no question yet."""
        return list(range(1, len(question.split())))

    def recall_questions(self, split: Split) -> tuple[str, ...]:
        """Ways to ask what was just said."""
        return ("what did you say",)

    def repeat_requests(self, split: Split) -> tuple[str, ...]:
        """Ways to ask somebody to say something, with {w} in its place."""
        return ("say {w}",)

    def behind_another_turn(
        self, template: str, question: str, rng: np.random.Generator
    ) -> tuple[tuple[str, str], str] | None:
        """Another turn that a follow-up may go on from, and the answer to it then; None: there is none."""
        return None

    def token_ids(self) -> dict[str, int]:
        """{token: id} of a word-level vocabulary with markers (<bos>, <user>, <speech>, …), where the set has one."""
        raise DuologueError(f"{self.name} has no vocabulary of its own: give llm=, whose tokenizer is then used")

    def save_tokenizer(self, folder: str | Path) -> Path:
        """Write that vocabulary as tokenizer.json; returns its path."""
        raise DuologueError(f"{self.name} has no vocabulary of its own")


class WrittenQuestions(QuestionSet):
    """Those of a file of conversations, as words that can be said: each turn behind the one before it, in a split that
    its words decide. What cannot be said is left out (see text/plain_text.py).

    Raises DuologueError for a file that cannot be read, or in which nothing is answered.
    """

    def __init__(self, file: str) -> None:
        self.name = file
        self._rows: dict[Split, list[Dialogue]] = {split: [] for split in Split}
        self._all: list[tuple[Split, Dialogue]] = []
        for conversation in read_instructions(file):
            before = None
            for turn in conversation.turns:
                try:
                    asked, answer = (plain(text or "") for text in (turn.text, turn.reply))
                    slot = plain(turn.slot) if turn.slot else ""
                except DuologueError:
                    break  # nor can what goes on from it be asked
                row = Dialogue(category="", kind="", template="", question=asked, answer=answer, slot=slot,
                               operands="", before=before)  # fmt: skip
                self._all.append((operand_split(asked), row))
                self._rows[operand_split(asked)].append(row)
                before = asked, answer
        if not any(self._rows.values()):
            raise DuologueError(f"{file} has no question with an answer that can be said")

    def dialogue(
        self, seed: int, index: int, split: Split | str = Split.TRAIN, *, fillers: bool = True, practice: float = 0.0
    ) -> Dialogue:
        rows = self._rows[Split(split)]
        if not rows:
            raise DuologueError(f"{self.name} is too small: none of its questions is in the split {split}")
        return rows[int(np.random.default_rng([seed, index]).integers(len(rows)))]

    def written(self, split: Split | str | None = None) -> list[Dialogue]:
        return [dialogue for where, dialogue in self._all if split is None or where is Split(split)]


@functools.cache
def question_set(name: str) -> QuestionSet:
    """The set of that name, or of that file. Raises DuologueError where there is none."""
    module = f"{__package__.rpartition('.')[0]}.{name}.question_set"
    if name.isidentifier() and importlib.util.find_spec(module.rpartition(".")[0]):
        found: QuestionSet = importlib.import_module(module).QUESTIONS
        return found
    return WrittenQuestions(name)
