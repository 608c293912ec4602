"""Hot words: phrases that a search prefers, or avoids, by an Aho-Corasick automaton over labels.

    phrases as labels, a bias for each label -> automaton; (state, next label) -> what is added to the score, next state

Each step along a phrase adds its bias. Where the phrase is abandoned, what was added is subtracted, and that of the
longest suffix that still begins a phrase is kept; a phrase that was said to its end keeps its bias for good. So the sum
over a text is that of all phrases in it, nested and overlapping ones too, and of the one under way;
:meth:`HotWords.finish` takes the latter back. A phrase counts only where a word ends: "Ann" not in "Anniversary".

Sources: Aho and Corasick, "Efficient String Matching" (CACM 1975); the bias of an abandoned prefix as in Zhao et al.,
"Shallow-Fusion End-to-End Contextual Biasing" (Interspeech 2019), section 3.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..errors import DuologueError


@dataclass(frozen=True)
class HotPhrase:
    """labels: of the phrase. biases: what each adds to a score, in nats; negative: it is avoided."""

    labels: tuple[int, ...]
    biases: tuple[float, ...]

    def __post_init__(self) -> None:
        if not self.labels or len(self.labels) != len(self.biases):
            raise DuologueError(f"a phrase needs labels and a bias for each; it has {len(self.labels)} labels and "
                                f"{len(self.biases)} biases")  # fmt: skip
        if not np.isfinite(self.biases).all() or min(self.labels) < 0:
            raise DuologueError(f"a phrase of labels {self.labels} and biases {self.biases}: these must be finite, "
                                "labels at least 0")  # fmt: skip


class HotWords:
    """The automaton; a state is a whole number, 0 where no phrase is under way.

    Args:
        goes_on: (V,) bool, labels that go on with the word before them; None: none does.

    Raises:
        DuologueError: a phrase has a label that is not below V.
    """

    def __init__(self, phrases: Sequence[HotPhrase], vocab: int, goes_on: np.ndarray | None = None) -> None:
        self.vocab = vocab
        self.goes_on = np.zeros(vocab, bool) if goes_on is None else goes_on
        children: list[dict[int, int]] = [{}]
        ended, underway = [0.0], [0.0]  # biases of the phrases that end here; the best of those that go on from here
        for phrase in phrases:
            if max(phrase.labels) >= vocab:
                raise DuologueError(f"a phrase has label {max(phrase.labels)}; there are {vocab}")
            at, total = 0, 0.0
            for i, (label, bias) in enumerate(zip(phrase.labels, phrase.biases, strict=True)):
                if label not in children[at]:
                    children[at][label] = len(children)
                    children.append({})
                    ended.append(0.0)
                    underway.append(-np.inf)
                at, total = children[at][label], total + bias
                if i + 1 < len(phrase.labels):
                    underway[at] = max(underway[at], total)
            ended[at] += total
        fails, order = [0] * len(children), list(children[0].values())
        for at in order:  # breadth first: what a state fails to is complete before it
            for label, child in children[at].items():
                fail = fails[at]
                while fail and label not in children[fail]:
                    fail = fails[fail]
                fails[child] = children[fail].get(label, 0)
                order.append(child)
            ended[at] += ended[fails[at]]
            underway[at] = underway[fails[at]] if np.isinf(underway[at]) else underway[at]
        edges = sorted((at * vocab + label, child) for at, row in enumerate(children) for label, child in row.items())
        self._keys, self._targets = np.array(edges, np.int64).reshape(-1, 2).T.copy()
        self._fails, self._ended = np.array(fails), np.array(ended)
        self._underway = np.array(underway)

    def advance(self, states: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """States (n,), a label (n,) for each -> what is added to the scores (n,), the next states (n,)."""
        before, at, new = states, states.copy(), np.full(len(states), -1, np.int64)
        while len(self._keys) and (open_ := new < 0).any():
            wanted = at * self.vocab + labels
            where = np.minimum(np.searchsorted(self._keys, wanted), len(self._keys) - 1)
            found = open_ & (self._keys[where] == wanted)
            new[found] = self._targets[where[found]]
            new[open_ & ~found & (at == 0)] = 0
            at = np.where(found, at, self._fails[at])
        new = np.maximum(new, 0)
        added = self._underway[new] + self._ended[new] - self._underway[before]
        return added - np.where(self.goes_on[labels], self._ended[before], 0.0), new

    def finish(self, states: np.ndarray) -> np.ndarray:
        """What the end of the text adds (n,): phrases under way do not count."""
        return -self._underway[states]
