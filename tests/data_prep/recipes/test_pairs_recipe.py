"""Bad answers beside good ones: of each kind, as long as the good ones, and never right."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from duologue.data_prep.datasets.conversations import WrittenConversation, read_conversations
from duologue.data_prep.prepare import main
from duologue.data_prep.recipes.pairs import repetition
from duologue.data_prep.text.spoken import contains_slot
from duologue.model.errors import DuologueError

CITIES = {"France": "Paris", "Italy": "Rome", "Spain": "Madrid"}
TURNS: list[dict[str, Any]] = [
    *({"text": f"And of {land}?", "reply": f"The capital of {land} is {city}.", "slot": city, "audio": "q.wav"}
      for land, city in CITIES.items()),
    {"text": "Who are you?", "reply": "Nano, who can count."},
    {"text": "Thank you!", "reply": "You are very welcome."},
    {"text": "What is 3 plus 4?", "reply": "3 plus 4 is seven.", "slot": "seven"},
    {"text": "It is late.", "respond": False},
]  # fmt: skip


def made(tmp_path: Path, *settings: str) -> tuple[dict[str, Any], list[WrittenConversation]]:
    source = tmp_path / "mine" / "chat.jsonl"
    source.parent.mkdir(exist_ok=True)
    rows = [{"id": f"c{at}", "system": "Be brief.", "turns": [turn]} for at, turn in enumerate(TURNS[1:])]
    rows.append({"id": "long", "turns": [TURNS[0], {"text": "Hm."}, TURNS[1]]})
    source.write_text("".join(json.dumps(row) + "\n" for row in rows))
    out = tmp_path / "pairs.jsonl"
    return main("pairs", [f"source={source}", f"out={out}", *settings]), read_conversations(out)


def rejected(found: list[WrittenConversation]) -> list[tuple[str, str, str]]:
    """(question, reply, rejected answer)."""
    return [(turn.text, turn.reply, bad) for one in found for turn in one.turns for bad in turn.rejected]


def test_bad_answers_are_as_long_and_never_right(tmp_path: Path) -> None:
    counts, found = made(tmp_path)
    assert counts == {"conversations": 6, "repetition": 7, "facts": 7}
    for _, reply, bad in rejected(found):
        assert len(bad.split()) == len(reply.split()) and bad != reply
    assert [len(one.turns) for one in found] == [1, 1, 1, 1, 1, 3] and found[0].system == "Be brief."
    assert {turn.audio for one in found for turn in one.turns if "France" in turn.text} == {"mine/q.wav"}
    again = rejected(made(tmp_path)[1])
    assert again == rejected(found) != rejected(made(tmp_path, "seed=1")[1])


def test_a_wrong_fact_is_of_the_same_kind(tmp_path: Path) -> None:
    _, found = made(tmp_path, "kinds=facts")
    for question, reply, bad in rejected(found):
        land = question.removeprefix("And of ").removesuffix("?")
        if land in CITIES:
            others = set(CITIES.values()) - {CITIES[land]}
            assert bad in {f"The capital of {land} is {city}." for city in others}, (reply, bad)
        if "plus" in question:
            assert not contains_slot(bad, "seven")


def test_repetitions_begin_well_and_then_go_round() -> None:
    reply = "one two three four five six seven"
    seen = {repetition(reply, np.random.default_rng(seed)) for seed in range(40)}
    assert len(seen) > 5 and repetition("too short here", np.random.default_rng(0)) is None
    for bad in seen:
        words = bad.split()
        assert len(words) == 7 and words[0] == "one" and len(set(words)) < 7
        assert any(words[at : at + width] == words[at + width : at + 2 * width]
                   for width in (1, 2) for at in range(7 - 2 * width + 1)), bad  # fmt: skip


def test_others_are_not_the_assistant(tmp_path: Path) -> None:
    settings = ("kinds=identity", "identity=nano,a model", "others=Big Bert,Siri")
    counts, found = made(tmp_path, *settings)
    assert counts == {"conversations": 1, "identity": 1}
    assert rejected(found) == [("Who are you?", "Nano, who can count.", "Siri, who can count.")]


@pytest.mark.parametrize("own", [True, False])
def test_what_asks_nothing_is_not_answered(tmp_path: Path, own: bool) -> None:
    said = tmp_path / "said.txt.jsonl"
    said.write_text(json.dumps({"turns": [{"text": "We had soup.", "respond": False}, {"audio": "cough.wav"}]}) + "\n")
    counts, found = made(tmp_path, "kinds=noise", "unclear=Pardon? Say that again, please do.",
                         *([] if own else [f"statements={said}"]))  # fmt: skip
    assert counts["noise"] == len(found) == (1 if own else 2)
    turns = [one.turns[0] for one in found]
    assert [turn.text for turn in turns] == (["It is late."] if own else ["We had soup.", None])
    assert all(turn.reply.startswith("Pardon?") and turn.respond and len(turn.rejected) == 1 for turn in turns)
    assert all(len(turn.rejected[0].split()) == 6 for turn in turns)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["kinds=rude"], "kinds has 'rude'; expected some of repetition, facts, identity, noise"),
        (["kinds=identity"], "kinds=identity needs identity= and others="),
        (["kinds=noise"], "kinds=noise needs unclear="),
        (["statements=x.jsonl"], "statements=x.jsonl needs unclear="),
        (["kinds=identity", "identity=Zoe", "others=Max"], "none of its replies gives a bad answer"),
        (["source=nowhere.jsonl"], "no such file or folder: nowhere.jsonl"),
    ],
)
def test_mistakes_are_one_line(tmp_path: Path, settings: list[str], message: str) -> None:
    with pytest.raises(DuologueError, match=message):
        made(tmp_path, *settings)
    assert not (tmp_path / "pairs.jsonl").exists()
