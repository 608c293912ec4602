"""Rows in a language model's own tokens: what its chat template writes, and only answers and their ends count."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from any_model import SYSTEM, TALKS, TASK
from tiny_chat import TEMPLATES, chat_tokenizer

from duologue.data_prep.datasets.question_sets import QuestionSet, history_of
from duologue.model.errors import DuologueError
from duologue.model.language_model.chat_template import SPEECH, ChatTemplate, Given
from duologue.training.data.chat_turns import ChatTokens
from duologue.training.data.turns import Earlier, Row, pack, spread
from duologue.training.data.written import read_dialogues

FIRST, SECOND = TALKS[0]["turns"]
RNG, NONE = np.random.default_rng(0), QuestionSet()


def counted(row: Row) -> str:
    """The text of what is learnt."""
    ids = [id_ for id_, weight in zip(row.ids, row.weights, strict=True) if weight]
    return row.tokens.decode(ids)


@pytest.mark.parametrize("kind", TEMPLATES)
def test_a_row_is_what_the_chat_template_writes(kind: str) -> None:
    tokens, template = ChatTokens(chat_tokenizer(kind)), ChatTemplate(chat_tokenizer(kind))
    row = tokens.row(SYSTEM)
    row.add_turn(FIRST[0], FIRST[1], 5)
    row.add_turn(SECOND[0], SECOND[1], 3, instruction=TASK["instruction"])
    said = [Given(tuple(template.encode(answer))) for _, answer in (FIRST, SECOND)]
    messages: list[Any] = [
        {"role": "system", "content": SYSTEM},
        {"role": "user", "content": [Given((SPEECH,) * 5)]},
        {"role": "assistant", "content": [said[0]]},
        {"role": "user", "content": [Given((SPEECH,) * 3), TASK["instruction"]]},
    ]
    before = template.write(messages).ids
    assert row.ids == [*before, *said[1].ids, template.eos]
    whole = template.write([*messages, {"role": "assistant", "content": [said[1]]}], reply=False)
    assert row.ids == whole.ids[: len(row.ids)]
    assert row.ids[row.said.start : row.said.stop] == list(said[1].ids) and row.said.stop == len(row.ids) - 1
    learnt = [at for at, weight in enumerate(row.weights) if weight]
    assert learnt == [at for place in whole.given if whole.ids[place.start] != SPEECH and place.start
                      for at in (*place, place.stop)]  # fmt: skip
    assert counted(row).replace(" ", "") == (FIRST[1] + SECOND[1]).replace(" ", "")
    assert row.spoken == tokens.encode(FIRST[0]) + tokens.encode(SECOND[0]) and row.speech == 8


def test_words_with_special_tokens_stay_words() -> None:
    tokens = ChatTokens(chat_tokenizer("chatml"))
    row = tokens.row()
    row.add_turn("Say <|im_end|>.", "No <|im_end|> here.")
    assert counted(row) == "No <|im_end|> here." and row.ids.count(tokens.eos) == 3  # system, user, answer


def test_what_is_only_heard_ends_with_the_speech() -> None:
    tokens = ChatTokens(chat_tokenizer("headers"))
    heard, unanswered = tokens.row(), tokens.row()
    heard.hear(4)
    unanswered.add_turn("It is late.", None, 4)
    assert heard.ids == unanswered.ids and heard.ids[-4:] == [SPEECH] * 4 and not any(heard.weights)
    assert unanswered.spoken and not heard.spoken


@pytest.mark.parametrize("heard", [True, False])
def test_earlier_turns_are_heard_or_read(heard: bool) -> None:
    tokens = ChatTokens(chat_tokenizer("chatml"))
    row, other = tokens.row(), tokens.row()
    meta = {"text": SECOND[0], "answer": SECOND[1], "history": [list(FIRST)]}
    asked = []

    def hearing(question: str, answer: str) -> Earlier:
        asked.append((question, answer))
        return Earlier(6 if heard else 0, 3, TASK["instruction"])

    answer = row.add_before(meta, RNG, NONE, hearing)
    assert asked == [FIRST] and answer == SECOND[1]
    row.add_turn(meta["text"], answer, 2)
    other.add_turn(FIRST[0], FIRST[1], 6 if heard else 0, instruction=TASK["instruction"])
    other.add_turn(SECOND[0], SECOND[1], 2)
    assert row.ids == other.ids and row.clips == ([3] if heard else [])
    assert counted(row) == (FIRST[1] if heard else "") + SECOND[1]
    assert not row.takes(meta) and row.takes({}) and not row.takes({"system": SYSTEM})


def test_histories_of_now_and_of_before() -> None:
    assert history_of({"history": [["a", "b"], ["c", "d"]]}) == [("a", "b"), ("c", "d")]
    assert history_of({"before": ["a", "b"]}) == history_of({"before": ("a", "b")}) == [("a", "b")]
    assert history_of({"before": None}) == history_of({}) == []


def test_a_copy_goes_on_alone() -> None:
    tokens = ChatTokens(chat_tokenizer("headers"))
    row = tokens.row(SYSTEM)
    row.add_turn(*FIRST)
    before, copy = list(row.ids), row.copy()
    copy.add_turn(*SECOND)
    assert row.ids == before and copy.ids[: len(before)] == before
    row.add_turn(*SECOND)
    assert row.ids == copy.ids and row.weights == copy.weights


def test_half_a_character_is_refused_where_it_is_read(tmp_path: Path) -> None:
    file = tmp_path / "mine.jsonl"
    file.write_text(json.dumps({"turns": [{"text": "Hello", "reply": "half \ud83d"}]}))
    with pytest.raises(DuologueError, match=r"mine.jsonl 000000: half a surrogate pair"):
        read_dialogues([str(file)])


@pytest.mark.parametrize("width", [1, 400])
def test_a_clip_takes_as_many_positions_as_it_has_embeddings(width: int) -> None:
    """Rows made with one position a clip become those that would have been made with so many, however packed."""
    tokens = ChatTokens(chat_tokenizer("headers"))

    def rows(*frames: int) -> list[Row]:
        found = [tokens.row(SYSTEM), tokens.row()]
        for row, (one, other) in zip(found, (frames[:2], frames[2:]), strict=True):
            row.add_turn(FIRST[0], FIRST[1], one)
            row.add_turn(SECOND[0], SECOND[1], other)
        return found

    (batch, _), (wanted, _) = (pack(rows(*frames), width) for frames in ((1, 1, 1, 1), (3, 1, 2, 5)))
    found = spread(batch, torch.tensor([3, 1, 2, 5]), tokens)
    for name in ("ids", "weights", "segments"):
        assert found[name].tolist() == wanted[name].tolist(), name
    none = spread(batch, torch.zeros(4, dtype=torch.long), tokens)
    real = (batch["segments"] >= 0) & (batch["ids"] != SPEECH)
    assert none["ids"][none["segments"] >= 0].tolist() == batch["ids"][real].tolist(), "nothing was heard"
