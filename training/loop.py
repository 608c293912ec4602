"""The supervised loop: one task, one optimiser, resumable at any step, on whatever accelerate was launched with.

A batch is a pure function of (seed, step), so that a resumed run sees what an uninterrupted one would have seen. The
run's folder holds ``recipe.json``, ``state-00000400.pt`` (all that resuming needs; the newest whole one is taken),
TensorBoard's events, and at the end ``model.safetensors`` (the parts that the stage makes, named as in SpeechLM).
"""

from __future__ import annotations

import contextlib
import json
import math
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..model.errors import DuologueError
from .recipe import Recipe, save_recipe

Batch = dict[str, Any]
STATE = re.compile(r"state-(\d{8})\.pt")


class Task(nn.Module):
    """What a recipe builds: the modules, the batches and the loss of one stage.

    ``forward(batch)`` returns the loss and a dictionary of figures (plain floats or scalar tensors) to show.
    """

    def batch(self, step: int) -> Batch:
        """Batch number ``step``: runs in a worker process, keyed by (seed, step), never by the order of calls."""
        raise NotImplementedError

    def parts(self) -> dict[str, nn.Module]:
        """What the stage hands on: modules by their name in SpeechLM. Training-only heads are not among them."""
        raise NotImplementedError

    def evaluate(self) -> dict[str, float]:
        """Figures on held-out data, asked for at every save. None by default."""
        return {}


class _Steps(torch.utils.data.Dataset[Batch]):
    """The task's batches as a map from step to batch, so that worker processes can prepare them ahead."""

    def __init__(self, task: Task, first: int, last: int, rank: int, world: int) -> None:
        self.task, self.first, self.last, self.rank, self.world = task, first, last, rank, world

    def __len__(self) -> int:
        return self.last - self.first

    def __getitem__(self, index: int) -> Batch:
        return self.task.batch((self.first + index) * self.world + self.rank)


def _one_thread(_: int) -> None:
    torch.set_num_threads(1)


def to_device(batch: Any, device: torch.device) -> Any:
    """The batch with every tensor in it on ``device``."""
    if isinstance(batch, Tensor):
        return batch.to(device, non_blocking=True)
    if isinstance(batch, dict):
        return {key: to_device(value, device) for key, value in batch.items()}
    if isinstance(batch, (list, tuple)):
        return type(batch)(to_device(value, device) for value in batch)
    return batch


def freeze(task: nn.Module, learn: tuple[str, ...]) -> list[nn.Parameter]:
    """Let only the parameters below the prefixes learn, and return them. A prefix that matches nothing is an error."""
    names = [name for name, _ in task.named_parameters()]
    for prefix in learn:
        if not any(name == prefix or name.startswith(prefix + ".") for name in names):
            tops = sorted({name.split(".")[0] for name in names})
            raise DuologueError(f"learn prefix {prefix!r} matches no parameter; they begin with: {', '.join(tops)}")
    learnt = []
    for name, parameter in task.named_parameters():
        wanted = any(name == prefix or name.startswith(prefix + ".") for prefix in learn)
        parameter.requires_grad_(wanted)
        if wanted:
            learnt.append(parameter)
    return learnt


def load_parts(modules: dict[str, nn.Module], start: tuple[str, ...]) -> None:
    """Load "PREFIX=FOLDER" entries: the tensors below PREFIX of that folder's model.safetensors, strictly."""
    from safetensors.torch import load_file

    for entry in start:
        prefix, _, folder = entry.partition("=")
        path = Path(folder) / "model.safetensors"
        if not path.is_file():
            raise DuologueError(f"start {entry}: no file {path}; run the stage that makes it first")
        if prefix not in modules:
            raise DuologueError(f"start {entry}: this stage has no part {prefix!r}; it has: {', '.join(modules)}")
        tensors = load_file(path)
        below = {k[len(prefix) + 1 :]: v.float() for k, v in tensors.items() if k.startswith(prefix + ".")}
        try:
            modules[prefix].load_state_dict(below)
        except RuntimeError as error:
            raise DuologueError(f"start {entry}: tensors do not fit: {' '.join(str(error).split())}") from None


def write_beside(path: Path, write: Any) -> None:
    """Call ``write(temporary path)``, then rename: the file is whole or not there."""
    beside = path.with_name(path.name + ".tmp")
    write(beside)
    beside.replace(path)


def save_parts(task: Task, folder: Path) -> None:
    """Write the stage's parts to ``model.safetensors`` under their SpeechLM names."""
    from safetensors.torch import save_file

    tensors = {
        f"{name}.{key}": value.detach().cpu().contiguous().clone()
        for name, module in task.parts().items()
        for key, value in module.state_dict().items()
    }
    write_beside(folder / "model.safetensors", lambda beside: save_file(tensors, beside))


def newest_state(folder: Path) -> dict[str, Any] | None:
    """The newest checkpoint that can be read, or None; one that a crash cut short is passed over."""
    for path in sorted(folder.glob("state-*.pt"), reverse=True):
        with contextlib.suppress(Exception):
            return torch.load(path, weights_only=True, map_location="cpu")
    return None


def _save_state(folder: Path, keep: int, state: dict[str, Any]) -> None:
    write_beside(folder / f"state-{state['step']:08d}.pt", lambda beside: torch.save(state, beside))
    whole = sorted(path for path in folder.iterdir() if STATE.fullmatch(path.name))
    for path in whole[:-keep]:
        path.unlink()


def train(recipe: Recipe, task: Task, progress: bool = True) -> dict[str, float]:
    """Run the recipe to its last step, from the newest checkpoint in its folder if there is one.

    Returns:
        The last figures shown (losses and whatever the task measures).

    Raises:
        DuologueError: a prefix that matches nothing, a start that does not fit, a loss that is not finite.
    """
    from accelerate import Accelerator
    from torch.utils.tensorboard import SummaryWriter

    folder = Path(recipe.out)
    folder.mkdir(parents=True, exist_ok=True)
    accelerator = Accelerator(mixed_precision=recipe.precision, gradient_accumulation_steps=1)
    torch.manual_seed(recipe.seed)
    load_parts(task.parts() | dict(task.named_children()), recipe.start)
    learnt = freeze(task, recipe.learn)
    optimiser = torch.optim.AdamW(learnt, lr=recipe.lr, betas=recipe.betas, weight_decay=recipe.weight_decay)
    first = 0
    state = newest_state(folder)
    if state is not None:
        task.load_state_dict(state["task"])
        optimiser.load_state_dict(state["optimiser"])
        torch.set_rng_state(state["rng"])
        first = state["step"]
    if accelerator.is_main_process:
        save_recipe(recipe, folder)
    wrapped, optimiser = accelerator.prepare(task, optimiser)
    step_fn = torch.compile(wrapped) if recipe.compile else wrapped
    loader = torch.utils.data.DataLoader(
        _Steps(task, first, recipe.steps, accelerator.process_index, accelerator.num_processes),
        batch_size=None,
        num_workers=recipe.workers,
        worker_init_fn=_one_thread,
        prefetch_factor=4 if recipe.workers else None,
        generator=torch.Generator(),  # or the loader would draw from the model's, and a resumed run differ
    )
    writer = SummaryWriter(str(folder)) if accelerator.is_main_process else None
    figures: dict[str, float] = {}
    task.train()
    for step, batch in _progress(loader, first, recipe.steps, recipe.stage, figures, progress and writer is not None):
        rate = recipe.lr_at(step)
        for group in optimiser.param_groups:
            group["lr"] = rate
        loss, shown = step_fn(to_device(batch, accelerator.device))
        if not math.isfinite(loss.item()):
            raise DuologueError(f"the loss of step {step} is {loss.item()}; lower lr ({recipe.lr}) or look at the data")
        accelerator.backward(loss)
        norm = accelerator.clip_grad_norm_(learnt, recipe.clip)
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
        done = step + 1
        if done % recipe.log_every == 0 or done % recipe.save_every == 0 or done == recipe.steps:
            figures |= {"loss": loss.item()} | {key: float(value) for key, value in shown.items()}
            if writer is not None:
                for key, value in figures.items():
                    writer.add_scalar(key, value, done)
                writer.add_scalar("lr", rate, done)
                writer.add_scalar("gradient_norm", float(norm), done)
        if done % recipe.save_every == 0 or done == recipe.steps:
            task.eval()
            measured = task.evaluate() if accelerator.is_main_process else {}
            task.train()
            figures |= measured
            if writer is not None:
                for key, value in measured.items():
                    writer.add_scalar(key, value, done)
                writer.flush()
                unwrapped: Any = accelerator.unwrap_model(wrapped)
                _save_state(
                    folder,
                    recipe.keep,
                    {
                        "step": done,
                        "task": unwrapped.state_dict(),
                        "optimiser": optimiser.state_dict(),
                        "rng": torch.get_rng_state(),
                    },
                )
                save_parts(unwrapped, folder)
                with (folder / "figures.jsonl").open("a") as log:
                    log.write(json.dumps({"step": done, "time": round(time.time(), 1)} | figures) + "\n")
    task.eval()
    if writer is not None:
        writer.close()
    return figures


def _progress(
    loader: Any, first: int, last: int, name: str, figures: dict[str, float], show: bool
) -> Iterator[tuple[int, Batch]]:
    """Number the batches; show a bar with the newest figures and the time left."""
    if not show:
        yield from enumerate(loader, first)
        return
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[figures]}"),
    )
    with Progress(*columns) as bar:
        row = bar.add_task(name, total=last, completed=first, figures="")
        for step, batch in enumerate(loader, first):
            yield step, batch
            text = " ".join(f"{key} {value:.3g}" for key, value in figures.items())
            bar.update(row, completed=step + 1, figures=text)
