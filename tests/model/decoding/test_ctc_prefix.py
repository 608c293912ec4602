"""Prefix probabilities against a sum over every alignment, and a transcript that CTC keeps to what was said."""

import itertools
import math

import pytest
import torch

from duologue.model.decoding.ctc_prefix import CTCPrefix

BLANK = 0


def spelled(alignment):
    """What an alignment spells: repeats merged, blanks dropped."""
    merged = [label for label, _ in itertools.groupby(alignment)]
    return tuple(label for label in merged if label != BLANK)


def by_enumeration(logits):
    """{word sequence: probability} of all alignments of (T, V)."""
    labels = logits.double().log_softmax(-1)
    chances = {}
    for alignment in itertools.product(range(logits.shape[1]), repeat=len(logits)):
        score = sum(labels[t, label].item() for t, label in enumerate(alignment))
        chances[spelled(alignment)] = chances.get(spelled(alignment), 0.0) + math.exp(score)
    return chances


@pytest.mark.parametrize("prefix", [(), (1,), (2, 2), (1, 2, 1), (3, 1, 1)])
@pytest.mark.parametrize("places", [1, 4, 6])
def test_every_alignment_is_counted(prefix, places):
    logits = torch.randn(places, 4, generator=torch.Generator().manual_seed(places)) * 3
    chances = by_enumeration(logits)
    begin = {}  # of each prefix: the words that begin with it
    for words, chance in chances.items():
        for length in range(len(words) + 1):
            begin[words[:length]] = begin.get(words[:length], 0.0) + chance
    state = CTCPrefix.begin(logits, BLANK)
    for word in prefix:
        state.push(word)
    if prefix not in begin:
        assert state.total == -math.inf  # too long for so few places
        return
    assert math.exp(state.total) == pytest.approx(begin[prefix], rel=1e-9)
    words, end = state.next()
    assert math.exp(end) == pytest.approx(chances.get(prefix, 0.0) / begin[prefix], rel=1e-9, abs=1e-12)
    for word in (1, 2, 3):
        wanted = begin.get((*prefix, word), 0.0) / begin[prefix]
        assert math.exp(words[word]) == pytest.approx(wanted, rel=1e-9, abs=1e-12)


def test_a_clone_writes_for_itself():
    state = CTCPrefix.begin(torch.randn(8, 5, generator=torch.Generator().manual_seed(0)), BLANK)
    state.push(2)
    before = state.next()[0]
    other = state.clone()
    other.push(3)
    torch.testing.assert_close(state.next()[0], before, rtol=0, atol=0)
    assert state.last == 2 and other.last == 3


def test_a_minute_of_certain_speech_stays_a_number():
    """Logits as sure as they come, 150 words in 750 places: no NaN, and each word follows the one before."""
    said = torch.randint(1, 600, (150,), generator=torch.Generator().manual_seed(1)).tolist()
    logits = torch.full((750, 600), -60.0)
    for n, word in enumerate(said):
        logits[5 * n : 5 * n + 5, BLANK] = 0.0
        logits[5 * n + 2, BLANK], logits[5 * n + 2, word] = -60.0, 0.0
    state = CTCPrefix.begin(logits, BLANK)
    for word in said:
        words, end = state.next()
        assert not words.isnan().any()
        assert int(words[1:].argmax()) + 1 == word and end < -20
        state.push(word)
    assert state.next()[1] == pytest.approx(0.0, abs=1e-3)
