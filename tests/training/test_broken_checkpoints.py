"""Checkpoints that cannot be read, and saves that fail: a run deletes nothing of use, and goes on where it can."""

from __future__ import annotations

import json
import multiprocessing
import resource
import shutil
import signal
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn

from duologue.model.errors import DuologueError
from duologue.training.loop import parts, run_folder
from duologue.training.loop.parts import load_parts
from duologue.training.loop.task import Batch, Task
from duologue.training.loop.trainer import train
from duologue.training.recipe import Recipe

HARD = resource.getrlimit(resource.RLIMIT_FSIZE)[1]


class Line(Task):
    """Learns y = 3 x; beside it a layer whose states are larger than anything else that is written."""

    def __init__(self, width: int = 100, at: dict[int, Callable[[], None]] | None = None) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.slope, self.wide = nn.Linear(1, 1), nn.Linear(width, width)
        self.at = at or {}

    def batch(self, number: int) -> Batch:
        if number in self.at:
            self.at[number]()
        x = torch.randn(8, 1, generator=torch.Generator().manual_seed(number))
        return {"x": x, "y": 3 * x}

    def forward(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        return (self.slope(batch["x"]) - batch["y"]).square().mean(), {}

    def parts(self) -> dict[str, nn.Module]:
        return {"slope": self.slope}


@dataclass(frozen=True, kw_only=True)
class LineRecipe(Recipe):
    """No fields of its own."""


@pytest.fixture
def recipe(tmp_path: Path) -> LineRecipe:
    return LineRecipe(stage="line", out=str(tmp_path / "run"), learn=("slope",), steps=30, warmup=1, lr=0.1, workers=0,
                      save_every=10, weight_decay=0.0, schedule="constant")  # fmt: skip


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def named(folder: Path, pattern: str) -> list[str]:
    return sorted(path.name for path in folder.glob(pattern))


def flip(path: Path) -> None:
    """One byte of a tensor, which torch.load does not notice."""
    with zipfile.ZipFile(path) as archive:
        info = max(archive.infolist(), key=lambda each: each.file_size)
    data = bytearray(path.read_bytes())
    data[info.header_offset + 2_000] ^= 1
    path.write_bytes(data)


def directory(path: Path) -> None:
    path.unlink()
    path.mkdir()


BREAKS: dict[str, Callable[[Path], object]] = {
    "cut short": lambda path: path.write_bytes(path.read_bytes()[:-1_000]),
    "empty": lambda path: path.write_bytes(b""),
    "noise": lambda path: path.write_bytes(b"PK\x03\x04" + bytes(range(256)) * 20),
    "a bit": flip,
    "no dictionary": lambda path: torch.save([1, 2], path),
    "another version": lambda path: torch.save(torch.load(path) | {"format": 9}, path),
    "a field less": lambda path: torch.save({"step": 30}, path),
    "a folder": directory,
}


@pytest.mark.parametrize("how", BREAKS)
def test_no_checkpoint_that_can_be_read_stops_a_run_and_changes_nothing(recipe: LineRecipe, how: str) -> None:
    train(recipe, Line(), progress=False)
    out = Path(recipe.out)
    for path in out.glob("state-*.pt"):
        BREAKS[how](path)
    before = contents(out)
    with pytest.raises(DuologueError, match=r"state-00000030\.pt cannot be read: .*nothing was changed") as caught:
        train(replace(recipe, steps=60), Line(), progress=False)
    assert "\n" not in str(caught.value)
    assert contents(out) == before


@pytest.mark.parametrize("how", ["cut short", "a bit", "a folder"])
def test_from_an_older_checkpoint_a_run_goes_on_and_says_so(
    recipe: LineRecipe, how: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    train(recipe, Line(), progress=False)
    out = Path(recipe.out)
    newest = out / "state-00000030.pt"
    BREAKS[how](newest)
    broken = newest.read_bytes() if newest.is_file() else None
    task = Line()
    train(replace(recipe, steps=50), task, progress=False)
    said = capsys.readouterr().err.splitlines()
    assert "state-00000030.pt cannot be read" in said[0] and "goes on from state-00000020.pt" in said[0]
    renamed = "state-00000030.pt, which cannot be read, is now state-00000030.pt.unreadable"
    assert said[1:] == [f"duologue: warning: {renamed}"]
    aside = out / "state-00000030.pt.unreadable"
    assert aside.exists() and (broken is None or aside.read_bytes() == broken)
    assert named(out, "state-*.pt") == ["state-00000040.pt", "state-00000050.pt"]
    whole = Line()
    train(replace(recipe, steps=50, out=str(tmp_path / "whole")), whole, progress=False)
    assert torch.equal(task.slope.weight, whole.slope.weight)


def test_only_whole_checkpoints_of_this_run_make_room(recipe: LineRecipe, capsys: pytest.CaptureFixture[str]) -> None:
    """An older one that cannot be read stays, as do files that claim a later step or are named otherwise."""
    train(recipe, Line(), progress=False)
    out = Path(recipe.out)
    old, mine = out / "state-00000020.pt", out / "state-mine.pt"
    old.write_bytes(b"not whole")
    mine.write_bytes(b"something of the user's")
    later = out / "state-00000900.pt"

    def appears() -> None:
        later.write_bytes(b"of another run")

    train(replace(recipe, steps=60, keep=1), Line(at={35: appears}), progress=False)
    assert old.read_bytes() == b"not whole" and later.exists() and mine.exists()
    assert named(out, "state-0*.pt") == [old.name, "state-00000060.pt", later.name]
    assert capsys.readouterr().err.count("state-00000020.pt cannot be read") == 1


def test_a_broken_line_of_figures_stops_a_run(recipe: LineRecipe) -> None:
    train(recipe, Line(), progress=False)
    out = Path(recipe.out)
    for line in (b"\xff\xfe", b"[1]", b'{"step": "x"}', b'{"loss": 1}', b""):
        rows = (out / "figures.jsonl").read_bytes().split(b"\n")
        (out / "figures.jsonl").write_bytes(b"\n".join([rows[0], line, *rows[2:]]))
        before = contents(out)
        with pytest.raises(DuologueError, match=r"figures\.jsonl, line 2: no row of figures .*nothing was changed"):
            train(replace(recipe, steps=60), Line(), progress=False)
        assert contents(out) == before


def test_figures_without_a_checkpoint_stop_a_run(recipe: LineRecipe) -> None:
    train(recipe, Line(), progress=False)
    out = Path(recipe.out)
    for path in out.glob("state-*"):
        path.unlink()
    before = contents(out)
    with pytest.raises(DuologueError, match="figures of 3 saves, to step 30, but there is no checkpoint to go on from"):
        train(recipe, Line(), progress=False)
    assert contents(out) == before
    (out / "figures.jsonl").write_text((out / "figures.jsonl").read_text().splitlines()[0] + "\n")
    train(recipe, Line(), progress=False)  # a run that was killed in its first save begins anew
    assert len((out / "figures.jsonl").read_text().splitlines()) == 3


def test_a_checkpoint_of_other_sizes_stops_a_run(recipe: LineRecipe) -> None:
    train(recipe, Line(), progress=False)
    before = contents(Path(recipe.out))
    with pytest.raises(DuologueError, match=r"state-00000030\.pt does not fit this recipe: .*size mismatch"):
        train(replace(recipe, steps=60), Line(width=7), progress=False)
    assert contents(Path(recipe.out)) == before


def test_checkpoints_of_another_launcher_stop_a_run(recipe: LineRecipe) -> None:
    (Path(recipe.out) / "state-00000020").mkdir(parents=True)
    with pytest.raises(DuologueError, match="state-00000020 was written under FSDP or DeepSpeed"):
        train(recipe, Line(), progress=False)


def test_a_folder_that_cannot_be_made_is_one_line(recipe: LineRecipe, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    for out in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(DuologueError, match="cannot make the folder out="):
            train(replace(recipe, out=str(out)), Line(), progress=False)


# Saves that fail.


def limit(size: int) -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, HARD))


@contextmanager
def limited() -> Iterator[None]:
    """Files may be limited in size within."""
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (HARD, HARD))
        signal.signal(signal.SIGXFSZ, ignored)


@pytest.mark.parametrize("width", [100, 400])  # torch's own error for a failed write, or the file's
def test_a_save_that_fails_is_said_and_tried_again(
    recipe: LineRecipe, width: int, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    task = Line(width, at={15: lambda: limit(30_000), 35: lambda: limit(HARD)})
    with limited():
        metrics = train(replace(recipe, steps=50), task, progress=False)
    out = Path(recipe.out)
    said = capsys.readouterr().err.splitlines()
    assert [f"the save of step {step} failed" in line for step, line in zip((20, 30), said, strict=True)] == [True] * 2
    assert all("File too large" in line and "tried again at the next" in line for line in said)
    assert metrics["failed_saves"] == 2
    assert named(out, "state-*") == ["state-00000040.pt", "state-00000050.pt"]
    assert not list(out.glob(".*")), "nothing half-written is left"
    rows = [json.loads(line) for line in (out / "figures.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [10, 20, 30, 40, 50]
    alone = Line(width)
    train(replace(recipe, steps=50, out=str(tmp_path / "alone")), alone, progress=False)
    assert torch.equal(alone.slope.weight, task.slope.weight), "a failed save changes no weight"


def test_a_last_save_that_fails_ends_in_an_error_that_says_what_is_whole(recipe: LineRecipe) -> None:
    with limited(), pytest.raises(DuologueError, match=r"step 30, failed: .* whole .* state-00000020\.pt of step 20"):
        train(recipe, Line(at={25: lambda: limit(30_000)}), progress=False)
    train(recipe, Line(), progress=False)
    assert named(Path(recipe.out), "state-*") == ["state-00000020.pt", "state-00000030.pt"]


@pytest.mark.parametrize("name", ["model.safetensors", "best.safetensors", "figures.jsonl"])
def test_each_file_is_tried_again(recipe: LineRecipe, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Weights and figures that failed once are there after the next save; in the last one, the checkpoint waits too."""
    write = parts.write_atomically
    left = 1

    def failing(path: Path, data: bytes) -> None:
        nonlocal left
        if path.name == name and left:
            left -= 1
            raise DuologueError(f"cannot write {path}: No space left on device")
        write(path, data)

    monkeypatch.setattr(parts, "write_atomically", failing)
    monkeypatch.setattr(run_folder, "write_text", lambda path, text: failing(path, text.encode()))
    out = Path(recipe.out)
    train(replace(recipe, best="min:loss"), Line(), progress=False)
    assert (out / name).is_file() and len((out / "figures.jsonl").read_text().splitlines()) == 3
    shutil.rmtree(out)
    left = 1
    with pytest.raises(DuologueError, match=r"No space left.*its checkpoint was not written"):
        train(replace(recipe, steps=10, best="min:loss"), Line(), progress=False)
    assert not named(out, "state-*")
    train(replace(recipe, steps=10, best="min:loss"), Line(), progress=False)
    assert (out / name).is_file()


def test_the_best_weights_that_could_not_be_written_are_not_the_best_kept(recipe: LineRecipe) -> None:
    metrics = run_folder.MetricsLog(Path(recipe.out))
    metrics.rows = [{"step": 10, "loss": 3.0}, {"step": 20, "loss": 1.0}]
    assert metrics.is_best("min:loss")
    metrics.best_not_kept()
    metrics.rows.append({"step": 30, "loss": 2.0})
    assert metrics.is_best("min:loss")


def test_curves_that_cannot_be_written_are_written_later(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    from duologue.training.loop.scalars import Scalars

    scalars = Scalars(tmp_path, first=0)
    scalars.add({"loss": 1.0}, 1)
    with limited():
        limit(scalars.path.stat().st_size + 10)  # in the middle of a record
        scalars.add({"loss": 2.0, "other": torch.tensor(5.0)}, 2)
        assert scalars.fault is not None and "File too large" in scalars.fault
    scalars.add({"loss": 3.0}, 3)
    assert scalars.fault is None
    found = EventAccumulator(str(tmp_path))
    found.Reload()
    assert [(point.step, point.value) for point in found.Scalars("loss")] == [(1, 1.0), (2, 2.0), (3, 3.0)]
    assert found.Scalars("other")[0].value == 5.0


def _process(rank: int, port: int, queue: multiprocessing.Queue) -> None:
    from duologue.training.loop.accelerator import on_main

    torch.distributed.init_process_group("gloo", f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
    accelerator = SimpleNamespace(num_processes=2, is_main_process=rank == 0)

    def broken() -> None:
        raise DuologueError("no checkpoint can be read")

    try:
        on_main(accelerator, broken)
    except DuologueError as error:
        queue.put((str(error), on_main(accelerator, lambda: 7)))


def test_all_processes_end_with_the_error_of_the_one_that_reads(free_port: int) -> None:
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    processes = [context.Process(target=_process, args=(rank, free_port, queue)) for rank in (0, 1)]
    for process in processes:
        process.start()
    try:
        found = [queue.get(timeout=60) for _ in processes]
    finally:
        for process in processes:
            process.join(10)
            process.kill()
    assert sorted(found, key=str) == [("no checkpoint can be read", 7), ("no checkpoint can be read", None)]


@pytest.fixture
def free_port() -> int:
    import socket

    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return int(server.getsockname()[1])


@pytest.mark.parametrize("data", [b"", b"junk", b"\x08" + b"\0" * 7 + b"{notjson", b"\xff" * 64], ids=range(4))
def test_a_start_that_cannot_be_read_is_one_line(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "model.safetensors").write_bytes(data)
    with pytest.raises(DuologueError, match=r"model\.safetensors cannot be read") as caught:
        load_parts({"slope": nn.Linear(1, 1)}, (f"slope={tmp_path}",))
    assert "\n" not in str(caught.value)
