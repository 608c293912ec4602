"""Recipe reward: it learns which of two answers is better, and rates answers it has not seen."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from any_model import tiny_llm

from duologue.model.errors import DuologueError
from duologue.training.main import resolve, run
from duologue.training.preference.reward_model import bradley_terry, head, load_reward, rewards_of

TINY = ["preset=tiny", "held_out=0", "batch_size=4"]


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The polite answer is the better one, wherever it stands in."""
    file = tmp_path_factory.mktemp("pairs") / "pairs.jsonl"
    rows = [
        {"turns": [{"text": "hello", "reply": "hello"},
                   {"text": f"what is {n} plus two", "reply": f"it is {n} please", "rejected": [f"it is {n}", "no"]}]}
        for n in ("one", "two", "three", "four", "five", "six")
    ]  # fmt: skip
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(file)


def test_the_loss_is_bradley_and_terrys() -> None:
    rewards = torch.tensor([[1.0, -1.0], [0.0, 0.0], [-2.0, 1.0]])
    wanted = -torch.log(1 / (1 + torch.exp(-(rewards[:, 0] - rewards[:, 1]))))
    assert torch.allclose(bradley_terry(rewards), wanted)
    assert torch.allclose(bradley_terry(rewards, 0.5) - wanted, torch.tensor([0.0, 0.0, 0.5]), atol=1e-6)


def test_each_row_is_rated_at_its_end() -> None:
    segments = torch.tensor([[0, 0, 0, 1, 1], [2, 2, 3, -1, -1]])
    hidden = torch.arange(10.0).reshape(2, 5, 1)
    layer = torch.nn.Linear(1, 1)
    torch.nn.init.ones_(layer.weight), torch.nn.init.zeros_(layer.bias)
    assert rewards_of(hidden, segments, layer).tolist() == [2, 4, 6, 7]


@pytest.mark.parametrize("own", [True, False])
def test_it_rates_answers_that_it_has_not_seen(own: bool, pairs: str, tmp_path: Path) -> None:
    words = [*TINY, f"data={pairs}", f"out={tmp_path / 'run'}", "steps=20", "save_every=20", "lr=1e-2", "warmup=1"]
    words += [] if own else [f"llm={tiny_llm(tmp_path, initializer_range=0.2)}", "lora=4"]
    metrics = run("reward", words)
    assert metrics["told_apart"] == 1 and metrics["loss"] < 0.4
    reward = load_reward(str(tmp_path / "run"))
    asked = {"text": "what is seven plus two", "history": [["hello", "hello"]]}
    polite, plain = (reward({**asked, "answer": answer}) for answer in ("it is seven please", "it is seven"))
    assert polite > plain + 0.3
    task: Any = resolve("reward", [word for word in words if not word.startswith("out=")]).build()
    batch = task.batch(0)
    task.llm.eval()
    assert task.rated(batch).abs().max() == 0, "before anything is learnt all are alike"
    assert head(task.llm)(torch.randn(2, task.llm.hidden_size)).tolist() == [[0], [0]]


def test_held_out_pairs_are_measured(pairs: str, tmp_path: Path) -> None:
    metrics = run("reward", [*TINY, f"data={pairs}", f"out={tmp_path}", "held_out=0.4", "steps=1", "save_every=1"])
    assert 0 <= metrics["held_out_told_apart"] <= 1 and metrics["held_out_loss"] == pytest.approx(0.69, abs=0.3)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["held_out=1"], r"all pairs of .*pairs.jsonl are held out: give held_out=0, or more pairs"),
        (["data={plain}"], r"no turn in .* has 'rejected'"),
        (["row_tokens=0"], r"row_tokens is 0; it must be at least 1"),
    ],
)
def test_what_is_refused(words: list[str], message: str, pairs: str, tmp_path: Path) -> None:
    plain = tmp_path / "plain.jsonl"
    plain.write_text('{"turns": [{"text": "hello", "reply": "hello"}]}\n')
    with pytest.raises(DuologueError, match=message):
        resolve("reward", [*TINY, f"data={pairs}", *(word.format(plain=plain) for word in words)]).build()
    with pytest.raises(DuologueError, match="is no run of recipe reward"):
        load_reward(str(tmp_path))
