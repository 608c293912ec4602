"""Tell a better answer from a worse one: a reward model from pairs of them. Learns the LLM and a linear layer on it.

The pairs are those of ``dpo``: turns in writing with a ``reply`` and answers that were ``rejected``. What comes of it
answers nothing, but rates answers: ``duologue feedback rounds reward=model reward_model=RUN``.

Sources: see training/preference/reward_model.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from zlib import crc32

import numpy as np
import torch
from torch import Tensor, nn

from ...model.errors import DuologueError
from ...model.language_model.causal_lm import LLM
from ..data.chat_tokens import turn_tokens
from ..data.corpus import Plan
from ..data.turns import TurnsRecipe, train_plainly
from ..loop.lora import LoraTask, merged
from ..loop.task import Batch
from ..loop.throughput import StepCost, token_load
from ..loop.trainer import to_device
from ..preference.pairs import are_written, pack_pairs, pair_of, read_turns
from ..preference.reward_model import bradley_terry, head, rewards_of
from ..presets import preset


@dataclass(frozen=True, kw_only=True)
class RewardRecipe(TurnsRecipe):
    """Pairs, and sizes of a row; a batch has ``batch_size`` pairs."""

    data: tuple[str, ...]
    held_out: float = 0.1  # fraction of the conversations, on whose pairs the stage is measured
    center: float = 0.01  # of the square of both rewards' sum: keeps their mean near 0
    longest: int = 1024  # positions of an answer and what stands before it
    row_tokens: int = 256  # answers are packed into rows of so many positions
    lora: int = 0  # rank of the LLM's low-rank updates, which learn in its weights' place; 0: the weights themselves

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check_fractions("held_out")
        self.check_least(1, "row_tokens", "longest")

    @property
    def joins(self) -> tuple[str, ...]:
        return ("llm",)

    def build(self) -> RewardTask:
        """The task of this recipe."""
        return RewardTask(self)


def recipe(name: str = "nano") -> RewardRecipe:
    """The stage's recipe, by the name of a preset."""
    return RewardRecipe(stage="reward", out="runs/reward", **preset(name, "reward"))


class RewardTask(LoraTask):
    """The LLM, its linear layer, and pairs in writing."""

    def __init__(self, recipe: RewardRecipe) -> None:
        super().__init__()
        torch.manual_seed(recipe.seed)
        self.recipe = recipe
        self.tokens = turn_tokens(recipe.tokenizer, recipe.questions)
        self.llm = train_plainly(LLM(recipe.llm))
        self.reward = head(self.llm)
        if not are_written(recipe.data):
            raise DuologueError(f"data={','.join(recipe.data)}: recipe reward reads pairs in files of conversations")
        self.longest = min(recipe.longest, self.llm.context or recipe.longest)
        self.turns = read_turns(recipe.data)
        pairs = [(at, answer) for at, turn in enumerate(self.turns) for answer in turn["rejected"]]
        held = [self._is_held_out(at) for at, _ in pairs]
        self.held_out = [pair for pair, out in zip(pairs, held, strict=True) if out]
        self.learnt = [pair for pair, out in zip(pairs, held, strict=True) if not out]
        if not self.learnt:
            raise DuologueError(f"all pairs of {', '.join(recipe.data)} are held out: give held_out=0, or more pairs")
        lengths = np.array([sum(map(len, (self.turns[at]["text"], answer))) for at, answer in self.learnt])
        self.plan = Plan(lengths, recipe.batch_size, recipe.seed, recipe.accumulate)

    def _is_held_out(self, turn: int) -> bool:
        """All pairs of a conversation are, or none; the same each time, wherever its file lies."""
        name = str(self.turns[turn]["conversation"]).rpartition("/")[2]
        return crc32(name.encode()) / 2**32 < self.recipe.held_out

    def parts(self) -> dict[str, nn.Module]:
        return {"llm": merged(self.llm), "reward": self.reward}

    @property
    def lora(self) -> int:
        return self.recipe.lora

    def load_of(self, batch: Batch) -> StepCost:
        return token_load(batch["mask"])

    def batch(self, number: int) -> Batch:
        return self.rows([self.learnt[int(at)] for at in self.plan(number)[1]])

    def rows(self, pairs: list[tuple[int, str]]) -> Batch:
        """The rows of pairs (turn, rejected answer)."""
        made = [pair_of(self.tokens, self.turns[at], answer, longest=self.longest) for at, answer in pairs]
        return dict(pack_pairs(made, self.recipe.row_tokens)[0])

    def rated(self, batch: Batch) -> Tensor:
        """Rewards (P, 2) of the better and the worse answer of each pair."""
        hidden = self.llm.states(self.llm.embed(batch["ids"]), segments=batch["segments"])
        return rewards_of(hidden, batch["segments"], self.reward)[batch["pairs"]]

    def forward(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        rewards = self.rated(batch)
        right = (rewards[:, 0] > rewards[:, 1]).float().mean()
        return bradley_terry(rewards, self.recipe.center).mean(), {"told_apart": right}

    @torch.no_grad()
    def evaluate(self) -> dict[str, float]:
        """Of the held-out pairs: in how many the better answer has the higher reward, and the loss."""
        device, found = next(self.parameters()).device, list[Tensor]()
        for at in range(0, len(self.held_out), self.recipe.batch_size):
            found.append(self.rated(to_device(self.rows(self.held_out[at : at + self.recipe.batch_size]), device)))
        if not found:
            return {}
        rewards = torch.cat(found)
        right = (rewards[:, 0] > rewards[:, 1]).float().mean()
        return {"held_out_told_apart": float(right), "held_out_loss": float(bradley_terry(rewards).mean())}
