"""Minimum word error rate: weighted edit distance, log-probabilities of texts, the gradient of expected errors."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from duologue.model.decoding.beam import BeamConfig
from duologue.model.decoding.ctc_beam import search
from duologue.training.losses.error_rate import edit_distance
from duologue.training.losses.word_errors import IMPOSSIBLE, expected_errors, sequence_log_probs, weighted_errors

LABELS, FRAMES = 2, 4
WORDS = ("oslo", "in", "at")
SAID = ("oslo", "in")
words = st.lists(st.sampled_from(WORDS), max_size=6)


def written(path: tuple[int, ...]) -> tuple[int, ...]:
    """What an alignment writes."""
    return tuple(label for label, _ in itertools.groupby(path) if label != LABELS)


def enumerated(logits: Tensor) -> dict[tuple[int, ...], Tensor]:
    """The probability of every text under CTC: the sum over all alignments (T, V + 1)."""
    probabilities = logits.softmax(-1)
    found: dict[tuple[int, ...], Tensor] = {}
    for path in itertools.product(range(LABELS + 1), repeat=len(logits)):
        each = torch.stack([probabilities[at, label] for at, label in enumerate(path)]).prod()
        found[written(path)] = found.get(written(path), torch.zeros((), dtype=logits.dtype)) + each
    return found


def errors_of(labels: tuple[int, ...], weights: dict[str, float]) -> float:
    return weighted_errors([WORDS[label] for label in labels], SAID, weights)


@pytest.mark.parametrize("weights", [{}, {"oslo": 4.0}])
def test_the_gradient_is_that_of_all_texts(weights: dict[str, float]) -> None:
    torch.manual_seed(0)
    logits = torch.randn(FRAMES, LABELS + 1, dtype=torch.float64, requires_grad=True)
    every = enumerated(logits)
    assert sum(every.values()).item() == pytest.approx(1)  # type: ignore[union-attr]
    wanted = sum(probability * errors_of(labels, weights) for labels, probability in every.items())
    wanted.backward()  # type: ignore[union-attr]
    exact, logits.grad = logits.grad, None
    log_probs = logits.log_softmax(-1)
    found = search(log_probs.detach().numpy(), BeamConfig(width=1000, margin=math.inf, sure=1.0))
    assert {each.labels for each in found} == set(every)
    scores = sequence_log_probs(log_probs[None], torch.tensor([FRAMES]), [[each.labels for each in found]])
    errors = torch.tensor([[errors_of(each.labels, weights) for each in found]], dtype=torch.float64)
    loss = expected_errors(scores, errors).sum()
    assert (loss + errors.mean()).item() == pytest.approx(wanted.item(), abs=1e-9)  # type: ignore[union-attr]
    loss.backward()
    assert exact is not None and logits.grad is not None and exact.abs().max() > 1e-2
    torch.testing.assert_close(logits.grad, exact, atol=1e-5, rtol=0)


def test_each_clip_has_its_own_texts_and_length() -> None:
    torch.manual_seed(1)
    logits = torch.randn(3, FRAMES, LABELS + 1)
    texts = [[(0, 0), (0,), ()], [(1,)], [(0, 1), ()]]  # of one label, of another one, of two
    lengths = (FRAMES, 3, 2)
    scores = sequence_log_probs(logits.log_softmax(-1), torch.tensor(lengths), texts)
    assert scores.shape == (3, 3) and scores[1, 1:].tolist() == [IMPOSSIBLE] * 2
    for clip, length in enumerate(lengths):
        every = enumerated(logits[clip, :length])
        for at, labels in enumerate(texts[clip]):
            assert scores[clip, at].exp().item() == pytest.approx(every[labels].item(), rel=1e-4)
    expected = expected_errors(scores, torch.tensor([[2.0, 1.0, 0.0], [5.0, 0.0, 0.0], [1.0, 1.0, 0.0]]))
    assert expected[1].item() == pytest.approx(0, abs=1e-6), "one hypothesis: no better and no worse than the list"
    chances = scores[0].softmax(0)
    assert expected[0].item() == pytest.approx(2 * chances[0].item() + chances[1].item() - 1, abs=1e-5)


def test_of_a_short_list_the_gradient_is_that_of_its_texts_alone() -> None:
    """Renormalised over texts that do without one of the labels."""
    torch.manual_seed(2)
    logits = torch.randn(FRAMES, LABELS + 1, dtype=torch.float64, requires_grad=True)
    texts, errors = [(0,), (0, 0), ()], torch.tensor([1.0, 0.0, 2.0], dtype=torch.float64)
    every = enumerated(logits)
    chances = torch.stack([every[text] for text in texts])
    (chances / chances.sum() * errors).sum().backward()
    exact, logits.grad = logits.grad, None
    scores = sequence_log_probs(logits.log_softmax(-1)[None], torch.tensor([FRAMES]), [texts])
    expected_errors(scores, errors[None]).sum().backward()
    assert exact is not None and logits.grad is not None and exact.abs().max() > 1e-2
    torch.testing.assert_close(logits.grad, exact, atol=1e-5, rtol=0)


@given(words, words)
def test_without_weights_errors_are_the_edit_distance(heard: list[str], said: list[str]) -> None:
    assert weighted_errors(heard, said, {}) == edit_distance(heard, said)


@given(words, words, st.dictionaries(st.sampled_from(WORDS), st.floats(0.25, 8)))
def test_weighted_errors_are_the_cheapest_edits(heard: list[str], said: list[str], weights: dict[str, float]) -> None:
    table = np.zeros((len(said) + 1, len(heard) + 1))
    cost = lambda word: weights.get(word, 1.0)  # noqa: E731
    table[1:, 0], table[0, 1:] = np.cumsum([cost(w) for w in said]), np.cumsum([cost(w) for w in heard])
    for (i, a), (j, b) in itertools.product(enumerate(said, 1), enumerate(heard, 1)):
        changed = 0.0 if a == b else max(cost(a), cost(b))
        table[i, j] = min(table[i - 1, j - 1] + changed, table[i - 1, j] + cost(a), table[i, j - 1] + cost(b))
    assert weighted_errors(heard, said, weights) == pytest.approx(table[-1, -1])
