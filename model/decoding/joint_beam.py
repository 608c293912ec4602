"""Joint beam search: what a language model writes down of speech, with and without a context.

    two states of one model that have heard the same, one of which was told the context -> the tokens of the transcript

A context (names that may be said, what was said before) helps a model to write rare words, and misleads it into writing
words that nobody said. So every text is scored twice, and the context decides only among tokens that the speech alone
makes likely: those within a margin of the likeliest one without the context.

    score(y) = (log P(y | x) + α log P(y | x, c)) / (1 + α)

Source: Seed-ASR (arXiv 2407.04675), section 3, joint beam search.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from ..dialogue_model import DialogueModel
from ..dialogue_state import DialogueState, Sampling
from ..errors import DuologueError
from ..tokens import TokenKind

_PLAIN = Sampling()


@dataclass(frozen=True, kw_only=True)
class JointConfig:
    """How a context counts."""

    width: int = 4  # texts that are followed
    alpha: float = 1.0  # of the log-probability with the context; 0: there is none
    margin: float = 5.0  # nats below the likeliest token without the context: those below are not tried; inf: all are

    def __post_init__(self) -> None:
        if self.width < 1:
            raise DuologueError(f"a joint beam's width is {self.width}; it must be at least 1")
        if not self.alpha >= 0 or np.isinf(self.alpha):
            raise DuologueError(f"a joint beam's alpha is {self.alpha}; it must be at least 0 and finite")
        if not self.margin > 0:
            raise DuologueError(f"a joint beam's margin is {self.margin}; it must be above 0")


@dataclass(frozen=True)
class Joint:
    """A transcript, without the token that ends it. score: as above. free: log P(y | x)."""

    tokens: tuple[int, ...]
    score: float
    free: float


@dataclass
class _Text:
    score: float
    free: float
    tokens: tuple[int, ...]
    states: tuple[DialogueState, DialogueState]


@torch.inference_mode()
def joint_search(
    model: DialogueModel, free: DialogueState, given: DialogueState, config: JointConfig, max_tokens: int
) -> list[Joint]:
    """The best transcripts that end within ``max_tokens`` tokens, the best first; if none does, those under way.

    Args:
        free, given: behind the same speech, ready to reply; ``given`` was told the context. They stay as they are.
    """
    live, done = [_Text(0.0, 0.0, (), (free, given))], list[_Text]()
    before = live
    for _ in range(max_tokens + 1):
        grown = sorted((one for text in live for one in _grown(model, text, config)), key=lambda one: -one[0])
        live, before = [], live
        for score, alone, token, text in grown[: config.width]:
            states = text.states[0].clone(), text.states[1].clone()
            steps = [model.reply_step(state, _PLAIN, aloud=False, forced=token) for state in states]
            if steps[0].kind is TokenKind.END:
                done.append(_Text(score, alone, text.tokens, states))
            elif len(text.tokens) < max_tokens:
                live.append(_Text(score, alone, (*text.tokens, token), states))
        done = sorted(done, key=lambda text: -text.score)[: config.width]
        if not live or (len(done) == config.width and done[-1].score >= max(text.score for text in live)):
            break  # scores only fall: no text under way can still be among the best
    best = sorted(done or before, key=lambda text: -text.score)
    return [Joint(tokens=text.tokens, score=text.score, free=text.free) for text in best]


def _grown(model: DialogueModel, text: _Text, config: JointConfig) -> list[tuple[float, float, int, _Text]]:
    """How a text may go on, the best ``width`` ways: score, log P(y | x), token, text."""
    free, given = (model.next_logits(state).double().log_softmax(-1) for state in text.states)  # (V,)
    joint = (free + config.alpha * given) / (1 + config.alpha)
    joint = joint.masked_fill(free < free.max() - config.margin, -float("inf"))
    best = joint.topk(min(config.width, int((joint > -float("inf")).sum())))
    return [
        (text.score + score, text.free + float(free[token]), token, text)
        for score, token in zip(best.values.tolist(), best.indices.tolist(), strict=True)
    ]
