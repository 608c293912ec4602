"""Labels of a CTC adaptor: which tokens are chosen, how rare words are spelt, what cannot be."""

from __future__ import annotations

import pytest
from tiny_chat import chat_tokenizer

from duologue.model.decoding.labels import Labels
from duologue.model.errors import DuologueError
from duologue.training.data.vocabulary import choose_tokens, words_of

TEXTS = ["what is the capital of france"] * 5 + ["the capital is lovely", "wien is the hauptstadt", "quux"]


@pytest.mark.parametrize("kind", ["chatml", "inst"])  # bytes; SentencePiece
def test_every_text_is_spelt_by_a_few_tokens(kind: str) -> None:
    tokenizer = chat_tokenizer(kind)
    tokens = choose_tokens(tokenizer, TEXTS, 60, rare=3)
    assert len(set(tokens)) == len(tokens) == 60
    labels = Labels(tokenizer, tokens)
    for text in (*TEXTS, "it's zebra"):
        ids = labels.encode(text)
        assert ids is not None and labels.decode(ids) == text
    common, rare = labels.encode("capital"), labels.encode("hauptstadt")
    own = {word: tokenizer.encode(f"{'' if kind == 'inst' else ' '}{word}", add_special_tokens=False)
           for word in ("capital", "hauptstadt")}  # fmt: skip
    assert common is not None and [tokens[at] for at in common] == own["capital"], "frequent: as the tokenizer has it"
    assert rare is not None and len(rare) > len(own["hauptstadt"]), "rare: by other tokens"
    assert labels.encode("") == []
    assert labels.encode("北京") is None


def test_sizes_that_do_not_fit_are_named() -> None:
    tokenizer = chat_tokenizer()
    with pytest.raises(DuologueError, match=r"adaptor.vocab is 10; the characters of the data alone are 28"):
        choose_tokens(tokenizer, TEXTS, 10, rare=3)
    with pytest.raises(DuologueError, match=r"adaptor.vocab is 4000, but the tokenizer has \d+ tokens in lower case"):
        choose_tokens(tokenizer, TEXTS, 4000, rare=3)


def test_words_are_those_that_are_said() -> None:
    assert words_of({"text": "“Don’t — go!” he said, at 5_000."}) == "don't go he said at 5 000"
    assert words_of({"text": "At 5?", "spoken": "at five"}) == "at five"
    assert words_of({"text": ""}) == words_of({"verdict": "noise"}) == ""
