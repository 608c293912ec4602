"""Question sets are reached by name: a bundled one, or a file of anybody's conversations."""

import json
from pathlib import Path

import numpy as np
import pytest

from duologue.data_prep.datasets.question_sets import question_set
from duologue.data_prep.datasets.splits import Split, operand_split
from duologue.data_prep.nano.dialogues import generate
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


def test_written_questions_can_be_said_and_keep_their_history(written: str) -> None:
    mine = question_set(written)
    for split in Split:
        drawn = [mine.dialogue(0, index, split) for index in range(50)]
        assert all(operand_split(d.question) is split for d in drawn)
        assert drawn == [mine.dialogue(0, index, split) for index in range(50)]
    later = {d.before for d in (mine.dialogue(0, i) for i in range(300)) if d.question == "and one hundred three"}
    assert later <= {("what is three", "it is three")}
    asked = [d.question for d in mine.distinct(0, 8, "train")]
    assert len(set(asked)) == 8 and all(text.startswith(("what is ", "and one hundred")) for text in asked)
    with pytest.raises(DuologueError, match=r"mine\.jsonl has only \d+ questions for dev: fewer than 8"):
        list(mine.distinct(0, 8, "dev"))


def test_what_a_set_does_not_have_is_said(written: str, tmp_path: Path) -> None:
    mine, rng = question_set(written), np.random.default_rng(0)
    for ask in (
        lambda: mine.aside(0, 0, "train"), lambda: mine.drill(0, rng, 0.1), lambda: mine.token_ids(),
        lambda: mine.save_tokenizer(tmp_path), lambda: question_set("nobody"),
    ):  # fmt: skip
        with pytest.raises(DuologueError, match=r"mine\.jsonl|no such file: nobody"):
            ask()
    assert mine.behind_another_turn("", "And 103?", rng) is None and mine.pauses_in("and three") == [1]
