"""The words of nano: all that the grammar says, in an order that does not change, as a tokenizer others can load."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from duologue.data_prep.nano.dialogues import Split, generate, is_held_out
from duologue.data_prep.nano.sentences import drill, mixed_sentence, number_sentence
from duologue.data_prep.nano.vocabulary import SPECIAL_TOKENS, save_tokenizer, token_ids, words


def test_every_word_is_in_it() -> None:
    known = set(words())
    for split in Split:
        for index in range(2000):
            dialogue = generate(11, index, split)
            assert set(f"{dialogue.question} {dialogue.answer} {dialogue.slot}".split()) <= known, dialogue
    rng = np.random.default_rng(0)
    drills = [drill(words(), index, rng) for index in range(4000)]
    assert all(drills) and {word for text in drills for word in text.split()} == known


def test_size_and_order() -> None:
    assert 400 < len(words()) <= 1000
    assert list(words()) == sorted(set(words()))
    ids = token_ids()
    assert list(ids.values()) == list(range(len(ids)))
    assert tuple(ids)[:11] == (
        "<pad>", "<bos>", "<eos>", "<unk>", "<user>", "<speech>", "<transcript>", "<reply>", "<query>", "<noise>",
        "<wait>",
    )  # fmt: skip


def test_transformers_reads_the_tokenizer(tmp_path: Path) -> None:
    from transformers import PreTrainedTokenizerFast

    tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(save_tokenizer(tmp_path)))
    ids = token_ids()
    assert len(tokenizer) == len(ids)
    text = "forty seven plus thirty five is eighty two"
    assert tokenizer.encode(text) == [ids[word] for word in text.split()]
    assert tokenizer.decode(tokenizer.encode(text)) == text
    assert tokenizer.encode("Forty xylophones") == [ids["forty"], ids["<unk>"]]
    assert [tokenizer.convert_tokens_to_ids(token) for token in SPECIAL_TOKENS] == list(range(len(SPECIAL_TOKENS)))
    assert tokenizer.encode("<bos><user> hello <reply>") == [ids["<bos>"], ids["<user>"], ids["hello"], ids["<reply>"]]
    first = (tmp_path / "tokenizer.json").read_bytes()
    assert save_tokenizer(tmp_path).read_bytes() == first


def test_mixed_drills_never_ask_what_only_the_test_may_ask():
    """Every wording that is held out is recognised, with fillers or without; no drill is one."""
    for split in ("dev", "test"):
        assert all(is_held_out(generate(3, index, split).question) for index in range(500))
    rng = np.random.default_rng(0)
    mixed = [mixed_sentence(rng) for _ in range(500)]
    assert not any(is_held_out(text) for text in mixed)
    assert len(set(mixed)) > 480 and all(set(text.split()) <= set(words()) for text in mixed)
    assert not is_held_out("what is the capital of france")


def test_numbers_stand_on_either_side_of_to():
    rng = np.random.default_rng(0)
    said = [number_sentence(rng) for _ in range(500)]
    between = [text for text in said if " to " in text]
    assert len(between) > 50 and all(set(text.split()) <= set(words()) for text in said)
