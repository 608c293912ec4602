"""The supervised loop: it resumes where it stopped, freezes what it should, writes whole files only."""

from __future__ import annotations

import itertools
import json
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from duologue.model.errors import DuologueError
from duologue.training.loop.optimiser import Float32Muon
from duologue.training.loop.parts import load_parts, save_parts
from duologue.training.loop.run_folder import newest_state
from duologue.training.loop.task import Batch, Task, freeze
from duologue.training.loop.trainer import train
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

    def batch(self, number: int) -> Batch:
        self.asked.append(number)
        x = torch.randn(8, 1, generator=torch.Generator().manual_seed(number))
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
        def batch(self, number: int) -> Batch:
            if number == 27:
                raise Stopped
            return super().batch(number)

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
    save_parts(task.parts(), tmp_path / "model.safetensors")
    other = Line()
    nn.init.zeros_(other.slope.weight)
    load_parts({"slope": other.slope}, (f"slope={tmp_path}",))
    assert torch.equal(other.slope.weight, task.slope.weight)
    with pytest.raises(DuologueError, match="no part 'encoder'"):
        load_parts({"slope": other.slope}, (f"encoder={tmp_path}",))
    with pytest.raises(DuologueError, match="do not fit"):
        load_parts({"vocoder": other.slope}, ("vocoder=nano",))  # a bundled model is found by its name
    with pytest.raises(DuologueError, match="run the stage that makes it first"):
        load_parts({"slope": other.slope}, (f"slope={tmp_path / 'none'}",))
    with pytest.raises(DuologueError, match="do not fit"):
        load_parts({"slope": nn.Linear(2, 1)}, (f"slope={tmp_path}",))


def test_a_mean_of_runs_is_the_mean_of_their_weights(tmp_path: Path) -> None:
    slopes = {"a": 1.0, "b": 5.0, "odd+one": 7.0}
    for name, slope in slopes.items():
        line = Line()
        nn.init.constant_(line.slope.weight, slope)
        (tmp_path / name).mkdir()
        save_parts(line.parts(), tmp_path / name / "model.safetensors")
    a, b, odd = (tmp_path / name for name in slopes)
    for source, mean in ((f"{a}+{b}", 3.0), (f"0.25*{a}+0.75*{b}", 4.0), (f"{odd}", 7.0), (f"{a}+{a}+{b}", 7 / 3)):
        line = Line()
        load_parts({"slope": line.slope}, (f"slope={source}",))
        assert line.slope.weight.item() == pytest.approx(mean), source
    for source in (f"0.5*{a}+{b}", f"0.5*{a}+0.6*{b}", f"half*{a}+half*{b}"):
        with pytest.raises(DuologueError, match="a mean is A"):
            load_parts({"slope": Line().slope}, (f"slope={source}",))
    with pytest.raises(DuologueError, match="run the stage that makes it first"):
        load_parts({"slope": Line().slope}, (f"slope={a}+{tmp_path / 'none'}",))
    (tmp_path / "wide").mkdir()
    save_parts({"slope": nn.Linear(2, 1, bias=False)}, tmp_path / "wide" / "model.safetensors")
    with pytest.raises(DuologueError, match="do not fit: a mean wants"):  # it would broadcast
        load_parts({"slope": Line().slope}, (f"slope={a}+{tmp_path / 'wide'}",))


class Faulty(Line):
    """Some of its batches have a loss, or a gradient, that is not finite."""

    def __init__(self, losses: set[int], gradients: set[int]) -> None:
        super().__init__()
        self.losses, self.gradients = losses, gradients

    def batch(self, number: int) -> Batch:
        return super().batch(number) | {"number": number}

    def forward(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        loss, shown = super().forward(batch)
        if batch["number"] in self.losses:
            loss = loss * float("nan")
        if batch["number"] in self.gradients:
            loss = loss + 0 * (self.slope.weight * 0).sqrt().sum()  # finite, with an infinite derivative
        return loss, shown


def test_steps_that_are_not_finite_are_left_out(recipe: LineRecipe) -> None:
    """They leave weights and optimiser as they were, and are counted; without them the run is the same."""
    faulty, skipping = Faulty({3}, {7, 8}), Line()
    metrics = train(recipe, faulty, progress=False)
    assert metrics["left_out"] == 3 and torch.isfinite(faulty.slope.weight).all()
    # The same by hand: a plain optimiser that never sees those batches.
    torch.manual_seed(recipe.seed)
    optimiser = torch.optim.AdamW(skipping.slope.parameters(), betas=recipe.betas, weight_decay=0.0)
    for step in range(recipe.steps):
        loss, _ = skipping(skipping.batch(step))
        if step in (3, 7, 8):
            continue
        optimiser.param_groups[0]["lr"] = recipe.lr_at(step)
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(skipping.slope.parameters(), recipe.clip)
        optimiser.step()
    assert torch.equal(faulty.slope.weight, skipping.slope.weight)


@pytest.mark.parametrize("bad", [4, 5])
def test_a_step_of_several_batches_is_left_out_whole(recipe: LineRecipe, bad: int) -> None:
    """Whichever of step 2's two batches is bad: that step moves nothing, all others move the weights."""
    task = Faulty({bad}, set())
    seen = []
    forward = task.forward
    task.forward = lambda batch: (seen.append((batch["number"], task.slope.weight.item())), forward(batch))[1]
    train(replace(recipe, accumulate=2, steps=8), task, progress=False)
    assert [number for number, _ in seen] == list(range(16))
    weights = [weight for number, weight in seen if number % 2 == 0] + [task.slope.weight.item()]
    moved = [a != b for a, b in itertools.pairwise(weights)]
    assert moved == [True, True, False, True, True, True, True, True]


@pytest.mark.parametrize("kind", ["loss", "gradient"])
def test_too_many_of_them_stop_the_run(recipe: LineRecipe, kind: str) -> None:
    every = set(range(recipe.steps))
    task = Faulty(every, set()) if kind == "loss" else Faulty(set(), every)
    with pytest.raises(DuologueError, match=f"the {kind} of step 5 is nan; 6 of the last 100 steps were left out"):
        train(recipe, task, progress=False)


def test_accumulated_batches_are_one_larger_batch(recipe: LineRecipe, tmp_path: Path) -> None:
    class Plain(Line):
        def __init__(self, joined: int) -> None:
            super().__init__()
            self.dropout = nn.Identity()
            self.joined = joined

        def batch(self, number: int) -> Batch:
            parts = [super(Plain, self).batch(number * self.joined + i) for i in range(self.joined)]
            return {key: torch.cat([part[key] for part in parts]) for key in parts[0]}

    small, large = Plain(1), Plain(4)
    train(replace(recipe, accumulate=4), small, progress=False)
    train(replace(recipe, out=str(tmp_path / "large")), large, progress=False)
    assert torch.allclose(small.slope.weight, large.slope.weight, atol=1e-6)
    assert max(small.asked) == 4 * recipe.steps - 1


def test_the_average_is_what_is_measured_and_handed_on(recipe: LineRecipe, tmp_path: Path) -> None:
    """Evaluation and model.safetensors see the average; training and resuming go on with the weights."""
    from safetensors.torch import load_file

    class Watched(Line):
        def evaluate(self) -> dict[str, float]:
            return {"measured": float(self.slope.weight.detach())}

    plain, averaged, resumed = Line(), Watched(), Watched()
    train(recipe, plain, progress=False)
    with_ema = replace(recipe, ema=0.9, out=str(tmp_path / "ema"))
    metrics = train(with_ema, averaged, progress=False)
    assert torch.equal(plain.slope.weight, averaged.slope.weight)
    stored = load_file(tmp_path / "ema" / "model.safetensors")["slope.weight"]
    assert metrics["measured"] == float(stored) != plain.slope.weight.item()
    constant = replace(with_ema, schedule="constant", out=str(tmp_path / "c"))
    whole = Watched()
    train(constant, whole, progress=False)
    cut = replace(constant, out=str(tmp_path / "d"))
    train(replace(cut, steps=20), Watched(), progress=False)
    train(cut, resumed, progress=False)
    a, b = (load_file(tmp_path / name / "model.safetensors") for name in "cd")
    assert torch.equal(a["slope.weight"], b["slope.weight"])


def test_the_best_weights_are_kept(recipe: LineRecipe) -> None:
    from safetensors.torch import load_file

    class Rated(Line):
        def __init__(self) -> None:
            super().__init__()
            self.ratings, self.seen = iter([3.0, 1.0, 2.0, 4.0]), []

        def evaluate(self) -> dict[str, float]:
            self.seen.append(self.slope.weight.detach().clone())
            return {"rating": next(self.ratings)}

    task = Rated()
    train(replace(recipe, best="min:rating"), task, progress=False)
    assert torch.equal(load_file(Path(recipe.out) / "best.safetensors")["slope.weight"], task.seen[1])


def test_a_best_figure_that_is_not_measured_is_named(recipe: LineRecipe) -> None:
    with pytest.raises(DuologueError, match="best is 'min:wer', but this run measures: step, time, loss"):
        train(replace(recipe, best="min:wer"), Line(), progress=False)


def test_figures_after_the_checkpoint_are_taken_back(recipe: LineRecipe) -> None:
    train(recipe, Line(), progress=False)
    (Path(recipe.out) / "state-00000040.pt").unlink()
    with (Path(recipe.out) / "figures.jsonl").open("a") as file:
        file.write('{"step": 5')  # a line that a crash cut short
    train(recipe, Line(), progress=False)
    rows = [json.loads(line) for line in (Path(recipe.out) / "figures.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [10, 20, 30, 40]


def test_a_full_disk_loses_nothing(recipe: LineRecipe, monkeypatch: pytest.MonkeyPatch) -> None:
    """No more checkpoints fit: the run goes on and fails at its end; the earlier ones whole, nothing half-written."""
    import resource
    import signal

    train(replace(recipe, steps=20), Line(), progress=False)
    before = {path.name: path.read_bytes() for path in Path(recipe.out).glob("state-*")}
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, hard))
    try:
        with pytest.raises(DuologueError, match=r"cannot write .*-00000040\.pt.* whole .*-00000020\.pt of step 20"):
            train(recipe, Line(), progress=False)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, ignored)
    names = {path.name for path in Path(recipe.out).iterdir() if not path.name.startswith("events")}
    assert names == {"recipe.json", "model.safetensors", "figures.jsonl", *before}
    assert all((Path(recipe.out) / name).read_bytes() == data for name, data in before.items())
    train(recipe, Line(), progress=False)
    assert newest_state(Path(recipe.out))["step"] == 40


def test_another_way_of_training_is_refused(recipe: LineRecipe) -> None:
    train(replace(recipe, steps=10), Line(), progress=False)
    with pytest.raises(DuologueError, match="was trained with learn=slope optimiser=adamw; go on with the same"):
        train(replace(recipe, optimiser="muon"), Line(), progress=False)


def test_tied_weights_stand_once_in_a_checkpoint(tmp_path: Path) -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed, self.out = nn.Embedding(4, 3), nn.Linear(3, 4, bias=False)
            self.out.weight = self.embed.weight

    from safetensors.torch import save_file

    weight = torch.randn(4, 3)
    save_file({"llm.out.weight": weight}, tmp_path / "model.safetensors")
    module = Tied()
    load_parts({"llm": module}, (f"llm={tmp_path}",))
    assert torch.equal(module.embed.weight, weight)


class Matrices(Task):
    """A layer that Muon is for, and an embedding, a head and biases that it is not for."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embedding = nn.Embedding(6, 8)
        self.inner = nn.Linear(8, 8)
        self.head = nn.Linear(8, 6)

    def batch(self, number: int) -> Batch:
        ids = torch.randint(6, (16,), generator=torch.Generator().manual_seed(number))
        return {"ids": ids, "next": (ids + 1) % 6}

    def forward(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        logits = self.head(self.inner(self.embedding(batch["ids"])).tanh())
        return nn.functional.cross_entropy(logits, batch["next"]), {}

    def parts(self) -> dict[str, nn.Module]:
        return {"inner": self.inner}


def test_muon_in_float32_takes_the_steps_of_pytorchs() -> None:
    """Wide, tall and square matrices, with momentum and decay; the state is of the same form."""
    shapes, generator = ((6, 10), (10, 6), (8, 8)), torch.Generator().manual_seed(0)
    ours, theirs = ([torch.nn.Parameter(torch.ones(shape)) for shape in shapes] for _ in range(2))
    optimisers = [
        kind(parameters, lr=0.05, weight_decay=0.1, adjust_lr_fn="match_rms_adamw")
        for kind, parameters in ((Float32Muon, ours), (torch.optim.Muon, theirs))
    ]
    for _ in range(3):
        for a, b in zip(ours, theirs, strict=True):
            a.grad = torch.randn(a.shape, generator=generator)
            b.grad = a.grad.clone()
        for optimiser in optimisers:
            optimiser.step()
    for a, b in zip(ours, theirs, strict=True):
        moved = (b - 1).norm()
        assert moved > 0.1 and (a - b).norm() < 0.04 * moved  # bfloat16 has 8 bits
    assert optimisers[0].state_dict()["state"].keys() == optimisers[1].state_dict()["state"].keys()
    optimisers[0].load_state_dict(optimisers[1].state_dict())


def test_muon_steps_are_orthogonal_and_resume(recipe: LineRecipe, tmp_path: Path) -> None:
    """A step of Muon moves the inner matrix by the same amount in every direction; a stopped run goes on exactly."""
    recipe = replace(recipe, learn=("embedding", "inner", "head"), optimiser="muon", schedule="constant", lr=0.02)
    spread = {}
    for kind in ("muon", "adamw"):
        task = Matrices()
        before = task.inner.weight.detach().clone()
        train(replace(recipe, optimiser=kind, steps=1, out=str(tmp_path / kind)), task, progress=False)
        values = torch.linalg.svdvals((task.inner.weight.detach() - before).double())
        spread[kind] = float(values[0] / values[4])  # six words: a gradient of rank five
    assert spread["muon"] < 2 < spread["adamw"]
    whole, resumed = Matrices(), Matrices()
    assert train(recipe, whole, progress=False)["loss"] < 0.5  # of 1.8
    cut = replace(recipe, out=str(tmp_path / "cut"))
    train(replace(cut, steps=20), Matrices(), progress=False)
    train(cut, resumed, progress=False)
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), resumed.parameters(), strict=True))
