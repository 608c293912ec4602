"""nano's grammar as a set of questions: what ``question_set("nano")`` gives."""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np

from ..datasets.question_sets import Dialogue, QuestionSet
from ..datasets.splits import Split
from . import asides, dialogues, sentences, vocabulary
from .domain import KIND_OF, PRACTICE, Category


class NanoQuestions(QuestionSet):
    """See :class:`QuestionSet`."""

    name = "nano"
    categories = tuple(Category)
    small_talk = frozenset({Category.SMALL_TALK, Category.OUTSIDE})

    def dialogue(
        self, seed: int, index: int, split: Split | str = Split.TRAIN, *, fillers: bool = True, practice: float = 0.0
    ) -> Dialogue:
        return dialogues.generate(seed, index, split, fillers=fillers, practice=practice)

    @functools.cache  # noqa: B019 (there is one of it)
    def kinds(self, split: Split, practice: float) -> dict[str, str]:
        found = {name: kind.category for name, kind in KIND_OF.items() if dialogues.templates_of(name, split)}
        if practice in (0, 1):  # of what is never drawn one would be sought for ever
            found = {name: found[name] for name in found if (KIND_OF[name] in PRACTICE) == bool(practice)}
        return dict(found)

    def aside(self, seed: int, index: int, split: Split | str) -> tuple[str, str]:
        return asides.aside(seed, index, split)

    def drill(self, index: int, rng: np.random.Generator, alone: float) -> str:
        return sentences.drill(vocabulary.words(), index, rng, alone)

    def pauses_in(self, question: str) -> list[int]:
        return dialogues.pauses_in(question)

    def recall_questions(self, split: Split) -> tuple[str, ...]:
        return dialogues.templates_of("follow_again", split)

    def repeat_requests(self, split: Split) -> tuple[str, ...]:
        return dialogues.templates_of("repeat", split)

    def behind_another_turn(
        self, template: str, question: str, rng: np.random.Generator
    ) -> tuple[tuple[str, str], str] | None:
        return dialogues.behind_another_turn(template, question, rng)

    def token_ids(self) -> dict[str, int]:
        return vocabulary.token_ids()

    def save_tokenizer(self, folder: str | Path) -> Path:
        return vocabulary.save_tokenizer(folder)


QUESTIONS = NanoQuestions()
