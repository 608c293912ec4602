"""`prepare context`: what stands beside each clip, and what it does not betray."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from duologue.data_prep.datasets.conversations import read_conversations
from duologue.data_prep.prepare import main
from duologue.data_prep.text.context import with_context
from duologue.model.errors import DuologueError

COMMON = "please play the song"
NAMES = ("Evanescence", "Asiana", "Kraftwerk", "Zappa", "Björk", "O'Hara", "Coltrane", "Nirvana")
BEGIN = "Transcribe the speech."


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A turn for each name, "PLEASE play" in all, and a conversation of two turns."""
    turns = [{"turns": [{"text": f"{COMMON} by {name}."}]} for name in NAMES]
    turns.append({"id": "talk", "turns": [{"text": "Who is Zappa?", "reply": "A musician."}, {"text": f"{COMMON}!"}]})
    path = tmp_path / "in.jsonl"
    path.write_text("".join(json.dumps(each) + "\n" for each in turns))
    return path


def made(source: Path, *settings: str) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    out = source.with_name("out.jsonl")
    counts = main("context", [f"source={source}", f"out={out}", "rare=2", *settings])
    assert len(read_conversations(str(out))) == counts["clips"] == len(NAMES) + 2
    return [json.loads(line)["turns"][0] for line in out.read_text().splitlines()], counts


def listed(turn: dict[str, Any]) -> list[str]:
    assert turn["instruction"].startswith(f"{BEGIN} Context: ")
    return turn["instruction"].removeprefix(f"{BEGIN} Context: ").split(", ")


def test_lists_have_the_rare_words_of_the_text_among_others(source: Path) -> None:
    turns, counts = made(source, "without=0", "misleading=0", "history=0", "words=5")
    assert counts["words"] >= len(NAMES)
    places = Counter()
    for name, turn in zip(NAMES, turns, strict=False):
        words = listed(turn)
        assert name in words and len(words) == len(set(words)) <= 5 and not set(words) & set(COMMON.split())
        assert turn["reply"] == turn["text"]
        places[words.index(name)] += 1
    assert len(places) > 1, "the place in a list betrays nothing"


def test_a_misleading_list_has_no_word_of_the_text(source: Path) -> None:
    turns, counts = made(source, "without=0", "misleading=1", "history=0")
    assert counts["misleading"] == len(turns)
    for turn in turns:
        assert not set(listed(turn)) & set(turn["text"].strip(".?!").split())


def test_what_was_said_before_is_a_context_and_none_is_none(source: Path) -> None:
    turns, counts = made(source, "without=0", "history=1")
    assert counts["history"] == 1
    assert turns[-1]["instruction"] == f"{BEGIN} Context: Who is Zappa? A musician."
    turns, counts = made(source, "without=1")
    assert counts["none"] == len(turns) and {turn["instruction"] for turn in turns} == {BEGIN}


def test_the_source_may_have_contexts_of_its_own(tmp_path: Path) -> None:
    path = tmp_path / "in.tsv"
    path.write_text("text\tsummary\nplay Zappa\tmusic of the seventies\nplay it\t\n")
    out = tmp_path / "out.jsonl"
    assert main("context", [f"source={path}", f"out={out}", "field=summary", "without=0"])["own"] == 1
    assert f'"{BEGIN} Context: music of the seventies"' in out.read_text()


def test_mistakes_are_one_line(tmp_path: Path, source: Path) -> None:
    assert with_context(BEGIN, []) == with_context(BEGIN, " ") == BEGIN
    for words, message in ((["without=2"], "without=2.0: a fraction"), (["words=0"], "words"),
                           (["instruction="], "empty")):  # fmt: skip
        with pytest.raises(DuologueError, match=message):
            made(source, *words)
    silent = tmp_path / "silent.jsonl"
    silent.write_text('{"turns": [{"text": "?!"}]}\n')
    with pytest.raises(DuologueError, match="no turn with a text"):
        main("context", [f"source={silent}", f"out={tmp_path / 'out.jsonl'}"])
