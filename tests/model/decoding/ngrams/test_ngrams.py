"""N-gram models: every context sums to 1, other implementations agree, files and disks change nothing."""

from __future__ import annotations

import itertools
import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from duologue.model.decoding.ngrams import arpa
from duologue.model.decoding.ngrams.backoff import END, NGramLM
from duologue.model.decoding.ngrams.combining import em_weights, held_out_weights, interpolated, pruned
from duologue.model.decoding.ngrams.counts import count, vocabulary
from duologue.model.decoding.ngrams.smoothing import SMOOTHINGS, SmoothingConfig, estimate
from duologue.model.errors import DuologueError

FIRST = ("please", "now", "then", "well", "")
VERBS = ("what is", "how much is", "tell me", "do you know")
NUMBERS = ["one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"]
THINGS = ("tea", "coffee", "milk", "water", "cake", "bread")


def sums(n: int, seed: int) -> list[list[str]]:
    rng = random.Random(seed)
    return [f"{rng.choice(FIRST)} {rng.choice(VERBS)} {rng.choice(NUMBERS)} {rng.choice(('plus', 'times'))} "
            f"{rng.choice(NUMBERS)}".split() for _ in range(n)]  # fmt: skip


def orders(n: int, seed: int) -> list[list[str]]:
    rng = random.Random(seed)
    return [f"i want {rng.choice(NUMBERS)} cups of {rng.choice(THINGS)} and {rng.choice(THINGS)}".split()
            for _ in range(n)]  # fmt: skip


def model_of(sentences: list[list[str]], order: int = 3, least: int = 2, **settings: object) -> NGramLM:
    return estimate(count(lambda: sentences, vocabulary(sentences, least), order), SmoothingConfig(**settings))


def perplexity(model: NGramLM, sentences: list[list[str]]) -> float:
    return float(np.exp(-model.score(sentences)[0].mean()))


def check_sums(model: NGramLM) -> None:
    """Behind every context that a table lists, and behind unknown ones."""
    for m in range(model.order):
        rows = model.rows(m) if m else np.zeros((1, 0), np.int64)
        for row in rows[~(rows == 2).any(1)]:  # nothing follows an end
            state = model.begin(sentence=False)
            for word in row:
                state = model.advance(state, np.array([word]))[1]
            probabilities = model.distribution(state[0])
            assert probabilities.sum() == pytest.approx(1, abs=1e-6), [model.words[word] for word in row]
            words = np.arange(3, len(model.words))
            one_by_one = model.advance(np.repeat(state, len(words), 0), words)[0]
            assert np.allclose(np.exp(one_by_one), probabilities[3:])


@pytest.mark.parametrize("smoothing", SMOOTHINGS)
def test_every_context_sums_to_one(smoothing: str) -> None:
    check_sums(model_of([*sums(30, 0), *orders(20, 1), ["once"]], smoothing=smoothing))


@pytest.mark.parametrize("smoothing", SMOOTHINGS)
def test_perplexity_falls_with_the_order(smoothing: str) -> None:
    train, held_out = sums(300, 0), sums(60, 1)
    found = [perplexity(model_of(train, order, smoothing=smoothing), held_out) for order in (1, 2, 3)]
    assert found[0] > found[1] > found[2], found


def test_kneser_ney_by_hand() -> None:
    """Of "a b", "a b", "c b", with one discount of 0.5, V' = 5 words that may follow (<unk>, </s>, a, b, c).

    Words seen before each: </s> 1 (b), a 1 (<s>), b 2 (a, c), c 1 (<s>), so 5 kinds of pairs. Discounted:
    p(b) = (2 - .5) / 5 + (4 · .5 / 5) / 5 = .3 + .08 = .38; p(c) = .1 + .08 = .18; p(<unk>) = .08.
    Pairs: <s> a 2, <s> c 1, a b 2, c b 1, b </s> 3.
    p(b | a) = (2 - .5) / 2 + (.5 / 2) · .38 = .845; p(c | a) = .25 · .18 = .045;
    p(a | <s>) = 1.5 / 3 + (1 / 3) · .18 = .56
    """
    model = model_of([["a", "b"]] * 2 + [["c", "b"]], 2, least=1, discounts=(0.5,))
    found, _ = model.score([["a", "b"], ["a", "c"], ["zebra"]])
    assert np.exp(found[:2]) == pytest.approx([0.56, 0.845])
    assert np.exp(found[4]) == pytest.approx(0.045)
    assert np.exp(found[6]) == pytest.approx((1 / 3) * 0.08), "<unk> behind <s>"


def test_the_discounts_are_chen_and_goodmans() -> None:
    """n1 = 4, n2 = 2, n3 = 1, n4 = 1: Y = .5; D = 1 - 2·.5·2/4 = .5, 2 - 3·.5·1/2 = 1.25, 3 - 4·.5·1/1 = 1."""
    sentences = [[word] for word, n in zip("abcdefgh", (1, 1, 1, 1, 2, 2, 3, 4), strict=True) for _ in range(n)]
    model = model_of(sentences, 1, least=1)  # of order 1 alone counts are plain; </s> has 15
    kept = {"a": 0.5, "e": 0.75, "g": 2.0, "h": 3.0}
    rest = (4 * 0.5 + 2 * 1.25 + 3 * 1.0) / 30 / 10
    for word, value in kept.items():
        assert np.exp(model.tables[0].log_probs[model.index[word]]) == pytest.approx(value / 30 + rest)


@pytest.mark.slow
def test_add_k_and_kneser_ney_are_nltks() -> None:
    nltk = pytest.importorskip("nltk.lm", reason="nltk is not installed")
    preprocessing = pytest.importorskip("nltk.lm.preprocessing")
    sentences = sums(40, 0)
    train, words = preprocessing.padded_everygram_pipeline(2, sentences)
    theirs = nltk.Lidstone(0.3, 2)
    theirs.fit(train, words)
    ours = model_of(sentences, 2, least=1, smoothing="add_k", k=0.3)
    scale = len(theirs.vocab)  # which counts <s> as a word that may follow; ours does not
    for h, w in itertools.product(("<s>", "plus", "is"), ("one", "two", "plus", END)):
        pair = theirs.counts[[h]][w], theirs.counts[[h]].N()
        assert theirs.score(w, [h]) == pytest.approx((pair[0] + 0.3) / (pair[1] + 0.3 * scale)), "it is add-k"
        row = np.array([[ours.index[h], ours.index[w]]])
        assert np.exp(ours.score_rows(row)) == pytest.approx((pair[0] + 0.3) / (pair[1] + 0.3 * (scale - 1)))
    train, words = preprocessing.padded_everygram_pipeline(2, sentences)
    theirs = nltk.KneserNeyInterpolated(2, discount=0.5)
    theirs.fit(train, words)
    ours = model_of(sentences, 2, least=1, discounts=(0.5,))
    for h in ("<s>", "plus", "is"):  # the part of the pairs; nltk's unigrams are not interpolated with the uniform
        seen = theirs.counts[[h]]
        left_over = 0.5 * len(seen) / seen.N()
        assert np.exp(ours.tables[0].backoffs[ours.index[h]]) == pytest.approx(left_over)
        for w in ("one", "two"):
            row = np.array([[ours.index[h], ours.index[w]]])
            lower = np.exp(ours.tables[0].log_probs[ours.index[w]])
            alpha = theirs.score(w, [h]) - left_over * theirs.score(w)
            assert np.exp(ours.score_rows(row)[0]) - left_over * lower == pytest.approx(alpha)


@pytest.mark.parametrize("smoothing", SMOOTHINGS)
def test_arpa_round_trip(smoothing: str) -> None:
    model = replace(model_of(sums(60, 0), smoothing=smoothing), units="plain")
    again = arpa.read("".join(arpa.written(model)).splitlines(), "x")
    assert (again.words, again.units) == (model.words, "plain")
    held_out = [*sums(20, 1), ["never", "heard"]]
    assert np.allclose(again.score(held_out)[0], model.score(held_out)[0], atol=1e-5)


def test_kenlm_reads_our_arpa(tmp_path: Path) -> None:
    kenlm = pytest.importorskip("kenlm", reason="kenlm is not installed: it needs a compiler")
    path, held_out = tmp_path / "m.arpa", [*sums(20, 1), ["never", "heard", "plus"]]
    models = [model_of(sums(80, 0), smoothing=smoothing) for smoothing in SMOOTHINGS]
    both = [model_of(each, 3, 1) for each in (sums(80, 0), orders(80, 1))]
    for model in [*models, interpolated(both, np.array([0.3, 0.7])), pruned(models[0], 1e-3)]:
        path.write_text("".join(arpa.written(model)))
        theirs = kenlm.Model(str(path))
        found = [score for s in held_out for score, _, _ in theirs.full_scores(" ".join(s))]
        assert np.allclose(np.array(found) * np.log(10), model.score(held_out)[0], atol=1e-4)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no whole ARPA file"),
        ("\\data\\\nngram 1=2\n\\1-grams:\n-1 a\n\\end\\\n", r"announces \[2\] n-grams, has \[1\]"),
        ("\\data\\\nngram 1=1\n\\1-grams:\nx a\n\\end\\\n", "line 4: 'x a' is no 1-gram"),
        ("\\data\\\nngram 1=1\nngram 2=1\n\\1-grams:\n-1 a\n\\2-grams:\n-1 a b\n\\end\\\n", "word 'b' in an n-gram"),
        ("\\data\\\nngram 1=1\n\\1-grams:\n-1 a\n", "and no end"),
    ],
)
def test_a_broken_arpa_is_one_line(text: str, message: str) -> None:
    with pytest.raises(DuologueError, match=message):
        arpa.read(text.splitlines(), "x.arpa")


def test_runs_on_disk_change_nothing(tmp_path: Path) -> None:
    sentences, said = [*sums(200, 0), *orders(100, 1)], list[str]()
    words = vocabulary(sentences, 2)
    whole = count(lambda: sentences, words, 3)
    parts = count(lambda: iter(sentences), words, 3, block=100, say=said.append, folder=tmp_path)
    assert len(said) > 10 and not list(tmp_path.iterdir()), "runs are taken away"
    for a, b in zip((*whole.rows, *whole.counts), (*parts.rows, *parts.counts), strict=True):
        assert np.array_equal(a, b)
    naive = [tuple(s[i : i + 3]) for each in sentences for s in [["<s>", *each, "</s>"]] for i in range(len(s) - 2)]
    assert whole.counts[2].sum() == len(naive) and len(whole.rows[2]) == len(set(naive))


def test_an_interpolation_beats_both_parts() -> None:
    a, b = model_of(sums(200, 0)), model_of(orders(200, 1))
    tune, held_out = [*sums(40, 2), *orders(20, 3)], [*sums(40, 4), *orders(20, 5)]
    weights = held_out_weights([a, b], tune)
    assert weights.sum() == pytest.approx(1) and 0.5 < weights[0] < 0.85
    both = interpolated([a, b], weights)
    check_sums(both)
    assert perplexity(both, held_out) < min(perplexity(a, held_out), perplexity(b, held_out))
    assert perplexity(interpolated([a, b], [0.95, 0.05]), held_out) > perplexity(both, held_out)


def test_em_by_hand() -> None:
    """Two models, each sure of half of the words: weights of a half; of three quarters: those."""
    sure = np.array([[1.0, 1, 1, 0], [0, 0, 0, 1.0]])
    assert em_weights(sure) == pytest.approx([0.75, 0.25], abs=1e-4)


def test_pruning_drops_what_says_least() -> None:
    model = model_of([*sums(200, 0), *orders(200, 1)], smoothing="katz")
    held_out, sizes, found = [*sums(40, 2), *orders(40, 3)], list[int](), list[float]()
    for threshold in (1e-9, 1e-5, 1e-3, 1e9):
        small = pruned(model, threshold)
        check_sums(small)
        sizes.append(sum(len(table.keys) for table in small.tables))
        found.append(perplexity(small, held_out))
    assert sizes == sorted(sizes, reverse=True) and sizes[1] < sizes[0] and sizes[3] == len(model.words)
    assert found[1] < 1.02 * found[0] and found[3] > 2 * found[0]


def test_samples_are_sentences_of_the_model() -> None:
    train = sums(50, 0)
    model, rng = model_of(train, least=1, smoothing="katz"), np.random.default_rng(0)
    said = [model.sample(rng) for _ in range(200)]
    assert len({tuple(words) for words in said}) > 100
    assert perplexity(model, said) < 3 * perplexity(model, train)


def test_what_is_refused() -> None:
    for settings, message in (
        ({"smoothing": "witten"}, "smoothing is 'witten'; it must be one of"), ({"k": 0.0}, "k is 0.0"),
        ({"discounts": (2.0,)}, "that of count n must be above 0"),
        ({"smoothing": "katz", "discounts": (0.5,)}, "discounts are for"),
    ):  # fmt: skip
        with pytest.raises(DuologueError, match=message):
            SmoothingConfig(**settings)
    for wrong in (lambda: count(lambda: [["a"]], ("<unk>", "<s>", "</s>"), 0), lambda: count(lambda: [], (), 2),
                  lambda: vocabulary([["<s>"]]), lambda: pruned(model_of([["a"]]), 0.0),
                  lambda: interpolated([model_of([["a"]])], [0.4])):  # fmt: skip
        with pytest.raises(DuologueError):
            wrong()
