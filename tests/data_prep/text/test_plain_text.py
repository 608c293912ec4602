"""Anybody's text as words: what a reader would say is kept, and what cannot be said is named."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from duologue.data_prep.text.plain_text import plain
from duologue.data_prep.text.spoken import ALPHABET
from duologue.model.errors import DuologueError


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("What's the capital of France?", "what is the capital of france"),
        ("I can’t — it's 3.5% of 1,000.", "i cannot it is three point five percent of one thousand"),
        ("café, naïve", "cafe naive"),
        ("-5 degrees + 3 = −2", "minus five degrees plus three equals minus two"),
        ("they won't; we'll see, I'm sure", "they will not we will see i am sure"),
        ("a well-known\nthing.Next", "a well known thing next"),
        ("the dog's “bone”", "the dogs bone"),
        ("salt & pepper and/or 1984", "salt and pepper and or one thousand nine hundred eighty four"),
    ],
)
def test_words(text: str, words: str) -> None:
    assert plain(text) == words


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "no words"),
        ("?!", "no words"),
        ("It has 12345 parts", "the number 12345: write it in words"),
        ("1,000,000", "the number 1000000"),
        ("the 3rd of May", "it has 3rd: write it in words"),
        ("half is 1/2", "it has 1/2"),
        ("See https://example.org/a now", r"the link https://example\.org/a$"),
        ("x = {y}", "the character '{'"),
        ("Привет", "the character 'п'"),
        ("fine 😀", "the character '😀'"),
        ("Buy:\n- milk\n- eggs", "it is a list"),
        ("1. milk\n2. eggs", "it is a list"),
    ],
)
def test_what_cannot_be_said(text: str, complaint: str) -> None:
    with pytest.raises(DuologueError, match=complaint):
        plain(text)


@given(st.text(max_size=40))
def test_words_or_an_error(text: str) -> None:
    """Whatever is given; and words stay the words they are."""
    try:
        words = plain(text)
    except DuologueError as error:
        assert "\n" not in str(error)
        return
    assert words and set(words) <= ALPHABET and words == " ".join(words.split()) == plain(words)
