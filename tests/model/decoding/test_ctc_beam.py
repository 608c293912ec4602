"""CTC beam search against all texts of a toy, n-grams and hot words included."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest

from duologue.model.decoding.beam import BeamConfig
from duologue.model.decoding.ctc_beam import search
from duologue.model.decoding.fusions import HotWordFusion, TokenFusion, WordFusion
from duologue.model.decoding.hot_words import HotPhrase, HotWords
from duologue.model.decoding.ngrams.backoff import NGramLM
from duologue.model.decoding.ngrams.counts import count, vocabulary
from duologue.model.decoding.ngrams.smoothing import estimate
from duologue.model.errors import DuologueError

T, VOCAB = 5, 3
WHOLE = BeamConfig(width=2000, margin=np.inf, sure=1.0)
TEXTS = (" a", "b", " c")


def posteriors(seed: int, t: int = T, sharp: float = 1.5, vocab: int = VOCAB) -> np.ndarray:
    rng = np.random.default_rng(seed)
    scores = sharp * rng.standard_normal((t, vocab + 1))
    return scores - np.log(np.exp(scores).sum(1, keepdims=True))


def probabilities(log_probs: np.ndarray) -> dict[tuple[int, ...], float]:
    """Of every text, its log-probability under CTC: that of all alignments that write it."""
    found: dict[tuple[int, ...], float] = {}
    for path in itertools.product(range(VOCAB + 1), repeat=T):
        text = tuple(label for label, _ in itertools.groupby(path) if label < VOCAB)
        found[text] = np.logaddexp(found.get(text, -np.inf), log_probs[range(T), path].sum())
    return found


def model(words: str) -> NGramLM:
    sentences = [line.split() for line in words.split("/")]
    return estimate(count(lambda: sentences, vocabulary(sentences), 2))


def check(log_probs: np.ndarray, fusions: list, extra: object, config: BeamConfig = WHOLE) -> None:
    ctc, found = probabilities(log_probs), search(log_probs, config, fusions)
    wanted = sorted(((ctc[text] + extra(text), text) for text in ctc), reverse=True)
    assert [each.labels for each in found] == [text for _, text in wanted]
    assert [each.score for each in found] == pytest.approx([score for score, _ in wanted])
    assert [each.ctc for each in found] == pytest.approx([ctc[text] for _, text in wanted])


@pytest.mark.parametrize("seed", range(3))
def test_at_full_width_it_is_exhaustive(seed: int) -> None:
    check(posteriors(seed), [], lambda text: 0.3 * len(text), replace(WHOLE, bonus=0.3))


def test_with_an_n_gram_over_labels() -> None:
    lm = model("0 1 2/0 1/2 2 0")
    ids = lm.ids(["0", "1", "2"])
    check(posteriors(0), [TokenFusion(lm, ids, 0.7, 0.2)],
          lambda text: 0.7 * lm.score([[str(label) for label in text]])[0].sum() + 0.2 * len(text))  # fmt: skip


def test_with_an_n_gram_over_words() -> None:
    lm = model("ab c/a c c/ab")

    def extra(text: tuple[int, ...]) -> float:
        words = "".join(TEXTS[label] for label in text).split()
        return 0.7 * lm.score([words])[0].sum() + 0.4 * len(words)

    check(posteriors(1), [WordFusion(lm, TEXTS, 0.7, 0.4)], extra)


def test_an_expected_word_that_the_n_gram_does_not_know_is_not_punished() -> None:
    """Of "cb", which it does not know, the model says nothing; it is as unsure as ever what follows."""
    lm = model("ab c/a c c/ab")

    def extra(text: tuple[int, ...]) -> float:
        words = "".join(TEXTS[label] for label in text).split()
        scores = 0.7 * lm.score([words])[0] + 0.4
        return sum(scores[:-1][[word != "cb" for word in words]]) + scores[-1] - 0.4

    assert "cb" not in lm.index and "c" in lm.index
    check(posteriors(1), [WordFusion(lm, TEXTS, 0.7, 0.4, ("cb", "c"))], extra)


def test_with_hot_words_and_an_n_gram() -> None:
    lm = model("0 1 2/0 1/2 2 0")
    words = HotWords([HotPhrase((0, 1, 2), (1.0, 1.0, 1.0)), HotPhrase((1, 0), (-1.0, -0.5))], VOCAB)

    def extra(text: tuple[int, ...]) -> float:
        row = "".join(map(str, text))
        hot = sum(3.0 * row.startswith("012", at) - 1.5 * row.startswith("10", at) for at in range(len(row)))
        return hot + 0.5 * lm.score([list(row)])[0].sum()

    check(posteriors(2), [HotWordFusion(words), TokenFusion(lm, lm.ids(["0", "1", "2"]))], extra)


def test_a_narrow_beam_finds_what_is_said_clearly() -> None:
    for seed in range(20):
        path = np.random.default_rng(seed).integers(0, VOCAB + 1, 30)
        log_probs = np.log(0.2 * np.exp(posteriors(seed, 30)) + 0.8 * np.eye(VOCAB + 1)[path])
        found = search(log_probs, BeamConfig(width=8))
        assert found[0].labels == tuple(label for label, _ in itertools.groupby(path.tolist()) if label < VOCAB)


def test_no_text_is_there_twice() -> None:
    """Also where a text was dropped, one that it had grown into was not, and it came back."""
    for seed in range(25):
        found = search(posteriors(seed, 30, 1.0, vocab=2), BeamConfig(width=8))
        assert len({each.labels for each in found}) == len(found)


def test_frames_that_are_surely_blank_let_nothing_grow() -> None:
    """They change no text that is there: nor is one written twice over such a frame."""
    log_probs = np.insert(posteriors(3), (1, 2, 4), np.log([[0.001, 0.001, 0.003, 0.995]]), axis=0)
    wanted = search(log_probs, BeamConfig(width=500, sure=1.0))
    found = {each.labels: each.score for each in search(log_probs, BeamConfig(width=500, sure=0.99))}
    for each in wanted[:5]:
        assert found[each.labels] == pytest.approx(each.score, abs=0.05)
    assert search(np.log([[0.004, 0.996], [0.9, 0.1], [0.004, 0.996], [0.9, 0.1]]))[0].labels == (0, 0)


def test_nothing_heard_is_one_empty_text() -> None:
    found = search(np.zeros((0, VOCAB + 1)))
    assert [(each.labels, each.score) for each in found] == [((), 0.0)]


def test_what_is_refused() -> None:
    for settings, message in (({"width": 0}, "width 0"), ({"labels": 0}, "0 labels"), ({"margin": 0.0}, "margin is 0")):
        with pytest.raises(DuologueError, match=message):
            BeamConfig(**settings)
