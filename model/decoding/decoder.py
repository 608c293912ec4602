"""How speech becomes words: a beam, an n-gram model, hot words; or a grammar. A value, which may change any time.

    DecoderConfig, and the labels of a model -> Decoder: log-probabilities (T, V + 1) -> texts, the best first
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Self

import numpy as np

from ..errors import DuologueError
from .beam import BeamConfig, Found
from .ctc_beam import search, search_part
from .fusions import Fusion, HotWordFusion, TokenFusion, WordFusion, WordLM
from .grammars.jsgf import Grammar
from .grammars.tlg import TLG
from .hot_words import HotPhrase, HotWords
from .labels import Labels, plain_words
from .ngrams.backoff import NGramLM

WEIGHT = 3.0  # of a hot word
FEW = 30  # hot words that are each as likely as one alone
MANY = 2.5  # nats that each loses where they are e times as many; 1 would be so, were all of them heard well
BONUS = {"tokens": 1.0}  # of an n-gram model over these units
WORD_BONUS = 3.0  # of one over words
OWN = "own"  # the language model of the model itself
NO_DECODER = "a beam, hot words and n-gram models look for words in transcripts, and this model writes none"


@dataclass(frozen=True)
class HotWord:
    """A word or a phrase that is likely to be said.

    weight: what each of its tokens adds to a text's score, in nats; negative: it is avoided. Of more than FEW phrases
        each is less likely to be the one that is said: all of its tokens together lose MANY times the logarithm of how
        many times FEW they are.
    """

    text: str
    weight: float = WEIGHT

    def __post_init__(self) -> None:
        if not plain_words(self.text):
            raise DuologueError(f"the hot word {self.text!r} has no letters")
        if not np.isfinite(self.weight):
            raise DuologueError(f"the hot word {self.text!r} has weight {self.weight}; it must be finite")


@dataclass(frozen=True, kw_only=True)
class DecoderConfig:
    """What is known of the words before they are said."""

    beam: BeamConfig = field(default_factory=BeamConfig)
    hot_words: tuple[HotWord, ...] = ()
    lm: WordLM | str | None = None  # over words, or an n-gram model over the model's tokens; OWN: its language model
    lm_weight: float = 0.5  # of its log-probabilities
    lm_bonus: float | None = None  # nats for each of its words, against its liking for short texts; None: the usual
    grammar: Grammar | None = None  # of all that may be said: its best text, instead of a beam's

    def __post_init__(self) -> None:
        if not np.isfinite(self.lm_weight) or self.lm_weight < 0 or not np.isfinite(self.lm_bonus or 0.0):
            raise DuologueError(f"lm_weight is {self.lm_weight} and lm_bonus {self.lm_bonus}: the weight must be at "
                                "least 0, both finite")  # fmt: skip
        if self.grammar is not None and (self.hot_words or self.lm):
            raise DuologueError(f"{self.grammar.name} is all that may be said: give hot words and n-gram models "
                                "without a grammar")  # fmt: skip
        if isinstance(self.lm, str) and self.lm != OWN:
            raise DuologueError(f"lm is {self.lm!r}; it must be a language model, or {OWN!r}")


class Decoder:
    """Searches the texts of one model.

    Raises:
        DuologueError: a hot word, or a word of the grammar, that the labels cannot spell.
    """

    def __init__(self, config: DecoderConfig, labels: Labels) -> None:
        self.config = config
        self.fusions: list[Fusion] = []
        grammar = config.grammar
        self.graph = None if grammar is None else TLG(grammar, lambda word: spelt(word, labels), len(labels.tokens))
        if config.hot_words:
            words = HotWords(_phrases(config.hot_words, labels), len(labels.tokens), labels.goes_on)
            self.fusions.append(HotWordFusion(words))
        if (lm := config.lm) is None:
            return
        if isinstance(lm, str):
            raise DuologueError("this model has no language model of its own that could be fused")
        bonus = BONUS.get(lm.units, WORD_BONUS) if config.lm_bonus is None else config.lm_bonus
        if isinstance(lm, NGramLM) and lm.units == "tokens":
            ids = lm.ids([str(token) for token in labels.tokens])
            self.fusions.append(TokenFusion(lm, ids, config.lm_weight, bonus))
        else:
            likely = [word for hot in config.hot_words if hot.weight > 0 for word in hot.text.split()]
            self.fusions.append(WordFusion(lm, labels.texts, config.lm_weight, bonus, likely))

    @property
    def whole(self) -> bool:
        """Whether all that is said must be there before anything is known: a grammar goes on over pauses."""
        return self.graph is not None

    def __call__(self, log_probs: np.ndarray) -> list[Found]:
        """The likeliest texts of (T, V + 1), the blank last; the best first."""
        return search(log_probs, self.config.beam, self.fusions) if self.graph is None else self.graph(log_probs)

    def part(
        self, log_probs: np.ndarray, before: Sequence[np.ndarray] | None, last: bool
    ) -> tuple[tuple[int, ...], list[np.ndarray]]:
        """The likeliest labels of a part of what is said, up to a pause: see :func:`.ctc_beam.search_part`."""
        if self.graph is not None:
            return self.graph(log_probs)[0].labels, []
        return search_part(log_probs, self.config.beam, self.fusions, before, last)


def _phrases(words: Sequence[HotWord], labels: Labels) -> list[HotPhrase]:
    less = MANY * max(0.0, math.log(len(words) / FEW))
    found = []
    for word in words:
        if not (row := spelt(word.text, labels)):
            raise DuologueError(f"the hot word {word.text!r} cannot be spelt with the tokens that this model hears")
        # spread, so that phrases under way do not crowd out other texts, and are not dropped at their beginning
        bias = word.weight - (less / len(row) if word.weight > 0 else 0.0)
        found.append(HotPhrase(row, (bias,) * len(row)))
    return found


def spelt(text: str, labels: Labels) -> tuple[int, ...]:
    """A phrase in labels; () if they cannot spell it, or it has no letters."""
    return tuple(labels.encode(plain_words(text)) or labels.encode(text) or ())  # as it is: some models hear capitals


class NoTranscripts:
    """Of a model whose transcripts no beam can search: it takes no decoder."""

    decoder: DecoderConfig | None = None
    takes_decoder = False

    def with_decoder(self, config: DecoderConfig | None) -> Self:
        """Itself. Raises DuologueError for a decoder."""
        if config is not None:
            raise DuologueError(NO_DECODER)
        return self

    def spells(self, text: str) -> bool:
        """No hot word."""
        return False
