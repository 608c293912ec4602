"""Teach the LLM a question set's dialogues as text, made on the fly. Learns the LLM; cross-entropy.

Several turns follow each other in a row, so that hardly any of a batch is padding and a later turn is nothing new. The
words of the question count a little: they give the model what a transcript may look like.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ...data_prep.datasets.question_sets import Dialogue, QuestionSet, question_set
from ...data_prep.datasets.splits import Split
from ...data_prep.text.spoken import contains_slot
from ...model.language_model.causal_lm import LLM
from ..data.turns import (
    Row,
    check_categories,
    continue_greedily,
    marked_tokens,
    stack,
    train_plainly,
    weighted_loss,
)
from ..loop.task import Batch, Task
from ..loop.throughput import StepCost, token_load
from ..presets import preset
from ..recipe import Recipe


@dataclass(frozen=True, kw_only=True)
class TextSftRecipe(Recipe):
    """Sizes of the LLM and of a row."""

    llm: dict[str, Any]
    questions: str = "nano"  # a question set by name: what is asked, and the words that it is written in
    row_tokens: int = 128
    question_weight: float = 0.2
    practice: float = 0.25  # of the questions, the fraction in wordings for practice, which training alone has
    favour: tuple[str, ...] = ()  # categories that every other question is of; none: all alike
    dialogues: int | None = None  # draw from this many only (to overfit in a test); None: without end

    def __post_init__(self) -> None:
        super().__post_init__()
        check_categories("favour", self.favour, self.questions)
        self.check_fractions("practice")
        self.check_least(1, "row_tokens", *(["dialogues"] if self.dialogues is not None else []))

    def build(self) -> TextSft:
        """The task of this recipe."""
        return TextSft(self)


def recipe(name: str = "nano") -> TextSftRecipe:
    """The stage's recipe, by the name of a preset."""
    return TextSftRecipe(stage="text_sft", out="runs/text_sft", **preset(name, "text_sft"))


class TextSft(Task):
    """The LLM and its rows of dialogue."""

    def __init__(self, recipe: TextSftRecipe) -> None:
        super().__init__()
        torch.manual_seed(recipe.seed)
        self.recipe = recipe
        self.questions, self.tokens = question_set(recipe.questions), marked_tokens(recipe.questions)
        self.llm = train_plainly(LLM(recipe.llm))

    def parts(self) -> dict[str, nn.Module]:
        return {"llm": self.llm}

    def load_of(self, batch: Batch) -> StepCost:
        return token_load(batch["mask"])

    def batch(self, number: int) -> Batch:
        r = self.recipe
        rows = []
        for place in range(r.batch_size):
            row = Row(self.tokens)
            # A row is keyed by its number; the turns in it follow on from that.
            first = (number * r.batch_size + place) * 64
            for turn in range(64):
                at = first + turn if r.dialogues is None else (place + turn) % r.dialogues
                dialogue = self._drawn(at, favoured=turn % 2 == 1)
                longer = Row(self.tokens, list(row.ids), list(row.weights))
                rng = np.random.default_rng((r.seed, at, turn))
                longer.add_dialogue(dialogue, r.question_weight, rng, self.questions)
                if row.ids and len(longer.ids) > r.row_tokens:
                    break
                row = longer
            rows.append(row)
        return dict(stack(rows))

    def _drawn(self, number: int, favoured: bool) -> Dialogue:
        """The dialogue of a number; if it has to be of a favoured category, the first such one after it."""
        r = self.recipe
        dialogues = (self.questions.dialogue(r.seed, at, practice=r.practice) for at in itertools.count(number))
        return next(d for d in dialogues if not (favoured and r.favour) or d.category in r.favour)

    def forward(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        logits = self.llm(self.llm.embed(batch["ids"])).logits  # (B, L, V); padding is on the right: causal is enough
        return weighted_loss(logits, batch["ids"], batch["weights"]), {}

    def evaluate(self) -> dict[str, float]:
        """The fraction of answers that hold their slot, over dialogues of the development split; and of what was cut
        short, the fraction that is said again as far as it was heard, word for word."""
        dialogues = [self.questions.dialogue(1, i, Split.DEV) for i in range(192)]
        answers = self.answer(dialogues)
        right = [(d, contains_slot(a, d.slot)) for d, a in zip(dialogues, answers, strict=True)]
        cut = cut_short(self.questions)
        recalled = [(d, a == d.answer) for d, a in zip(cut, self.answer(cut), strict=True)]
        return {"right": _fraction(right), "recalled": _fraction(recalled)} | {
            f"right_{name}": _fraction([(d, ok) for d, ok in right if d.category == name])
            for name in sorted({str(d.category) for d in dialogues})
        }

    def answer(self, dialogues: list[Dialogue]) -> list[str]:
        """Greedy answers to written questions."""
        device = next(self.parameters()).device
        prompts = []
        for dialogue in dialogues:
            row = Row(self.tokens)
            if dialogue.before is not None:
                row.add_turn(*dialogue.before)
            row.add_turn(dialogue.question, "")
            prompts.append(self.llm.embed(torch.tensor(row.ids[:-1], device=device)))  # but for the end
        return [
            self.tokens.decode(ids)
            for i in range(0, len(prompts), 64)
            for ids in continue_greedily(self.llm, prompts[i : i + 64], self.tokens.eos, 32)
        ]


def cut_short(questions: QuestionSet, count: int = 64) -> list[Dialogue]:
    """The question what was said, of the development split, behind answers of which only some words were heard."""
    dialogues = (questions.dialogue(1, index, Split.DEV) for index in range(500 * count))
    again = (d for d in dialogues if d.before is not None and d.answer == d.before[1])
    found = []
    for number, dialogue in enumerate(itertools.islice(again, count)):
        assert dialogue.before is not None
        words = dialogue.answer.split()
        heard = " ".join(words[: 1 + number % len(words)])
        found.append(replace(dialogue, history=((dialogue.before[0], heard),), answer=heard))
    return found


def _fraction(rows: list[tuple[Dialogue, bool]]) -> float:
    return sum(ok for _, ok in rows) / max(1, len(rows))
