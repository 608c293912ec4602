"""Question sets are reached by name: a bundled one, or a file of anybody's conversations."""

import json
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

from duologue.data_prep.datasets.question_sets import before_of, history_of, question_set
from duologue.data_prep.datasets.splits import Split, operand_split
from duologue.data_prep.nano.dialogues import generate
from duologue.data_prep.text.plain_text import plain
from duologue.model.errors import DuologueError


@pytest.fixture
def written(tmp_path: Path) -> str:
    """Twenty conversations of two turns, in ShareGPT's form."""
    turns = [
        [("human", f"What is {n}?"), ("gpt", f"It's {n}."), ("human", f"And {n + 100}?"), ("gpt", f"That's {n + 100}.")]
        for n in range(20)
    ]
    rows = [{"conversations": [{"from": who, "value": text} for who, text in turn]} for turn in turns]
    path = tmp_path / "mine.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def test_a_bundled_set_is_found_by_its_name() -> None:
    nano = question_set("nano")
    assert nano.dialogue(3, 4, "test", practice=0.5) == generate(3, 4, "test", practice=0.5)
    assert nano is question_set("nano") and nano.token_ids()["<pad>"] == 0


def test_written_questions_stay_as_they_are_and_keep_their_history(written: str) -> None:
    """Their words decide their split, so that no wording of a question is in two."""
    mine = question_set(written)
    for split in Split:
        drawn = [mine.dialogue(0, index, split) for index in range(50)]
        assert all(operand_split(plain(d.question)) is split for d in drawn)
        assert drawn == [mine.dialogue(0, index, split) for index in range(50)]
    later = [d for d in (mine.dialogue(0, i) for i in range(300)) if d.question == "And 103?"]
    assert {(d.history, d.before, d.answer) for d in later} == {
        ((("What is 3?", "It's 3."),), ("What is 3?", "It's 3."), "That's 103.")
    }
    asked = [d.question for d in mine.distinct(0, 8, "train")]
    assert len(set(asked)) == 8 and all(text.startswith(("What is ", "And 10", "And 11")) for text in asked)
    with pytest.raises(DuologueError, match=r"mine\.jsonl has only \d+ questions for dev: fewer than 8"):
        list(mine.distinct(0, 8, "dev"))


def test_statements_system_prompts_and_what_ends_a_conversation(tmp_path: Path) -> None:
    said = [{"text": f"Nice day {n}!", "respond": False} for n in range(40)]
    answered = [{"text": "你好？", "reply": "你好！"}, *said, {"text": "Und 😀?", "reply": "Ja."}]
    written = {"text": "Write", "reply": "Write", "instruction": "Transcribe."}
    turns = [*answered, written, {"text": "And then?", "reply": "No."}]
    path = tmp_path / "mine.jsonl"
    path.write_text(json.dumps({"system": "Sei nett.", "turns": turns}) + "\n")
    mine = question_set(str(path))
    drawn = set()
    for split in Split:
        with suppress(DuologueError):  # two questions are in two splits at most
            drawn |= {mine.dialogue(0, index, split) for index in range(9)}
    assert {(d.question, d.history, d.system) for d in drawn} == {
        ("你好？", (), "Sei nett."), ("Und 😀?", (("你好？", "你好！"),), "Sei nett.")
    }  # fmt: skip
    for split in Split:
        texts = {mine.aside(0, index, split) for index in range(50)}
        assert texts and all(turn_state == "noise" for _, turn_state in texts)
        assert all(operand_split(f"aside {plain(text)}") is split for text, _ in texts)
    path.write_text(json.dumps({"turns": [{"text": "Hello?"}]}))
    question_set.cache_clear()
    asked = question_set(str(path))
    assert asked.written() == [] and [each.question for each in asked.written(answered=False) or ()] == ["Hello?"]
    with pytest.raises(DuologueError, match=r"mine\.jsonl has no question with an answer in writing"):
        asked.dialogue(0, 0)


def test_clips_of_before_have_one_turn_of_history() -> None:
    assert history_of({"before": ["a", "b"]}) == [("a", "b")] and before_of({"before": None}) is None
    assert history_of({"history": [["a", "b"], ["c", "d"]]}) == [("a", "b"), ("c", "d")]
    assert before_of({"history": [["a", "b"], ["c", "d"]]}) == ("c", "d") and history_of({"text": "a"}) == []


def test_what_a_set_does_not_have_is_said(written: str, tmp_path: Path) -> None:
    mine, rng = question_set(written), np.random.default_rng(0)
    for ask in (
        lambda: mine.aside(0, 0, "train"), lambda: mine.drill(0, rng, 0.1), lambda: mine.token_ids(),
        lambda: mine.save_tokenizer(tmp_path), lambda: question_set("nobody"),
    ):  # fmt: skip
        with pytest.raises(DuologueError, match=r"mine\.jsonl|no such file or folder: nobody"):
            ask()
    assert mine.behind_another_turn("", "And 103?", rng) is None and mine.pauses_in("and three") == [1]
