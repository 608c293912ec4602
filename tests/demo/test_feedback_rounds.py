"""`duologue feedback`: rounds of answers, rewards and training, and conversations with a simulated user."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tiny_assistant import tiny_assistant

from duologue.checkpoints import store
from duologue.checkpoints.files import read_json_lines
from duologue.checkpoints.settings import read_settings
from duologue.demo.feedback import rounds, talks
from duologue.model.errors import DuologueError
from duologue.training.main import run as train

DPO = ["preset=tiny", "steps=2", "save_every=2", "held_out=0", "lr=1e-5", "warmup=1"]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Its greedy answer has five words; sampled, it wanders off now and then and does not come to an end."""
    assistant = tiny_assistant()
    return str(store.save(tmp_path_factory.mktemp("models") / "wandering", assistant.model, assistant.tokenizer))


def config(model: str, out: Path, *more: str) -> rounds.Config:
    words = [f"out={out}", f"model={model}", "n=10", "held_out=6", "reward=brief", "measure=right,fresh", "words=5",
             "max_tokens=12", "margin=0.3", "temperature=0.6", *more]  # fmt: skip
    return read_settings(rounds.Config, words, "feedback rounds")


def test_rounds_go_on_where_they_stopped(model: str, tmp_path: Path, monkeypatch: Any) -> None:
    trained: list[list[str]] = []

    def learn(words: list[str]) -> None:
        trained.append(words)
        train("dpo", [*DPO, *words])

    said: list[str] = []
    first = rounds.run(config(model, tmp_path / "out"), learn, said.append)
    (one,) = first["rounds"]
    pairs = read_json_lines(tmp_path / "out/round-1/pairs.jsonl")
    assert 0 < one["pairs"] == len(pairs) <= one["questions"] == 10
    scores = {row["text"]: row["total"] for row in read_json_lines(tmp_path / "out/round-1/scores.jsonl")}
    turns = [pair["turns"][-1] for pair in pairs]
    assert all(scores[turn["reply"]] - scores[turn["rejected"][0]] >= 0.3 for turn in turns)
    assert one["measures"].keys() == {"fresh", "right", "brief", "reward"} and len(said) == 5
    assert one["measures"]["reward"]["questions"] == 6
    second = rounds.run(config(model, tmp_path / "out", "rounds=2"), learn, said.append)
    assert second["rounds"][0] == one and len(second["rounds"]) == 2
    assert len(trained) == 2, "the first is not trained again"
    assert trained[1][0] == f"llm={tmp_path / 'out/round-1/dpo'}"
    other = read_json_lines(tmp_path / "out/round-2/scores.jsonl")
    assert {row["text"] for row in other} != set(scores), "other questions, another model"
    with pytest.raises(DuologueError, match=r"out has rounds of reward=brief, not fresh: go on with the same settings"):
        rounds.run(config(model, tmp_path / "out", "rounds=2", "reward=fresh"), learn, said.append)
    monkeypatch.setattr(rounds, "load", lambda *_: pytest.fail("what is there is made again"))
    assert rounds.run(config(model, tmp_path / "out", "rounds=2"), learn, said.append) == second


def test_pairs_alone(model: str, tmp_path: Path) -> None:
    alone = config(model, tmp_path, "train=false", "rounds=3", "held_out=0")
    report = rounds.run(alone, pytest.fail, lambda line: None)
    assert len(report["rounds"]) == 1 and (tmp_path / "round-1/pairs.jsonl").is_file()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["reward=judge"], r"reward judge needs judge.url= and judge.model="),
        (["measure=model"], r"reward model needs reward_model=RUN"),
        (["samples=1"], r"samples is 1; it must be at least 2"),
        (["temperature=0"], r"temperature is 0.* must be above 0"),
        (["reward=kind"], r"'kind' is no reward"),
        (["margin=5"], r"no two answers to one of 2 questions differ by margin=5.0 in brief: ask more questions"),
        (["reward=model", "reward_model={model}"], r"reward_model=.* is no run of recipe reward"),
        (["questions={few}"], r"few.jsonl has no question in the split dev: give held_out=0, or a larger set"),
    ],
)
def test_what_is_refused(words: list[str], message: str, model: str, tmp_path: Path) -> None:
    (tmp_path / "few.jsonl").write_text(json.dumps({"turns": [{"text": "who are you", "reply": "nano"}]}) + "\n")
    given = [word.format(model=model, few=tmp_path / "few.jsonl") for word in words]
    with pytest.raises(DuologueError, match=message):
        rounds.run(config(model, tmp_path / "out", "n=2", "held_out=1", *given), pytest.fail, lambda line: None)


def test_talks_are_a_file_of_conversations(model: str, tmp_path: Path) -> None:
    (tmp_path / "openings.txt").write_text("what is two plus two\nhello\n\nhello\nwho are you\n")
    words = [f"out={tmp_path / 'talks.jsonl'}", f"model={model}", f"openings={tmp_path / 'openings.txt'}", "turns=3",
             "max_tokens=10", "keep.language=none", "keep.repetition=1", "keep.min_turns=1", "keep.min_words=0",
             "temperature=2"]  # fmt: skip
    counts = talks.run(read_settings(talks.Config, words, "feedback talks"), lambda line: None)
    rows = read_json_lines(tmp_path / "talks.jsonl")
    assert counts["conversations"] == len(rows) == 3
    assert [row["turns"][0]["text"] for row in rows] == ["what is two plus two", "hello", "who are you"]
    with pytest.raises(DuologueError, match=r"no conversation can be kept, the first because it has"):
        talks.run(read_settings(talks.Config, [*words, "keep.min_turns=9"], "feedback talks"), lambda line: None)
    with pytest.raises(DuologueError, match="is an endpoint: give user_model=NAME"):
        read_settings(talks.Config, [*words, "user=http://localhost:1/v1"], "feedback talks")
