"""Sentences with names, and lists of them, right and wrong."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from duologue.data_prep.prepare import main
from duologue.data_prep.recipes.names import NAMES, SENTENCES
from duologue.inference.evaluation.inputs.questions import questions_of
from duologue.model.errors import DuologueError


def test_a_hundred_names_each_in_its_sentences(tmp_path: Path) -> None:
    text = "".join(f"the word{'abcdefghij'[at % 10]}{'abcdefghij'[at // 10]}word is rare\n" for at in range(100))
    (tmp_path / "text.txt").write_text(text + "please call the office")
    assert main("names", [f"out={tmp_path / 'out'}", f"others={tmp_path / 'text.txt'}", "each=30"])["sentences"] == 3000
    asked = [dialogue.question for dialogue in questions_of(tmp_path / "out/sentences.jsonl", 0, 10**6)]
    assert len(set(asked)) == 3000, "no sentence is there twice"
    for name in (names := NAMES["test"].split()):
        assert sum(f" {name} " in f" {text.strip('.?')} ".replace("?", " ") for text in asked) == 30
    assert (tmp_path / "out/names.txt").read_text().split() == names and len(set(names)) == 100
    others = (tmp_path / "out/others.txt").read_text().split()
    assert len(others) == 101 and "office" in others and "please" not in others, "a sentence has it"
    assert len(NAMES["dev"].split()) == 100 and not set(names) & set(NAMES["dev"].split())
    assert len(SENTENCES) == 30 and all(sentence.count("{}") == 1 for sentence in SENTENCES)


def test_ones_own_names(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("Olly # short\nAsiana Airlines\n\n")
    out = tmp_path / "out"
    main("names", [f"out={out}", f"names={tmp_path / 'mine.txt'}", "each=2"])
    lines = [json.loads(line)["turns"][0]["text"] for line in (out / "sentences.jsonl").read_text().splitlines()]
    assert len(lines) == 4 and sum("Asiana Airlines" in line for line in lines) == 2
    assert not (out / "others.txt").exists()
    (tmp_path / "text.txt").write_text("add olly to my list")
    for settings, message in (
        ([f"avoid={tmp_path / 'text.txt'}"], r"text\.txt has 1 of the names: Olly"), (["each=31"], "expected 1 to 30"),
        (["split=train"], "expected test or dev"),
    ):  # fmt: skip
        with pytest.raises(DuologueError, match=message):
            main("names", [f"out={out}", f"names={tmp_path / 'mine.txt'}", *settings])
    (tmp_path / "none.txt").write_text("# none\n")
    with pytest.raises(DuologueError, match="has no names: write one a line"):
        main("names", [f"out={out}", f"names={tmp_path / 'none.txt'}"])
