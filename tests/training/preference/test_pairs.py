"""Pairs of answers as rows: which tokens of which row count."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
import torch
from tiny_chat import TEMPLATES, chat_tokenizer

from duologue.training.data.chat_turns import ChatTokens
from duologue.training.data.marked_turns import marked_tokens
from duologue.training.data.turns import TurnTokens
from duologue.training.preference.pairs import OWN, SAME, pack_pairs, pair_of

TURN: dict[str, Any] = {
    "text": "what is the capital of france", "answer": "the capital of france is paris", "system": "Be brief.",
    "history": [("who are you", "my name is nano")],
}  # fmt: skip


def written(kind: str) -> TurnTokens:
    return marked_tokens("nano") if kind == "nano" else ChatTokens(chat_tokenizer(kind))


@pytest.mark.parametrize("kind", ["nano", *TEMPLATES])
def test_only_the_last_answers_are_compared(kind: str) -> None:
    """They and what ends them; behind the same prompt; from where they part the rejected one is bad."""
    tokens = written(kind)
    answers = ["the capital of france is rome", "i do not know"]
    pairs = [pair_of(tokens, TURN, answer) for answer in answers]
    for pair, answer in zip(pairs, answers, strict=True):
        before = pair.chosen.ids[: pair.chosen.said.start]
        assert pair.rejected.ids[: pair.rejected.said.start] == before
        assert tokens.decode(pair.answers[0][:-1]) == TURN["answer"] and tokens.decode(pair.answers[1][:-1]) == answer
        assert {ids[-1] for ids in pair.answers} == {tokens.eos}
    batch, order = pack_pairs(pairs, 4000)
    assert batch["ids"].shape[0] == 1 and len(order) == 4
    for (chosen, rejected), pair in zip(batch["pairs"].tolist(), pairs, strict=True):
        for segment, ids in zip((chosen, rejected), pair.answers, strict=True):
            assert batch["ids"][(batch["segments"] == segment) & (batch["answers"] > 0)].tolist() == ids
        assert not batch["weights"][batch["segments"] == rejected].any()
        learnt = batch["ids"][(batch["segments"] == chosen) & (batch["weights"] > 0)].tolist()
        assert learnt[-len(pair.answers[0]) :] == pair.answers[0]
        assert "nano" not in tokens.decode(learnt), "no earlier answer is learnt"
        own = batch["ids"][(batch["segments"] == rejected) & (batch["answers"] == OWN)].tolist()
        common = pair.in_common
        assert own == pair.answers[1][common:-1] and pair.answers[0][:common] == pair.answers[1][:common]
    assert pairs[0].in_common > pairs[1].in_common


def test_an_end_that_comes_too_early_is_bad() -> None:
    tokens = marked_tokens("nano")
    for answer, bad in (("the capital", [tokens.eos]), (TURN["answer"] + " is paris", tokens.encode("is paris"))):
        pair = pair_of(tokens, TURN, answer)
        assert [id_ for id_, mark in zip(pair.answers[1], pair.counted[1], strict=True) if mark == OWN] == bad
        assert set(pair.counted[0][: pair.in_common]) <= {SAME}


def test_the_oldest_turns_give_way() -> None:
    tokens = marked_tokens("nano")
    turn = TURN | {"history": [("what day is it", "it is monday"), *TURN["history"]]}
    whole = pair_of(tokens, turn, "i do not know")
    sizes = []
    for longest in range(len(whole.chosen.ids), 4, -1):
        pair = pair_of(tokens, turn, "i do not know", longest=longest)
        sizes.append(len(pair.chosen.ids))
        assert max(len(pair.chosen.ids), len(pair.rejected.ids)) <= longest
        if pair.chosen.ids.count(tokens.reply) == 2:
            assert "nano" in tokens.decode(pair.chosen.ids) and "monday" not in tokens.decode(pair.chosen.ids)
        batch, _ = pack_pairs([pair], 1)
        assert batch["answers"].shape == batch["ids"].shape
    assert all(a >= b for a, b in pairwise(sizes)) and len(set(sizes)) > 3


def test_a_heard_turn_has_its_words_in_the_place_of_a_transcript() -> None:
    """Where the model writes what it heard, that is learnt with the better answer, and not compared."""
    tokens = marked_tokens("nano")
    pair = pair_of(tokens, TURN, "i do not know", frames=5)
    batch, _ = pack_pairs([pair], 1)
    chosen = batch["segments"] == batch["pairs"][0, 0]
    assert tokens.decode(batch["ids"][chosen & (batch["weights"] > 0)].tolist()) == f"{TURN['text']} {TURN['answer']}"
    assert tokens.decode(batch["ids"][chosen & (batch["answers"] > 0)].tolist()) == TURN["answer"]
    assert torch.equal(batch["ids"] == tokens.speech, batch["ids"] == tokens.speech) and pair.chosen.speech == 5
