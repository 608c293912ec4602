"""What else is known of texts than CTC's posteriors: language models and hot words, as scores of how a text goes on.

A search (:mod:`.ctc_beam`) asks a fusion what each label would add to each of the texts that it follows, then lets it
follow those that it chose.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol

import numpy as np

from .hot_words import HotWords
from .ngrams.backoff import END, MARKS, NGramLM

_KNOWN = 1 << 16  # words behind states whose scores are kept


class Fusion(Protocol):
    """What else is known of texts. A state is an array with a row for each text."""

    def begin(self) -> np.ndarray:
        """The state of one empty text, with one row."""

    def scores(self, states: np.ndarray, labels: np.ndarray) -> np.ndarray:
        """What each label (K,) would add to each of W texts: (W, K)."""

    def follow(self, states: np.ndarray, labels: np.ndarray) -> np.ndarray:
        """The states of W texts, each gone on with its label (W,)."""

    def finish(self, states: np.ndarray) -> np.ndarray:
        """What the end of the text adds (W,)."""

    def pause(self, states: np.ndarray) -> np.ndarray:
        """What a pause adds (W,), behind which one of the texts alone goes on."""


class WordLM(Protocol):
    """A language model over words. A state is a row; MARKS are the first words."""

    @property
    def units(self) -> str:
        """What a word is, one of UNITS."""

    def begin(self) -> np.ndarray:
        """The state of one empty text, (1, …)."""

    def ids(self, words: Sequence[str]) -> np.ndarray:
        """(n,) numbers of words."""

    def knows(self, word: str) -> bool:
        """Whether a word has a probability of its own."""

    def advance(self, states: np.ndarray, words: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """States (n, …), a word (n,) for each -> natural log-probabilities (n,), the states behind the words."""


class HotWordFusion:
    """Hot words. A state is the automaton's."""

    def __init__(self, words: HotWords) -> None:
        self.words = words

    def begin(self) -> np.ndarray:
        return np.zeros(1, np.int64)

    def scores(self, states: np.ndarray, labels: np.ndarray) -> np.ndarray:
        every = np.repeat(states, len(labels)), np.tile(labels, len(states))
        return self.words.advance(*every)[0].reshape(len(states), len(labels))

    def follow(self, states: np.ndarray, labels: np.ndarray) -> np.ndarray:
        return self.words.advance(states, labels)[1]

    def finish(self, states: np.ndarray) -> np.ndarray:
        return self.words.finish(states)

    def pause(self, states: np.ndarray) -> np.ndarray:
        return self.words.finish(states)


class TokenFusion:
    """An n-gram model over labels.

    Args:
        words: (V,) the model's word for each label. weight: of its log-probabilities. bonus: for each label.
    """

    def __init__(self, model: NGramLM, words: np.ndarray, weight: float = 0.5, bonus: float = 0.0) -> None:
        self.model, self.words, self.weight, self.bonus = model, words, weight, bonus

    def begin(self) -> np.ndarray:
        return self.model.begin()

    def scores(self, states: np.ndarray, labels: np.ndarray) -> np.ndarray:
        every = np.repeat(states, len(labels), 0), np.tile(self.words[labels], len(states))
        scores = self.weight * self.model.advance(*every)[0] + self.bonus
        return scores.reshape(len(states), len(labels))

    def follow(self, states: np.ndarray, labels: np.ndarray) -> np.ndarray:
        return self.model.advance(states, self.words[labels])[1]

    def finish(self, states: np.ndarray) -> np.ndarray:
        return self.weight * self.model.advance(states, np.full(len(states), MARKS.index(END)))[0]

    def pause(self, states: np.ndarray) -> np.ndarray:
        return np.zeros(len(states))


class WordFusion:
    """A language model over words, which a text's word is given to once the next one begins, or the text ends.

    A state holds the model's state, the word so far, and what is known of it: its score, the model's state behind it.

    Args:
        texts: what each label adds to a text; one that begins with a space begins a word.
        weight: of the model's log-probabilities. bonus: for each word.
        expected: words that are likely although the model may not know them. The probability of an unknown word is
            shared by all of them and says nothing of these, so that such a word is neither punished nor preferred.
    """

    def __init__(
        self,
        model: WordLM,
        texts: Sequence[str],
        weight: float = 0.5,
        bonus: float = 0.0,
        expected: Iterable[str] = (),
    ) -> None:
        self.model, self.texts, self.weight, self.bonus = model, texts, weight, bonus
        self._expected = {word for each in expected if (word := self._written(each)) and not model.knows(word)}
        self.begins = np.array([text[:1].isspace() for text in texts])
        self._known: dict[tuple[bytes, str], tuple[float, np.ndarray]] = {}  # (model's state, word) -> score, state

    def begin(self) -> np.ndarray:
        return self._rows([(self.model.begin()[0], "")])

    def scores(self, states: np.ndarray, labels: np.ndarray) -> np.ndarray:
        return states[:, 2].astype(np.float64)[:, None] * self.begins[labels]

    def follow(self, states: np.ndarray, labels: np.ndarray) -> np.ndarray:
        gone_on = []
        for (before, word, _, behind), label, new in zip(states, labels.tolist(), self.begins[labels], strict=True):
            gone_on.append((behind, self.texts[label]) if new else (before, word + self.texts[label]))
        return self._rows(gone_on)

    def finish(self, states: np.ndarray) -> np.ndarray:
        ends = np.full(len(states), MARKS.index(END))
        return self.pause(states) + self.weight * self.model.advance(np.stack(list(states[:, 3])), ends)[0]

    def pause(self, states: np.ndarray) -> np.ndarray:
        return states[:, 2].astype(np.float64)  # the last word's

    def _rows(self, texts: list[tuple[np.ndarray, str]]) -> np.ndarray:
        """Texts as (model's state before the last word, that word) -> states (W, 4)."""
        if len(self._known) > _KNOWN:
            self._known.clear()
        keys = [(before.tobytes(), self._written(word)) for before, word in texts]
        new = {key: before for key, (before, _) in zip(keys, texts, strict=True) if key[1] and key not in self._known}
        if new:
            scores, after = self.model.advance(np.stack(list(new.values())), self.model.ids([word for _, word in new]))
            scores = self.weight * scores + self.bonus
            scores[[word in self._expected for _, word in new]] = 0.0
            self._known.update(zip(new, zip(scores.tolist(), after, strict=True), strict=True))
        states = np.empty((len(texts), 4), object)
        for row, (key, (before, word)) in enumerate(zip(keys, texts, strict=True)):
            score, behind = self._known[key] if key[1] else (0.0, before)
            states[row, 0], states[row, 1], states[row, 2], states[row, 3] = before, word, score, behind
        return states

    def _written(self, text: str) -> str:
        """As the model writes words."""
        text = text.strip()
        return text if self.model.units != "plain" else "".join(c for c in text.lower() if c.isalnum() or c in "_'’")
