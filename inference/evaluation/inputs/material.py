"""What is said in scenes: the questions of any question set, and statements that need no answer.

A scene wants more of a question than that it is one: a pause inside, or an answer that takes long enough to be talked
over. Where a set has no such question, the one that comes nearest is asked, and a note says so.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ....checkpoints.files import lines, read_text
from ....data_prep.datasets.question_sets import Dialogue, QuestionSet, question_set
from ....data_prep.datasets.splits import Split
from ....model.errors import DuologueError
from ..metrics.words import separate

LONG = 6  # words of an answer that can be talked over
LEAST = 5  # words of a question with a pause inside
STATEMENTS = (
    "i will be home at seven", "we had fish and bread for dinner", "my sister is at school today",
    "the train was very late again", "put it on the table over there", "he said that she was not there",
    "they went to the sea last summer", "that was the best game of the year", "she has a new red car",
    "the children are in the garden",
)  # fmt: skip
_ATTEMPTS = 10_000
_NEAR = 0.75  # of the longest: questions and answers that are as good


@dataclass(frozen=True)
class Asked:
    """A question for a scene. note: what the scene wanted and the set does not have; "": it has it.

    cut: the number of characters behind which it pauses; 0: it does not.
    """

    dialogue: Dialogue
    note: str = ""
    cut: int = 0


class Material:
    """The questions of a set, by its name or file, and what is said beside them.

    statements: a file, one statement a line; None: the set's own turns that need no answer, if it is a file with such,
        else STATEMENTS, which are English.

    Raises:
        DuologueError: no such set or file, or nothing in it.
    """

    def __init__(self, data: str | Path, statements: Path | None = None) -> None:
        self.questions: QuestionSet = question_set(str(data))
        written = self.questions.written(answered=False)
        # A follow-up is no question by itself.
        self._written = None if written is None else [one for one in written if one.before is None]
        if self._written is not None and not self._written:
            raise DuologueError(f"{self.questions.name} has no question that stands by itself")
        self._statements: tuple[str, ...] | None = None
        if statements is not None:
            self._statements = tuple(line.strip() for line in lines(read_text(statements)) if line.strip())
            if not self._statements:
                raise DuologueError(f"{statements} is empty: expected statements that need no answer, one a line")
        elif written is None or (asides := self._where_asides()) is None:
            self._statements = STATEMENTS
        else:
            self._asides = asides

    def statement(self, seed: int, index: int, rng: np.random.Generator) -> str:
        """One that needs no answer."""
        if self._statements is not None:
            return str(rng.choice(self._statements))
        return self.questions.aside(seed, index, self._asides)[0]

    def recall_question(self, rng: np.random.Generator) -> str:
        """A way to ask what was just said."""
        return str(rng.choice(self.questions.recall_questions(Split.TEST)))

    def question(self, seed: int, key: int, long: bool = False) -> Asked:
        """The question of a seed and a number. long: one whose answer takes long to say."""
        if self._written is None:
            return Asked(self._drawn(seed, key, long=long))
        fitting = [one for one in self._written if not long or _count(one.answer) >= LONG]
        if fitting:
            return Asked(_one_of(fitting, seed, key))
        most = max(_count(one.answer) for one in self._written)
        near = [one for one in self._written if _count(one.answer) >= _NEAR * most]
        return Asked(_one_of(near, seed, key), f"no answer has {LONG} words to be talked over: the longest has {most}")

    def question_with_pause(self, seed: int, key: int, rng: np.random.Generator) -> Asked:
        """A question, and where one may pause in it: at a place at which it is no question yet, if the set knows."""
        if self._written is None:
            return self._paused(self._drawn(seed, key, least=LEAST), rng)
        fitting = [one for one in self._written if len(one.question.split()) >= LEAST and self._pauses(one.question)]
        if fitting:
            return self._paused(_one_of(fitting, seed, key), rng)
        most = max(len(one.question) for one in self._written)
        dialogue = _one_of([one for one in self._written if len(one.question) >= _NEAR * most], seed, key)
        words = dialogue.question.split()
        if len(words) > 1:
            cut = _behind_word(dialogue.question, len(words) // 2)
        else:  # a language without spaces between words, or a single word
            cut = len(dialogue.question) // 2
        return Asked(dialogue, f"no question has {LEAST} words with a pause between: the longest is cut in half", cut)

    def _paused(self, dialogue: Dialogue, rng: np.random.Generator) -> Asked:
        """With a pause at one of its places, drawn."""
        cut = int(rng.choice(self._pauses(dialogue.question)))
        return Asked(dialogue, "", _behind_word(dialogue.question, cut))

    def _drawn(self, seed: int, key: int, least: int = 0, long: bool = False) -> Dialogue:
        """A question that the set makes and that stands by itself; of at least so many words, with a pause inside."""
        questions = self.questions
        for attempt in range(_ATTEMPTS):
            dialogue = questions.dialogue(seed, key * _ATTEMPTS + attempt, Split.TEST, fillers=False)
            if dialogue.category in questions.small_talk or len(dialogue.question.split()) < least:
                continue
            if dialogue.before is not None or (least and not self._pauses(dialogue.question)):
                continue
            if not long or len(dialogue.answer.split()) >= LONG:
                return dialogue
        raise DuologueError(f"{questions.name} makes no question of {least} words or with an answer of {LONG}")

    def _pauses(self, question: str) -> list[int]:
        """Behind how many words the pause may be: two at least, and two at least to come."""
        return [cut for cut in self.questions.pauses_in(question) if 2 <= cut < len(question.split()) - 1]

    def _where_asides(self) -> Split | None:
        """A split in which the set has statements of its own."""
        for split in (Split.TEST, Split.DEV, Split.TRAIN):
            try:
                self.questions.aside(0, 0, split)
            except DuologueError:
                continue
            return split
        return None


def _count(text: str) -> int:
    """Words; of a language without spaces between them, characters."""
    return len(separate(text).split())


def _one_of(dialogues: list[Dialogue], seed: int, key: int) -> Dialogue:
    return dialogues[int(np.random.default_rng([seed, key]).integers(len(dialogues)))]


def _behind_word(text: str, words: int) -> int:
    """The characters of so many words of a text, with their spaces."""
    at = 0
    for word in text.split()[:words]:
        at = text.index(word, at) + len(word)
    return at
