"""Teach the LLM conversations in writing. Learns the LLM; cross-entropy.

With ``data=FILE[,FILE]`` somebody's own conversations (see data_prep/datasets/conversations.py), with system prompts
and all their turns, in the tokens and the chat template of ``llm=``: the answers are learnt, the rest is read.

Without, a question set's dialogues, made on the fly. Several turns follow each other in a row, so that hardly any of a
batch is padding and a later turn is nothing new. The words of the question count a little where the model writes
transcripts: they give it what one may look like.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn

from ...data_prep.datasets.question_sets import Dialogue, QuestionSet
from ...data_prep.datasets.splits import Split
from ...data_prep.text.spoken import contains_slot
from ...model.language_model.causal_lm import LLM
from ..data.chat_tokens import turn_tokens
from ..data.corpus import Plan
from ..data.turns import (
    Row,
    TurnsRecipe,
    check_categories,
    continue_greedily,
    pack,
    questions_of,
    stack,
    train_plainly,
    weighted_loss,
)
from ..data.written import WrittenDialogue, hold_out, read_dialogues
from ..loop.lora import LoraTask, merged
from ..loop.task import Batch
from ..loop.throughput import StepCost, token_load
from ..loop.trainer import to_device
from ..presets import preset
from ..recipe import CrossEntropyRecipe

MOST = 32  # tokens of an answer that is measured
HELD_OUT = 256  # conversations that are measured at most


@dataclass(frozen=True, kw_only=True)
class TextSftRecipe(TurnsRecipe, CrossEntropyRecipe):
    """Data and sizes of a row."""

    data: tuple[str, ...] = ()  # files of conversations; none: the question set's
    held_out: float = 0.02  # fraction of the conversations in the files, on which the stage is measured
    longest: int = 1024  # positions: a conversation of the files ends with the last turn that fits
    lora: int = 0  # rank of the LLM's low-rank updates, which learn in its weights' place; 0: the weights themselves
    row_tokens: int = 128
    question_weight: float = 0.2
    practice: float = 0.25  # of the questions, the fraction in wordings for practice, which training alone has
    favour: tuple[str, ...] = ()  # categories that every other question is of; none: all alike
    dialogues: int | None = None  # draw from this many only (to overfit in a test); None: without end

    def __post_init__(self) -> None:
        super().__post_init__()
        check_categories("favour", self.favour, self.questions)
        self.check_fractions("practice", "held_out")
        self.check_least(1, "row_tokens", "longest", *(["dialogues"] if self.dialogues is not None else []))

    @property
    def joins(self) -> tuple[str, ...]:
        return ("llm",)

    def build(self) -> TextSft:
        """The task of this recipe."""
        return ConversationSft(self) if self.data else QuestionSft(self)


def recipe(name: str = "nano") -> TextSftRecipe:
    """The stage's recipe, by the name of a preset."""
    return TextSftRecipe(stage="text_sft", out="runs/text_sft", **preset(name, "text_sft"))


class TextSft(LoraTask):
    """The LLM; where its rows come from is up to the kinds below."""

    def __init__(self, recipe: TextSftRecipe) -> None:
        super().__init__()
        torch.manual_seed(recipe.seed)
        self.recipe = recipe
        self.tokens = turn_tokens(recipe.tokenizer, recipe.questions)
        self.llm = train_plainly(LLM(recipe.llm))

    def parts(self) -> dict[str, nn.Module]:
        return {"llm": merged(self.llm)}

    @property
    def lora(self) -> int:
        return self.recipe.lora

    def load_of(self, batch: Batch) -> StepCost:
        return token_load(batch["mask"])

    def learn(self, batch: Batch) -> Tensor:
        """The loss of a batch; its rows are packed, or padded on the right: causal is enough then."""
        hidden = self.llm.states(self.llm.embed(batch["ids"]), segments=batch.get("segments"))
        mile = self.recipe.mile if self.training else 0.0
        return weighted_loss(self.llm, hidden, batch["ids"], batch["weights"], mile)

    def forward(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        return self.learn(batch), {}

    def generate(self, rows: Sequence[Row], most: int = MOST) -> list[str]:
        """Greedy answers in the place of each row's last."""
        device = next(self.parameters()).device
        prompts = [self.llm.embed(torch.tensor(row.ids[: row.said.start], device=device)) for row in rows]
        return [
            self.tokens.decode(ids)
            for i in range(0, len(prompts), 64)
            for ids in continue_greedily(self.llm, prompts[i : i + 64], self.tokens.eos, most)
        ]


class QuestionSft(TextSft):
    """Rows of a question set's dialogues."""

    def __init__(self, recipe: TextSftRecipe) -> None:
        super().__init__(recipe)
        self.questions = questions_of(recipe.questions)

    def batch(self, number: int) -> Batch:
        r = self.recipe
        rows = []
        for place in range(r.batch_size):
            row = self.tokens.row()
            # A row is keyed by its number; the turns in it follow on from that.
            first = (number * r.batch_size + place) * 64
            for turn in range(64):
                at = first + turn if r.dialogues is None else (place + turn) % r.dialogues
                dialogue = self._drawn(at, favoured=turn % 2 == 1)
                longer = row.copy()
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

    def evaluate(self) -> dict[str, float]:
        """The fraction of answers that hold their slot, over dialogues of the development split; and of what was cut
        short, the fraction that is said again as far as it was heard, word for word."""
        if self.questions.written(Split.DEV) == []:
            return {}  # a small set of somebody's own
        dialogues = [self.questions.dialogue(1, i, Split.DEV) for i in range(192)]
        answers = self.answer(dialogues)
        right = [(d, contains_slot(a, d.slot)) for d, a in zip(dialogues, answers, strict=True)]
        cut = cut_short(self.questions)
        recalled = [(d, a == d.answer) for d, a in zip(cut, self.answer(cut), strict=True)]
        metrics = {"right": _fraction(right)} | ({"recalled": _fraction(recalled)} if cut else {})
        return metrics | {
            f"right_{name}": _fraction([(d, ok) for d, ok in right if d.category == name])
            for name in sorted({str(d.category) for d in dialogues} - {""})
        }

    def answer(self, dialogues: list[Dialogue]) -> list[str]:
        """Greedy answers to written questions."""
        rows = []
        for dialogue in dialogues:
            row = self.tokens.row(dialogue.system)
            for earlier in dialogue.history:
                row.add_turn(*earlier)
            row.add_turn(dialogue.question, "")
            rows.append(row)
        return self.generate(rows)


class ConversationSft(TextSft):
    """Rows of the conversations in files, packed; a fraction of them is held out."""

    def __init__(self, recipe: TextSftRecipe) -> None:
        super().__init__(recipe)
        self.dialogues, self.held_out = hold_out(read_dialogues(recipe.data), recipe.held_out)
        self.longest = min(recipe.longest, self.llm.context or recipe.longest)
        lengths = np.array([dialogue.characters for dialogue in self.dialogues])
        self.plan = Plan(lengths, recipe.batch_size, recipe.seed, recipe.accumulate)

    def batch(self, number: int) -> Batch:
        return self.rows([self.dialogues[int(at)] for at in self.plan(number)[1]])

    def rows(self, dialogues: Sequence[WrittenDialogue]) -> Batch:
        """A batch of these conversations."""
        return pack([dialogue.row(self.tokens, self.longest) for dialogue in dialogues], self.recipe.row_tokens)[0]

    @torch.no_grad()
    def evaluate(self) -> dict[str, float]:
        """Of the conversations that are held out: the loss of an answer's token, and where turns say what a right
        answer contains, the fraction of right ones."""
        device, metrics = next(self.parameters()).device, dict[str, float]()
        dialogues, losses = self.held_out[:HELD_OUT], []
        for at in range(0, len(dialogues), 16):
            losses.append(float(self.learn(to_device(self.rows(dialogues[at : at + 16]), device))))
        if losses:
            metrics["held_out_loss"] = sum(losses) / len(losses)
        asked = [
            (dialogue.row(self.tokens, self.longest, turns=at + 1), turn.slot)
            for dialogue in dialogues
            for at, turn in enumerate(dialogue.turns)
            if turn.slot
        ]
        if asked:
            said = self.generate([row for row, _ in asked], most=128)
            right = [contains_slot(answer, slot) for answer, (_, slot) in zip(said, asked, strict=True) if slot]
            metrics["right"] = sum(right) / len(right)
        return metrics


@functools.cache
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
