"""Beam search over what a model writes, against all texts of a toy, n-grams and hot words included."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from duologue.model.decoding.beam import BeamConfig
from duologue.model.decoding.fusions import HotWordFusion, TokenFusion
from duologue.model.decoding.hot_words import HotPhrase, HotWords
from duologue.model.decoding.ngrams.backoff import NGramLM
from duologue.model.decoding.ngrams.counts import count, vocabulary
from duologue.model.decoding.ngrams.smoothing import estimate
from duologue.model.decoding.token_beam import TokenBeam

FIRST, VOCAB, MOST = 2, 3, 4  # tokens: two that end a text, three words, one that is never written
WHOLE = BeamConfig(width=1000, margin=np.inf, near=np.inf)
Text = tuple[int, ...]


class Written:
    """A state: the tokens so far. A model that asks for the last two."""

    def __init__(self, tokens: Text = ()) -> None:
        self.tokens = tokens

    def clone(self) -> Written:
        return Written(self.tokens)


def logits(state: Written) -> torch.Tensor:
    """By what was written last; the first token says how a text ends, the second hardly ever."""
    rng = np.random.default_rng([4, *state.tokens[-2:]])
    return torch.from_numpy(2 * rng.standard_normal(FIRST + VOCAB + 1) - [0, 9, 0, 0, 0, 99])


def push(state: Written, token: int) -> bool:
    state.tokens = (*state.tokens, token)
    return len(state.tokens) <= MOST


def found(config: BeamConfig, *fusions: object) -> list[tuple[Text, float]]:
    beam = TokenBeam(logits, push, (FIRST, FIRST + VOCAB), (0, 1))
    return [(each.labels, each.score) for each in beam.search(Written(), config, fusions, MOST)]


def exhaustive(extra: object = lambda text: 0.0) -> list[tuple[Text, float]]:
    texts = []
    for length in range(MOST + 1):
        for text in itertools.product(range(VOCAB), repeat=length):
            score, state = 0.0, Written()
            for label in text:
                score += float(logits(state).log_softmax(-1)[FIRST + label])
                push(state, FIRST + label)
            texts.append((text, score + float(logits(state).log_softmax(-1)[:2].max()) + extra(text)))
    return sorted(texts, key=lambda each: -each[1])


def check(config: BeamConfig, fusions: list, extra: object) -> None:
    wanted = exhaustive(extra)
    for (text, score), (labels, value) in zip(wanted[:20], found(config, *fusions), strict=False):
        assert labels == text and value == pytest.approx(score)


def model() -> NGramLM:
    sentences = [line.split() for line in ("0 1 2", "0 1", "2 2 0")]
    return estimate(count(lambda: sentences, vocabulary(sentences), 2))


def test_at_full_width_it_is_exhaustive() -> None:
    best = exhaustive()[0]
    assert found(BeamConfig(width=1000, margin=200.0, near=np.inf), HotWordFusion(HotWords([], VOCAB)))[0] == best
    check(BeamConfig(width=1000, margin=np.inf, near=np.inf, bonus=0.4), [], lambda text: 0.4 * len(text))


def test_with_hot_words_and_an_n_gram() -> None:
    """One implementation: what is fused with CTC's posteriors is fused here."""
    lm = model()
    words = HotWords([HotPhrase((0, 1, 2), (1.0, 1.0, 1.0)), HotPhrase((1, 0), (-1.0, -0.5))], VOCAB)

    def extra(text: Text) -> float:
        row = "".join(map(str, text))
        hot = sum(3.0 * row.startswith("012", at) - 1.5 * row.startswith("10", at) for at in range(len(row)))
        return hot + 0.5 * lm.score([list(row)])[0].sum()

    check(WHOLE, [HotWordFusion(words), TokenFusion(lm, lm.ids(["0", "1", "2"]))], extra)


def test_a_beam_finds_what_is_likelier_in_all() -> None:
    """Greedily the likeliest token each time; the texts of a beam are at least as likely, and each is there once."""
    best = exhaustive()[0][1]
    scores = [found(BeamConfig(width=width))[0][1] for width in (1, 2, 4, 64)]
    assert scores == sorted(scores) and scores[0] < scores[-1] == pytest.approx(best)
    texts = [text for text, _ in found(BeamConfig(width=8))]
    assert 4 <= len(set(texts)) == len(texts) <= 8


def test_a_text_that_is_ended_for_it_grows_no_further() -> None:
    def short(state: Written, token: int) -> bool:
        return push(state, token) and len(state.tokens) < 2

    beam = TokenBeam(logits, short, (FIRST, FIRST + VOCAB), (0, 1))
    assert max(len(each.labels) for each in beam.search(Written(), WHOLE, [], MOST)) == 1
