"""Word and character errors against jiwer's own and against pairs counted by hand; the normalisers."""

from __future__ import annotations

import jiwer
import pytest

from duologue.inference.evaluation.metrics.words import (
    Aligned,
    WordErrors,
    alignment,
    error_measures,
    normaliser,
    word_errors,
)
from duologue.model.errors import DuologueError

# (said, understood, word errors, words, character errors, characters), counted by hand
PAIRS = [
    ("the cat sat", "the cat sat", 0, 3, 0, 11),
    ("the cat sat", "the hat sat", 1, 3, 1, 11),
    ("the cat sat", "the sat", 1, 3, 4, 11),
    ("the cat sat", "the big cat sat", 1, 3, 4, 11),
    ("the cat sat", "", 3, 3, 11, 11),
    ("", "the cat", 2, 0, 7, 0),
]


@pytest.mark.parametrize(("said", "understood", "errors", "words", "wrong", "characters"), PAIRS)
def test_known_pairs(said: str, understood: str, errors: int, words: int, wrong: int, characters: int) -> None:
    assert word_errors([understood], [said]) == WordErrors(errors=errors, words=words)
    assert word_errors([understood], [said], letters=True) == WordErrors(errors=wrong, words=characters)
    assert error_measures(understood, said, "plain") == {"wer": [errors, words], "cer": [wrong, characters]}


def test_the_sum_is_jiwers() -> None:
    said, understood = [pair[0] for pair in PAIRS[:5]], [pair[1] for pair in PAIRS[:5]]
    assert word_errors(understood, said).rate == pytest.approx(jiwer.wer(said, understood))
    assert word_errors(understood, said, letters=True).rate == pytest.approx(jiwer.cer(said, understood))
    assert word_errors([], []).rate is None


def test_normalisers() -> None:
    """Whisper's own examples: contractions, titles, British spelling, numbers; marks for other languages."""
    english = normaliser("english")
    assert english("Mr. Brown's colour isn't twenty-five") == english("mister brown is color is not 25")
    assert english("um, I'm   fine") == "i am fine"
    assert normaliser("basic")("Grüß Gott, 世界!") == "grüß gott 世界"
    assert normaliser("plain")("It's 3") == "its three"
    assert word_errors(["it is 3"], ["it's three"], "english").errors == 0
    for name in ("english", "basic", "plain"):  # what is not seen is no word, and makes none another
        assert normaliser(name)("\ufeffwhat\u200b is\u00ad \u202enine") == normaliser(name)("what is nine")
    with pytest.raises(DuologueError, match="unknown normaliser 'klingon'"):
        normaliser("klingon")


def test_alignment() -> None:
    assert alignment("the hat sat on a soft mat", "please the cat sat on a mat") == [
        Aligned("delete", "please", ""),
        Aligned("equal", "the", "the"),
        Aligned("substitute", "cat", "hat"),
        Aligned("equal", "sat on a", "sat on a"),
        Aligned("insert", "", "soft"),
        Aligned("equal", "mat", "mat"),
    ]
    assert alignment("", "") == []
