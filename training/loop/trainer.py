"""The loop: one task, one optimiser (two with an adversary), resumable at any step, on whatever accelerate started.

A batch is a pure function of (seed, number), so that a resumed run sees what an uninterrupted one would have seen, and
a recipe gives the same weights on any number of processes that share its ``accumulate`` batches a step. One CPU,
several GPUs, FSDP and DeepSpeed's ZeRO-2 differ in the launcher: ``accelerate launch -m duologue train RECIPE
accumulate=PROCESSES``. What a run leaves behind is described in run_folder.py.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from ...model.errors import DuologueError
from ..recipe import Recipe, save_recipe
from .accelerator import everywhere, on_main
from .saves import Run
from .scalars import Scalars
from .task import Batch, Task, require_gradients
from .throughput import Throughput


class _Batches(torch.utils.data.Dataset[Batch]):
    """The batches of one process in their order, as a map, so that workers can prepare them ahead."""

    def __init__(self, task: Task, recipe: Recipe, first: int, rank: int, world: int) -> None:
        self.task, self.accumulate, self.rank, self.world = task, recipe.accumulate, rank, world
        self.fraction = recipe.accumulate // world  # batches a step for each process
        self.first, self.steps = first, recipe.steps

    def __len__(self) -> int:
        return max(0, self.steps - self.first) * self.fraction

    def __getitem__(self, index: int) -> Batch:
        step, turn = self.first + index // self.fraction, index % self.fraction
        return self.task.batch(step * self.accumulate + turn * self.world + self.rank)


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


def train(recipe: Recipe, task: Task, progress: bool = True) -> dict[str, float]:
    """Run the recipe to its last step, from the newest checkpoint in its folder if there is one.

    Returns:
        The last figures shown (losses and whatever the task measures).

    Raises:
        DuologueError: a prefix that matches nothing, a start that does not fit, too many steps whose loss or gradient
            is not finite, a folder that cannot be written, a number of processes that does not share the batches,
            checkpoints none of which can be read (nothing is changed then), or a last save that failed. A failed save
            before the last is a line on stderr, and everything is tried again at the next.
    """
    return _Training(recipe, task).train(progress)


class _Training(Run):
    """The steps of a run."""

    def train(self, progress: bool) -> dict[str, float]:
        recipe, accelerator = self.recipe, self.accelerator
        on_main(accelerator, lambda: save_recipe(recipe, self.folder))
        scalars = Scalars(self.folder, self.first) if self.main else None
        batches = _Batches(self.task, recipe, self.first, accelerator.process_index, accelerator.num_processes)
        loader = torch.utils.data.DataLoader(
            batches,
            batch_size=None,
            num_workers=recipe.workers,
            worker_init_fn=_one_thread,
            prefetch_factor=4 if recipe.workers else None,
            generator=torch.Generator(),  # or the loader would draw from the model's, and a resumed run differ
        )
        metrics: dict[str, float] = {}
        throughput = Throughput()
        incoming = throughput.waiting(iter(loader))
        self.task.train()
        for step in _progress(self.first, recipe.steps, recipe.stage, metrics, progress and self.main):
            shown = self._step(step, [next(incoming) for _ in range(batches.fraction)], throughput)
            done = step + 1
            last = done % recipe.save_every == 0 or done == recipe.steps
            if done % recipe.log_every == 0 or last:
                metrics |= {key: float(value) for key, value in shown.items()}
                measured = throughput.metrics(accelerator.device, accelerator.num_processes)
                metrics |= {key: measured[key] for key in ("waiting", "padding", "mfu") if key in measured}
                if self.bad:
                    metrics["left_out"] = float(len(self.bad))
                if self.failed_saves:
                    metrics["failed_saves"] = float(self.failed_saves)
                if scalars is not None:
                    scalars.add(metrics | measured, done)
            if last:
                faults = self._save(done, metrics, scalars)
                if done == recipe.steps:
                    on_main(accelerator, lambda: self._require_whole(faults))  # noqa: B023
        self.task.eval()
        return metrics

    # One step.

    def _step(self, step: int, batches: list[Batch], throughput: Throughput) -> dict[str, Any]:
        recipe, accelerator = self.recipe, self.accelerator
        rate = recipe.lr_at(step)
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        if self.discriminator is not None:
            for group in self.discriminator_optimiser.param_groups:
                group["lr"] = rate
        shown: dict[str, Any] = {}
        fault = ""
        for batch in batches:
            throughput.add(self.task.load_of(batch))
            on_device = to_device(batch, accelerator.device)
            with accelerator.accumulate(self.wrapped):
                losses = functools.partial(self._losses, on_device, step)
                counted = accelerator.device.type == "cuda" and throughput.flops_a_step == 0
                loss, shown = throughput.count_flops(losses) if counted else losses()
                if not everywhere(accelerator, math.isfinite(loss.item())):
                    fault = fault or f"the loss of step {step} is {loss.item()}"
                if not fault:  # else on to the step's last batch, by which accelerate counts, without its gradient
                    accelerator.backward(loss)
                    shown = {"loss": loss.detach()} | shown
        norm = torch.zeros(())
        if not fault and not self.deepspeed:  # DeepSpeed's engine has clipped and stepped by itself
            if step == self.first and not self.sharded:
                require_gradients(self.task, recipe.learn)
            norm = accelerator.clip_grad_norm_(self.learnt, recipe.clip)
            if not math.isfinite(float(norm)):  # the same in every process
                fault = f"the gradient of step {step} is {float(norm)}"
        if fault:
            self._leave_out(step, fault)
        else:
            self.optimiser.step()
            if self.ema is not None:
                self.ema.update(self.task.named_parameters())
        self.optimiser.zero_grad(set_to_none=True)
        throughput.step()
        return shown | {"lr": rate, "gradient_norm": norm}

    def _losses(self, batch: Batch, step: int) -> tuple[Tensor, dict[str, Any]]:
        if self.discriminator is None:
            loss, shown = self.forward(batch)
            return loss, shown
        loss, shown, made, recorded = self.forward(batch)
        if step < self.task.discriminator_after:
            return loss, shown
        discriminator_loss, more = self.wrapped_discriminator(made.detach(), recorded)
        if everywhere(self.accelerator, math.isfinite(discriminator_loss.item())):
            self.accelerator.backward(discriminator_loss)
            if math.isfinite(self.accelerator.clip_grad_norm_(self.discriminator.parameters(), self.recipe.clip)):
                self.discriminator_optimiser.step()
        self.discriminator_optimiser.zero_grad(set_to_none=True)
        self.discriminator.requires_grad_(False)
        with self.accelerator.autocast():
            judged, most = self.discriminator.judge(made, recorded)
        self.discriminator.requires_grad_(True)
        return loss + judged, {**shown, **more, **most}

    def _leave_out(self, step: int, fault: str) -> None:
        """Count a step that must not move the weights; too many of them end the run."""
        recipe = self.recipe
        self.bad = [at for at in self.bad if at > step - 100] + [step]
        advice = f"lower lr ({recipe.lr}) or look at the data"
        if self.deepspeed:
            raise DuologueError(f"{fault}; DeepSpeed cannot leave a step out; {advice}")
        if len(self.bad) > recipe.bad_fraction * 100:
            raise DuologueError(f"{fault}; {len(self.bad)} of the last 100 steps were left out, {advice}")


def _progress(first: int, last: int, name: str, metrics: dict[str, float], show: bool) -> Iterator[int]:
    """The steps; a bar with the newest figures and the time left."""
    if not show:
        yield from range(first, last)
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
        TextColumn("{task.fields[metrics]}"),
    )
    fractions = ("waiting", "padding", "mfu")
    with Progress(*columns) as bar:
        row = bar.add_task(name, total=last, completed=first, metrics="")
        for step in range(first, last):
            yield step
            text = " ".join(
                f"{key} {value:.0%}" if key in fractions else f"{key} {value:.3g}"
                for key, value in metrics.items()
                if key not in ("lr", "gradient_norm")
            )
            bar.update(row, completed=step + 1, metrics=text)
