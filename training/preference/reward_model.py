"""A reward model: a language model whose state at the end of an answer is read by one linear layer, as a number.

It learns from pairs by Bradley and Terry's model: the better answer wins with probability sigmoid(r1 - r2). Only
differences are learnt, so rewards of different questions are comparable as far as the pairs make them so; ``center``
keeps their mean near 0.

Sources: Bradley and Terry (Biometrika, 1952); Ouyang et al. (arXiv 2203.02155), section 3.5; centred rewards:
Eisenstein et al. (arXiv 2312.09244), section 2.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...checkpoints.files import expanded
from ...checkpoints.parts import read_run, read_sizes
from ...data_prep.datasets.question_sets import history_of
from ...model.errors import DuologueError
from ...model.language_model.causal_lm import LLM
from ..data.chat_tokens import turn_tokens
from ..data.turns import HISTORY
from ..loop.parts import load_parts


def head(llm: LLM) -> nn.Linear:
    """Reads a state of the language model as a reward; at first each is 0."""
    layer = nn.Linear(llm.hidden_size, 1)
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer


def rewards_of(hidden: Tensor, segments: Tensor, layer: nn.Linear) -> Tensor:
    """(S,) of each of S packed rows, from states (B, L, D) and segments (B, L), -1 for padding: at a row's last
    position."""
    behind = torch.full_like(segments[:, :1], -1)
    last = (segments != torch.cat([segments[:, 1:], behind], dim=1)) & (segments >= 0)
    found: Tensor = layer(hidden[last])[:, 0].float()
    return found


def bradley_terry(rewards: Tensor, center: float = 0.0) -> Tensor:
    """The negative log-likelihood of preferences, rewards (P, 2), the better answer's first -> (P,), nats.

    center: of the square of the sum of both.
    """
    return -F.logsigmoid(rewards[:, 0] - rewards[:, 1]) + center * rewards.sum(1) ** 2


def load_reward(name: str) -> Callable[[Mapping[str, Any]], float]:
    """The reward of a turn (text, answer, and where there are some history, system, instruction), by a run of recipe
    ``reward``.

    Raises:
        DuologueError: it is no such run, or its tensors do not fit.
    """
    run = read_run(name)
    if run.get("stage") != "reward":
        raise DuologueError(f"reward_model={name} is no run of recipe reward: train one from pairs of answers")
    tokens = turn_tokens(run.get("tokenizer"), run.get("questions"))
    llm = LLM(read_sizes(name, "llm")["llm"])
    layer = head(llm)
    load_parts({"llm": llm, "reward": layer}, [f"{part}={expanded(name)}" for part in ("llm", "reward")])
    llm.eval()

    @torch.inference_mode()
    def reward(turn: Mapping[str, Any]) -> float:
        row = tokens.row(turn.get("system"))
        for question, answer in history_of(turn)[-HISTORY:]:
            row.add_turn(question, answer)
        row.add_turn(turn["text"], turn["answer"], instruction=turn.get("instruction"))
        return float(layer(llm.states(llm.embed(torch.tensor([row.ids])))[0, -1]))

    return reward
