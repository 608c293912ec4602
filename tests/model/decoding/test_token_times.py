"""Times of a transcript's tokens: the likeliest of all alignments."""

from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from duologue.model.decoding.token_times import aligned

BLANK = 0


def runs(alignment: tuple[int, ...]) -> list[tuple[int, int, int]]:
    """(label, first, end) of each stretch that is no blank."""
    found, at = [], 0
    for label, stretch in itertools.groupby(alignment):
        length = len(list(stretch))
        found += [(label, at, at + length)] if label != BLANK else []
        at += length
    return found


@settings(max_examples=60)
@given(seed=st.integers(0, 9999), length=st.integers(1, 6), ids=st.lists(st.integers(1, 2), max_size=3))
def test_it_is_the_likeliest_alignment(seed: int, length: int, ids: list[int]) -> None:
    labels = torch.randn(length, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).log_softmax(-1)
    possible = [
        each for each in itertools.product(range(3), repeat=length) if [label for label, _, _ in runs(each)] == ids
    ]
    if not possible:
        return
    best = max(possible, key=lambda each: sum(labels[t, label].item() for t, label in enumerate(each)))
    found = aligned(labels, BLANK, 0.5, ids)
    assert [(token.token, token.start, token.end) for token in found] == [
        (label, 0.5 * first, 0.5 * end) for label, first, end in runs(best)
    ]
    for token, (label, first, end) in zip(found, runs(best), strict=True):
        assert token.confidence == pytest.approx(labels[first:end, label].exp().mean().item())


def test_where_a_repeated_token_has_no_place_for_a_blank_it_has_a_time_all_the_same() -> None:
    labels = torch.full((2, 2), 0.5).log()
    assert [(token.start, token.end) for token in aligned(labels, BLANK, 1.0, [1, 1])] == [(0.0, 1.0), (1.0, 2.0)]
