"""What needs no answer: the same wherever it is asked for, in the shares stated; nothing of the test is trained on."""

from __future__ import annotations

from collections import Counter

import pytest

from duologue.data_prep.datasets.splits import Split
from duologue.data_prep.nano.asides import BACK_CHANNELS, STOPS, aside
from duologue.data_prep.text.spoken import ALPHABET, number_in_words
from duologue.inference.evaluation.inputs import material, scenes


@pytest.mark.parametrize("split", Split)
def test_asides(split: Split) -> None:
    said = [aside(1, index, split) for index in range(2_000)]
    assert said == [aside(1, index, split) for index in range(2_000)] != [aside(2, i, split) for i in range(2_000)]
    assert all(text and set(text) <= ALPHABET and "  " not in text for text, _ in said)
    kinds = Counter("few" if text in BACK_CHANNELS else "stop" if text in STOPS else "statement" for text, _ in said)
    assert 0.65 < kinds["statement"] / 2_000 < 0.75 and 0.14 < kinds["few"] / 2_000 < 0.22
    assert all((turn_state == "query") == (text in STOPS) for text, turn_state in said)
    assert len({text for text, _ in said}) > 900
    numbers = set(map(number_in_words, range(2, 13)))  # or a number would be the mark of a question
    assert 0.1 < sum(bool(numbers & set(text.split())) for text, _ in said) / kinds["statement"] < 0.4


def test_nothing_of_the_test_is_trained_on() -> None:
    statements = {
        split: {text for index in range(3_000) if (text := aside(0, index, split)[0]) not in (*BACK_CHANNELS, *STOPS)}
        for split in Split
    }
    assert not statements[Split.TRAIN] & statements[Split.TEST] and not statements[Split.TRAIN] & statements[Split.DEV]
    assert not set(material.STATEMENTS) & set.union(*statements.values())
    assert not set(scenes.BACK_CHANNELS) & set(BACK_CHANNELS)
