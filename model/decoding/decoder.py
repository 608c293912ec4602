"""How posteriors become words: the width of the beam, an n-gram model, hot words. A value, which may change any time.

    DecoderConfig, and the labels of a model -> Decoder: log-probabilities (T, V + 1) -> texts, the best first
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from ..errors import DuologueError
from .ctc_beam import BeamConfig, Found, search
from .fusions import Fusion, HotWordFusion, TokenFusion, WordFusion
from .hot_words import HotPhrase, HotWords
from .labels import Labels, plain_words
from .ngrams.backoff import NGramLM

WEIGHT = 2.0
NO_DECODER = "a beam, hot words and n-gram models look for words in CTC's posteriors, and this model hears none"


@dataclass(frozen=True)
class HotWord:
    """A word or a phrase that is likely to be said.

    weight: what each of its tokens adds to a text's score, in nats; negative: it is avoided.
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
    lm: NGramLM | None = None  # over words, or over the tokens of the model's tokenizer
    lm_weight: float = 0.5  # of its log-probabilities
    word_bonus: float = 0.0  # nats for each word, where lm is over words: against its liking for short texts

    def __post_init__(self) -> None:
        if not np.isfinite(self.lm_weight) or self.lm_weight < 0 or not np.isfinite(self.word_bonus):
            raise DuologueError(f"lm_weight is {self.lm_weight} and word_bonus {self.word_bonus}: the weight must be "
                                "at least 0, both finite")  # fmt: skip


class Decoder:
    """Searches the texts of one model.

    Raises:
        DuologueError: a hot word that the labels cannot spell.
    """

    def __init__(self, config: DecoderConfig, labels: Labels) -> None:
        self.config = config
        self.fusions: list[Fusion] = []
        if config.hot_words:
            rows = [(_spelt(word, labels), word.weight) for word in config.hot_words]
            phrases = [HotPhrase(row, (weight,) * len(row)) for row, weight in rows]
            self.fusions.append(HotWordFusion(HotWords(phrases, len(labels.tokens), labels.goes_on)))
        if config.lm is not None and config.lm.units == "tokens":
            ids = config.lm.ids([str(token) for token in labels.tokens])
            self.fusions.append(TokenFusion(config.lm, ids, config.lm_weight))
        elif config.lm is not None:
            self.fusions.append(WordFusion(config.lm, labels.texts, config.lm_weight, config.word_bonus))

    def __call__(self, log_probs: np.ndarray) -> list[Found]:
        """The likeliest texts of (T, V + 1), the blank last; the best first."""
        return search(log_probs, self.config.beam, self.fusions)


def _spelt(word: HotWord, labels: Labels) -> tuple[int, ...]:
    row = labels.encode(plain_words(word.text)) or labels.encode(word.text)  # of a model that hears capitals
    if not row:
        raise DuologueError(f"the hot word {word.text!r} cannot be spelt with the tokens that this model hears")
    return tuple(row)
