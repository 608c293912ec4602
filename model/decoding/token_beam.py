"""Beam search over the transcripts that a language model writes: all texts grow by a token at a time.

Each text that is followed is a state of the model by itself; states share the cache of what they have in common, so
that one more costs only what it adds. Scores are sums of log-probabilities of the model's own distribution (joint with
CTC's, where it has one); what else is known of texts is fused as in a search of posteriors (:mod:`.beam`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Generic, Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor

from .beam import NEVER, BeamConfig, Found, Texts
from .fusions import Fusion


class Writing(Protocol):
    """A state of a model that writes."""

    def clone(self) -> Writing: ...


S = TypeVar("S", bound=Writing)


class TokenBeam(Generic[S]):
    """Searches what a model writes.

    Args:
        next_logits: a state -> logits (vocabulary,) of the next token. push: a state, a token -> it is written; false:
            the text has ended with it.
        text: the first token of words, and the one behind the last: labels are counted from the first.
        ends: tokens that end a text.
    """

    def __init__(
        self,
        next_logits: Callable[[S], Tensor],
        push: Callable[[S, int], bool],
        text: tuple[int, int],
        ends: Sequence[int],
    ) -> None:
        self.next_logits, self.push = next_logits, push
        self.first, self.behind = text
        self.ends = list(ends)

    def search(self, state: S, config: BeamConfig, fusions: Sequence[Fusion], most: int) -> list[Found]:
        """The likeliest texts of at most so many tokens behind a state, which stays as it is; the best first.

        ``ctc`` of what is found is the model's own log-probability.
        """
        texts, live, scores = Texts(fusions), [state], np.zeros(1)
        done: list[Found] = []
        slack = config.margin if len(fusions) or config.bonus else 0.0  # what is fused may still raise a score
        for written in range(most + 1):
            logits = torch.stack([self.next_logits(each).double().log_softmax(-1).cpu() for each in live])
            log_probs = logits.numpy()  # (W, vocabulary)
            words = log_probs[:, self.first : self.behind]
            labels = _likely(words, config)
            grow = scores[:, None] + words[:, labels]
            if written == most:
                grow = np.full_like(grow, NEVER)
            ending, fused = scores + log_probs[:, self.ends].max(1), texts.finished()
            before = [texts.labels(at) for at in range(len(live))]
            # a text that ends takes a place in the beam, so that what is short is not found for being short
            ended, row, column = texts.choose(ending + fused - texts.extra, grow, labels, config)
            done += [Found(labels=before[at], score=float(ending[at] + fused[at]), ctc=float(ending[at]))
                     for at in ended.tolist()]  # fmt: skip
            done = sorted(done, key=lambda each: -each.score)[: config.width]
            total = grow[row, column] + texts.extra[len(ended) :]
            best = max(total.max(initial=NEVER), done[0].score if done else NEVER)
            near = np.flatnonzero(total >= best - config.near)
            texts.only(len(ended) + near)
            row, column = row[near], column[near]
            scores, live = grow[row, column], [live[at].clone() for at in row.tolist()]
            if not live or (done and done[0].score >= float((scores + texts.extra).max()) + slack):
                break
            open_ = [self.push(each, self.first + int(label)) for each, label in zip(live, texts.last, strict=True)]
            scores = np.where(open_, scores, NEVER)
            if not any(open_):
                break
        return done


def _likely(log_probs: np.ndarray, config: BeamConfig) -> np.ndarray:
    """The labels (K,) that any of W texts may grow by, of log-probabilities (W, V)."""
    count = min(config.labels, log_probs.shape[1])
    best = np.argpartition(-log_probs, count - 1, axis=1)[:, :count]
    near = np.take_along_axis(log_probs, best, 1) >= log_probs.max(1, keepdims=True) - config.margin
    return np.unique(best[near])
