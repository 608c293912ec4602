"""Question sets: written questions and their answers, reached by name, so that stages and suites can take any of them.

    question_set("nano").dialogue(0, 7, Split.TEST)     of a bundled one: data_prep/NAME/question_set.py
    question_set("mine.jsonl")                          of a file of conversations (see conversations.py)
"""

from __future__ import annotations

import functools
import importlib.util
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ...model.errors import DuologueError
from ..text.plain_text import words_or_text
from .conversations import WrittenTurn, read_conversations
from .splits import Split, operand_split

Exchange = tuple[str, str]  # a question and its answer


@dataclass(frozen=True, kw_only=True)
class Dialogue:
    """A question and its answer, as they are written.

    category, kind: what it is about, widely and narrowly; "" where the set does not say
    template: the id of the wording: kind and eight hex digits
    slot: the words that a right reply contains, one after the other; "" where any answer may be right
    operands: the kind and what was asked about, "plus 35 47"
    history: question and answer of each turn before it, oldest first
    system: the system prompt of its conversation; None: none
    """

    category: str
    kind: str
    template: str
    question: str
    answer: str
    slot: str
    operands: str
    history: tuple[Exchange, ...] = ()
    system: str | None = None

    @property
    def before(self) -> Exchange | None:
        """Question and answer of the turn that it goes on from; None: of none."""
        return self.history[-1] if self.history else None

    def fields(self) -> dict[str, Any]:
        """Those of a clip that says it: all but a slot, a history or a system prompt that is not there."""
        return {key: value for key, value in asdict(self).items() if value or key not in ("slot", "history", "system")}


def history_of(meta: Mapping[str, Any]) -> list[Exchange]:
    """(question, answer) of each turn before a clip's, oldest first. Sets of before have the last one alone."""
    if "history" in meta:
        return [(question, answer) for question, answer in meta["history"] or ()]
    before = meta.get("before")
    return [(before[0], before[1])] if before else []


def before_of(meta: Mapping[str, Any]) -> Exchange | None:
    """(question, answer) of the turn that a clip goes on from; None: of none."""
    history = history_of(meta)
    return history[-1] if history else None


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
            asked = f"{dialogue.history} {dialogue.question}"
            if asked not in seen:
                seen.add(asked)
                yield dialogue
                if len(seen) == count:
                    return
        raise DuologueError(
            f"{self.name} has only {len(seen)} questions for {split}: fewer than {count} were asked for"
        )

    def written(self, split: Split | str | None = None, *, answered: bool = True) -> list[Dialogue] | None:
        """All dialogues in a split (None: in any), in their order; None: the set makes them, without end.

        answered: otherwise also those without an answer, which is "" then.
        """
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
    """Those of a file or a folder of conversations, as they are written: each turn behind those before it, in a split
    that its words decide. What is to be answered and is not, or is not in writing, ends its conversation; a question
    without an answer is asked by whoever wants such.

    Raises DuologueError for a file that cannot be read, or that has nothing of use.
    """

    def __init__(self, file: str) -> None:
        self.name = file
        self._rows: dict[Split, list[Dialogue]] = {split: [] for split in Split}
        self._all: list[tuple[Split, Dialogue]] = []  # in their order, those without an answer too
        self._statements: dict[Split, list[str]] = {split: [] for split in Split}
        for conversation in read_conversations(file):
            history: tuple[Exchange, ...] = ()
            for turn in conversation.turns:
                if not turn.respond:
                    if turn.text:
                        self._statements[statement_split(turn.text)].append(turn.text)
                    continue
                row = _dialogue(turn, history, conversation.system)
                if row is None:
                    break
                split = operand_split(words_or_text(row.question))
                self._all.append((split, row))
                if not row.answer:
                    break
                self._rows[split].append(row)
                history = (*history, (row.question, row.answer))
        if not any((self._all, *self._statements.values())):
            raise DuologueError(f"{file} has no question in writing, and nothing else to say")

    def dialogue(
        self, seed: int, index: int, split: Split | str = Split.TRAIN, *, fillers: bool = True, practice: float = 0.0
    ) -> Dialogue:
        rows = self._rows[Split(split)]
        if not any(self._rows.values()):
            raise DuologueError(f"{self.name} has no question with an answer in writing")
        if not rows:
            raise DuologueError(f"{self.name} is too small: none of its questions is in the split {split}")
        return rows[int(np.random.default_rng([seed, index]).integers(len(rows)))]

    def written(self, split: Split | str | None = None, *, answered: bool = True) -> list[Dialogue]:
        wanted = set(Split) if split is None else {Split(split)}
        return [row for where, row in self._all if where in wanted and (row.answer or not answered)]

    def aside(self, seed: int, index: int, split: Split | str) -> tuple[str, str]:
        if not any(self._statements.values()):
            raise DuologueError(f"{self.name} has no statements that need no answer: turns with respond false")
        return one_statement(self._statements[Split(split)], seed, index, f"{self.name}, split {split},"), "noise"


def _dialogue(turn: WrittenTurn, history: tuple[Exchange, ...], system: str | None) -> Dialogue | None:
    """A turn as a question in writing with its answer, "" where it has none; None: it is none."""
    if not turn.text or turn.instruction:
        return None
    return Dialogue(
        category="", kind="", template="", question=turn.text, answer=turn.reply or "", slot=turn.slot or "",
        operands="", history=history, system=system,
    )  # fmt: skip


def statement_split(text: str) -> Split:
    """One statement in five belongs to the test and one in twenty to development, by its words."""
    return operand_split(f"aside {words_or_text(text)}")


def one_statement(statements: list[str], seed: int, index: int, where: str) -> str:
    """The ``index``-th draw of a seed. Raises DuologueError, which begins with ``where``, where there is none."""
    if not statements:
        raise DuologueError(f"{where} is too small: it has no statement that needs no answer")
    return statements[int(np.random.default_rng([seed, index, 11]).integers(len(statements)))]


def bundled_set(name: str) -> QuestionSet | None:
    """The bundled set of that name, data_prep/NAME/question_set.py; None: there is none."""
    module = f"{__package__.rpartition('.')[0]}.{name}.question_set"
    if not name.isidentifier() or not importlib.util.find_spec(module.rpartition(".")[0]):
        return None
    found: QuestionSet = importlib.import_module(module).QUESTIONS
    return found


@functools.cache
def question_set(name: str) -> QuestionSet:
    """The set of that name, or of that file. Raises DuologueError where there is none."""
    return bundled_set(name) or WrittenQuestions(name)
