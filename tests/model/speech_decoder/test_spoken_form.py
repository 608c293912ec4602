"""English as it is spoken: what is read how, and that it does not matter in which pieces a text comes."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from duologue.model.speech_decoder.spoken_form import LONGEST, SYMBOLS, read_aloud, reading

READ = {
    "what is two plus two": "what is two plus two",
    "Don't! They’re dogs' toys.": "don't! they're dogs toys.",
    "Dr. Smith paid $12.50 for it.": "doctor smith paid twelve dollars and fifty cents for it.",
    "It was built in 1969, or the 1990s.": "it was built in nineteen sixty nine, or the nineteen nineties.",
    "1,234,567 people (3.5%) live there": "one million two hundred thirty four thousand five hundred sixty seven "
    "people, three point five percent, live there",
    "At 9:30am or 12:00, on March 5, 2021": "at nine thirty A M or twelve o'clock, on march fifth, twenty twenty one",
    "$3.5 million, $1 and $0.99": "three point five million dollars, one dollar and ninety nine cents",
    "the U.S., e.g. NASA, FBI & AI": "the U S, for example nasa, F B I and A I",
    "covid-19: -5°C, 3-5 days, 1990–2000": "covid nineteen, minus five degrees celsius, three to five days, "
    "nineteen ninety to two thousand",
    "the 1st, 22nd, 1/2, 3/8, 007": "the first, twenty second, one half, three over eight, zero zero seven",
    "5km, 10 kg, example.com": "five kilometers, ten kilograms, example dot com",
    "**Bold** _x_ \"quote\" – dash… 😀": "bold x quote, dash.",
    "1. Foo\n2. Bar\n\n- baz": "one. foo. two. bar. baz",
    "Café Москва": "cafe moskva",
    "World War II vs. OK": "world war two versus okay",
    "": "", " \n ": "", "😀": "",
}  # fmt: skip


@pytest.mark.parametrize("text", READ)
def test_a_text_is_read(text):
    assert read_aloud(text) == READ[text]


PIECES = st.sampled_from(
    (" a", "photo", "y", "'s", "’", ",", " $", "1", "9", ".", " million", " mil", "\n", " Dr", "😀", " U", "-", "%",
     "  ", "é", ":", " May", "a.", "x" * LONGEST, " " * LONGEST, "1" * 30, "東京")
)  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(st.lists(st.one_of(PIECES, st.text(max_size=4)), max_size=30))
def test_pieces_are_read_as_the_whole(pieces):
    said, left = "", ""
    for number, piece in enumerate([*pieces, ""]):
        left, end = left + piece, 0
        for _, end, symbols in reading(left, said, last=number == len(pieces)):  # noqa: B007
            said += symbols
        left = left[end:]
        assert len(left) < LONGEST
    assert said == read_aloud("".join(pieces)) and not left
    assert set(said) <= set(SYMBOLS) and "  " not in said
