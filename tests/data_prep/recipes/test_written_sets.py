"""Clips of anybody's question set: statements that need no answer, of conversations or lines; questions and replies."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from duologue.data_prep.datasets.live import LiveDataset
from duologue.data_prep.datasets.shards import ShardedDataset
from duologue.data_prep.prepare import main
from duologue.data_prep.speech.engines.espeak import espeak_command
from duologue.model.errors import DuologueError

SAID = [f"Es ist {n} Uhr, Frau Müller." for n in range(1, 25)]


@pytest.fixture
def statements(tmp_path: Path) -> dict[str, str]:
    """The same statements as a setting for conversations, and for lines."""
    rows = [{"turns": [{"text": text, "respond": False}]} for text in SAID]
    (tmp_path / "mine.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "lines.txt").write_text("\n\n".join(SAID), encoding="utf-8")
    return {"questions": f"questions={tmp_path / 'mine.jsonl'}", "lines": f"statements={tmp_path / 'lines.txt'}"}


def test_both_ways_give_the_same_clips(tmp_path: Path, statements: dict[str, str]) -> None:
    if espeak_command() is None:
        pytest.skip("espeak-ng and its library are not installed")
    found = {}
    for name, setting in statements.items():
        main("asides", [setting, f"out={tmp_path / name}", "n=4", "voices=espeak:de", "workers=1"])
        found[name] = ShardedDataset(tmp_path / name)
    for clip, same in zip(found["questions"], found["lines"], strict=True):
        assert clip.meta["text"] == same.meta["text"] and clip.meta["text"] in SAID
        assert clip.meta["verdict"] == same.meta["verdict"] == "noise" and "answer" not in clip.meta
        assert (clip.pcm == same.pcm).all() and "spoken" not in clip.meta  # its number is not read in English
    kept = {split: {meta["text"] for meta in LiveDataset(f"live:asides?n=60&split={split}&voices=espeak&"
                    f"{statements['lines']}").metas} for split in ("train", "test")}  # fmt: skip
    assert kept["train"] and kept["test"] and not kept["train"] & kept["test"]


def test_questions_of_a_file_are_said_as_they_are_written(tmp_path: Path) -> None:
    if espeak_command() is None:
        pytest.skip("espeak-ng and its library are not installed")
    turns = [{"text": "Who's there?", "reply": "It's me!"}, {"text": "And 2 more?", "reply": "Yes."}]
    file = tmp_path / "mine.jsonl"
    file.write_text("".join(json.dumps({"id": str(at), "system": "Hm.", "turns": turns}) + "\n" for at in range(2)))
    for part in ("questions", "replies"):
        setting = [f"questions={file}", f"out={tmp_path / part}", "drills=0", "n=6", "voices=espeak:en-us", "workers=1"]
        main(part, setting)
    for meta in ShardedDataset(tmp_path / "questions").metas:
        assert meta["system"] == "Hm." and meta["text"] == meta["question"] and "before" not in meta
        first = meta["text"] == "Who's there?"
        assert meta.get("spoken") == ("who is there" if first else "and two more")
        assert meta.get("history") == (None if first else [["Who's there?", "It's me!"]])
    assert {(meta["text"], meta.get("spoken")) for meta in ShardedDataset(tmp_path / "replies").metas} <= {
        ("It's me!", "it is me"), ("Yes.", "yes")
    }  # fmt: skip


def test_what_has_no_statements_says_so(tmp_path: Path) -> None:
    (tmp_path / "none.txt").write_text("\n \n")
    (tmp_path / "one.txt").write_text("Hello.\n")
    for file, complaint in (("none.txt", "is empty: expected statements"), ("no.txt", "no such file")):
        with pytest.raises(DuologueError, match=complaint):
            main("asides", [f"statements={tmp_path / file}", f"out={tmp_path / 'x'}", "voices=espeak"])
    live = [LiveDataset(f"live:asides?n=1&voices=espeak&split={split}&statements={tmp_path}/one.txt") for split in
            ("train", "dev", "test")]  # fmt: skip
    told = 0
    for data in live:
        try:
            assert data.metas[0]["text"] == "Hello."
        except DuologueError as error:
            told += "has no statement that needs no answer" in str(error)
    assert told == 2
