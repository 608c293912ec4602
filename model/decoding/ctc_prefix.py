"""Joint decoding: the words that CTC finds in the speech keep a language model to what was said.

A language model that writes down what it heard can lose its place: it repeats itself, or skips what is hard. What the
same model predicts at each place of speech, trained by CTC, cannot, for CTC moves through the speech in order and must
account for all of it. :class:`CTCPrefix` gives the probability, under CTC, of each word that may come next and of
the end, which is mixed with the language model's own.

Sources: Watanabe et al., "Hybrid CTC/Attention Architecture for End-to-End Speech Recognition" (IEEE JSTSP 2017),
section IV-B; the prefix probability is Graves's (2012, section 7.5.3).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Tensor

from ..streaming import State

NEVER = float("-inf")
_FLOOR = -1e3  # no label is less likely than this in a frame, so that sums of logarithms stay numbers
_FAR = 40.0  # places that a word may begin at and that are so much less likely than the best (nats) are left out


@dataclass
class CTCPrefix(State):
    """The words written so far, and where in the speech they may have ended.

    labels: (T, V) log-probabilities of the labels at each place of speech; float64 on the CPU.
    blank_ends, word_ends: (T,), the log-probability of all alignments of the words so far to the places up to each
        one, by whether that place is a blank or the last word.
    total: log-probability that the words begin with these.
    """

    labels: Tensor
    blank: int
    blank_ends: Tensor
    word_ends: Tensor
    last: int | None = None
    total: float = 0.0

    @classmethod
    def begin(cls, logits: Tensor, blank: int) -> Self:
        """No word yet, of speech with these logits (T, V), T at least 1."""
        labels = logits.double().cpu().log_softmax(-1).clamp(min=_FLOOR)
        blank_ends = labels[:, blank].cumsum(0)
        return cls(labels=labels, blank=blank, blank_ends=blank_ends, word_ends=torch.full_like(blank_ends, NEVER))

    def clone(self) -> Self:
        """Both go on from the same tensors, which nobody writes into."""
        return replace(self)

    def next(self) -> tuple[Tensor, float]:
        """Log-probabilities of each word that may follow (V,), and that none does. The blank's stands for nothing."""
        after_blank, after_word = self._before()
        before = torch.logaddexp(after_blank, after_word)
        near = before > before.max() - _FAR
        words = (before[near, None] + self.labels[near]).logsumexp(0)  # (V,)
        if self.last is not None:  # the same word again: a blank must lie between
            words[self.last] = (after_blank + self.labels[:, self.last]).logsumexp(0)
        end = torch.logaddexp(self.blank_ends[-1], self.word_ends[-1])
        return words - self.total, float(end) - self.total

    def push(self, word: int) -> None:
        """Write a word. O(T)."""
        after_blank, after_word = self._before()
        label = self.labels[:, word]
        begins = label + (after_blank if word == self.last else torch.logaddexp(after_blank, after_word))
        self.last, self.total = word, float(begins.logsumexp(0))
        self.word_ends = _follow(begins, label)
        blank = self.labels[:, self.blank]
        self.blank_ends = _follow(_shift(self.word_ends, NEVER) + blank, blank)

    def _before(self) -> tuple[Tensor, Tensor]:
        """Of each place (T,): the words so far end before it, at a blank or at the last of them."""
        return _shift(self.blank_ends, 0.0 if self.last is None else NEVER), _shift(self.word_ends, NEVER)


def _shift(values: Tensor, first: float) -> Tensor:
    """(T,) one place later."""
    return torch.cat([values.new_tensor([first]), values[:-1]])


def _follow(begins: Tensor, label: Tensor) -> Tensor:
    """Runs of one label: log-probabilities (T,) that it begins at a place -> that it lasts until there."""
    run = label.cumsum(0)
    return run + (begins - run).logcumsumexp(0)
