"""Hot words against a scorer that looks at every place of the text."""

from __future__ import annotations

import random
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from duologue.model.decoding.hot_words import HotPhrase, HotWords
from duologue.model.errors import DuologueError

VOCAB = 4
biases = st.floats(-3, 3).map(lambda x: round(x, 1))
phrases = st.lists(
    st.lists(st.tuples(st.integers(0, VOCAB - 1), biases), min_size=1, max_size=4).map(
        lambda row: HotPhrase(tuple(label for label, _ in row), tuple(bias for _, bias in row))
    ),
    max_size=6,
)
texts = st.lists(st.integers(0, VOCAB - 1), max_size=12)


def brute(found: list[HotPhrase], text: list[int], goes_on: np.ndarray, ended: bool) -> float:
    """All phrases in the text where a word ends, and the one that is under way at the end of the text so far."""
    score = 0.0
    for end in range(1, len(text) + 1):
        if end == len(text) or not goes_on[text[end]]:
            for p in found:
                if end >= len(p.labels) and tuple(text[end - len(p.labels) : end]) == p.labels:
                    score += sum(p.biases)
    for length in range(0 if ended else len(text), 0, -1):
        suffix = tuple(text[-length:])
        if begun := [p for p in found if p.labels[:length] == suffix and len(p.labels) > length]:
            return score + max(sum(p.biases[:length]) for p in begun)
    return score


@settings(max_examples=150, deadline=None)
@given(phrases, texts, st.lists(st.booleans(), min_size=VOCAB, max_size=VOCAB))
def test_every_step_is_the_brute_force_scorers(found: list[HotPhrase], text: list[int], on: list[bool]) -> None:
    goes_on = np.array(on)
    words, state, total = HotWords(found, VOCAB, goes_on), np.zeros(1, np.int64), 0.0
    for at, label in enumerate(text):
        added, state = words.advance(state, np.array([label]))
        total += added[0]
        assert total == pytest.approx(brute(found, text[: at + 1], goes_on, False), abs=1e-9)
    assert total + words.finish(state)[0] == pytest.approx(brute(found, text, goes_on, True), abs=1e-9)


def test_an_abandoned_phrase_leaves_nothing() -> None:
    words = HotWords([HotPhrase((0, 1, 2), (1.0, 1.0, 1.0)), HotPhrase((1, 3), (0.5, 0.5))], VOCAB)
    states, scores = np.zeros(1, np.int64), []
    for label in (0, 1, 3, 0, 1, 0, 3):
        added, states = words.advance(states, np.array([label]))
        scores.append(added[0])
    assert scores == [1, 1, -1, 1, 1, -1, -1], "two steps of the first, then the second phrase to its end, and so on"


def test_a_thousand_phrases_compile_at_once() -> None:
    rng = random.Random(0)
    rows = [tuple(rng.randrange(2000) for _ in range(rng.randint(2, 6))) for _ in range(1000)]
    found = [HotPhrase(row, (1.5,) * len(row)) for row in rows]
    start = time.process_time()
    HotWords(found, 2000)
    assert time.process_time() - start < 0.2


def test_what_is_refused() -> None:
    for labels, biases, message in (((), (), "needs labels"), ((1,), (1.0, 2.0), "needs labels"),
                                    ((1,), (float("nan"),), "must be finite")):  # fmt: skip
        with pytest.raises(DuologueError, match=message):
            HotPhrase(labels, biases)
    with pytest.raises(DuologueError, match="has label 9; there are 4"):
        HotWords([HotPhrase((9,), (1.0,))], VOCAB)
