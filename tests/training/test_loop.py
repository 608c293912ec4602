"""The supervised loop: it resumes where it stopped, freezes what it should, writes whole files only."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from duologue.model.errors import DuologueError
from duologue.training.loop import Batch, Task, freeze, load_parts, newest_state, save_parts, train
from duologue.training.recipe import Recipe


class Line(Task):
    """Learns y = 3 x with one layer; a second layer is there to be frozen."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.slope = nn.Linear(1, 1)
        self.other = nn.Linear(1, 1)
        self.dropout = nn.Dropout(0.2)  # so that resuming needs the random state too
        self.asked: list[int] = []

    def batch(self, step: int) -> Batch:
        self.asked.append(step)
        x = torch.randn(8, 1, generator=torch.Generator().manual_seed(step))
        return {"x": x, "y": 3 * x}

    def forward(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        loss = (self.slope(self.dropout(batch["x"])) - batch["y"]).square().mean()
        return loss, {"slope": self.slope.weight.detach().squeeze()}

    def parts(self) -> dict[str, nn.Module]:
        return {"slope": self.slope}


@dataclass(frozen=True, kw_only=True)
class LineRecipe(Recipe):
    """No fields of its own."""


@pytest.fixture
def recipe(tmp_path: Path) -> LineRecipe:
    return LineRecipe(stage="line", out=str(tmp_path / "run"), learn=("slope",), steps=40, warmup=1, lr=0.1, workers=0,
                      save_every=10, weight_decay=0.0)  # fmt: skip


class Stopped(Exception):
    pass


def test_a_stopped_run_goes_on_to_the_same_weights(recipe: LineRecipe, tmp_path: Path) -> None:
    whole = Line()
    train(recipe, whole, progress=False)

    class Stopping(Line):
        def batch(self, step: int) -> Batch:
            if step == 27:
                raise Stopped
            return super().batch(step)

    again = replace(recipe, out=str(tmp_path / "again"))
    with pytest.raises(Stopped):
        train(again, Stopping(), progress=False)
    resumed = Line()
    train(again, resumed, progress=False)
    assert resumed.asked[0] == 20, "the newest checkpoint is of step 20"
    assert torch.equal(resumed.slope.weight, whole.slope.weight)


def test_what_does_not_learn_does_not_move(recipe: LineRecipe) -> None:
    task = Line()
    before = task.other.weight.clone()
    start = task.slope.weight.clone()
    train(recipe, task, progress=False)
    assert torch.equal(task.other.weight, before)
    assert not torch.equal(task.slope.weight, start)
    assert [name for name, p in task.named_parameters() if p.requires_grad] == ["slope.weight", "slope.bias"]


def test_the_run_leaves_its_recipe_weights_figures_and_few_states(recipe: LineRecipe) -> None:
    train(recipe, Line(), progress=False)
    out = Path(recipe.out)
    names = {path.name for path in out.iterdir() if not path.name.startswith("events")}
    assert names == {"recipe.json", "model.safetensors", "figures.jsonl", "state-00000030.pt", "state-00000040.pt"}
    rows = [json.loads(line) for line in (out / "figures.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [10, 20, 30, 40]
    assert 0 < rows[0]["slope"] < rows[-1]["slope"] < 3


def test_a_state_cut_short_is_passed_over(recipe: LineRecipe) -> None:
    train(recipe, Line(), progress=False)
    newest = Path(recipe.out) / "state-00000040.pt"
    newest.write_bytes(newest.read_bytes()[:100])
    state = newest_state(Path(recipe.out))
    assert state is not None and state["step"] == 30


def test_a_prefix_that_matches_nothing_is_named() -> None:
    with pytest.raises(DuologueError, match="learn prefix 'slop' matches no parameter"):
        freeze(Line(), ("slop",))


def test_parts_travel_by_name(tmp_path: Path) -> None:
    task = Line()
    save_parts(task, tmp_path)
    other = Line()
    nn.init.zeros_(other.slope.weight)
    load_parts({"slope": other.slope}, (f"slope={tmp_path}",))
    assert torch.equal(other.slope.weight, task.slope.weight)
    with pytest.raises(DuologueError, match="no part 'encoder'"):
        load_parts({"slope": other.slope}, (f"encoder={tmp_path}",))
    with pytest.raises(DuologueError, match="run the stage that makes it first"):
        load_parts({"slope": other.slope}, (f"slope={tmp_path / 'none'}",))
    with pytest.raises(DuologueError, match="do not fit"):
        load_parts({"slope": nn.Linear(2, 1)}, (f"slope={tmp_path}",))


def test_a_loss_that_is_not_finite_stops_the_run(recipe: LineRecipe) -> None:
    class Broken(Line):
        def forward(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
            return super().forward(batch)[0] * float("nan"), {}

    with pytest.raises(DuologueError, match="the loss of step 0 is nan"):
        train(recipe, Broken(), progress=False)
