"""The loop: one task, one optimiser (two with an adversary), resumable at any step, on whatever accelerate started.

A batch is a pure function of (seed, number), so that a resumed run sees what an uninterrupted one would have seen, and
a recipe gives the same weights on any number of processes that share its ``accumulate`` batches a step. One CPU,
several GPUs, FSDP and DeepSpeed's ZeRO-2 differ in the launcher: ``accelerate launch -m duologue train RECIPE
accumulate=PROCESSES``. What a run leaves behind is described in run_folder.py.
"""

from __future__ import annotations

import contextlib
import functools
import math
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..model.errors import DuologueError
from .ema import Ema
from .engine import build_whole, make_accelerator
from .optimiser import make_optimiser
from .recipe import Recipe, save_recipe
from .run_folder import BEST, WEIGHTS, Figures, load_parts, newest_state, save_parts, save_state
from .task import AdversarialTask, Batch, Task, freeze, require_gradients
from .throughput import Throughput


class _Batches(torch.utils.data.Dataset[Batch]):
    """The batches of one process in their order, as a map, so that workers can prepare them ahead."""

    def __init__(self, task: Task, recipe: Recipe, first: int, rank: int, world: int) -> None:
        self.task, self.accumulate, self.rank, self.world = task, recipe.accumulate, rank, world
        self.share = recipe.accumulate // world  # batches a step for each process
        self.first, self.steps = first, recipe.steps

    def __len__(self) -> int:
        return max(0, self.steps - self.first) * self.share

    def __getitem__(self, index: int) -> Batch:
        step, turn = self.first + index // self.share, index % self.share
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
            is not finite, a folder that cannot be written, a number of processes that does not share the batches.
    """
    return _Run(recipe, task).train(progress)


class _Run:
    """One process's side of a run."""

    def __init__(self, recipe: Recipe, task: Task) -> None:
        from accelerate.utils import DistributedType

        self.recipe, self.task = recipe, task
        self.folder = Path(recipe.out)
        self.accelerator = make_accelerator(recipe)
        kind = self.accelerator.distributed_type
        self.sharded = kind in (DistributedType.FSDP, DistributedType.DEEPSPEED)
        self.deepspeed = kind is DistributedType.DEEPSPEED
        self.main = self.accelerator.is_main_process
        self.bad: list[int] = []  # recent steps that were left out
        self.first = 0
        if self.main:
            self.folder.mkdir(parents=True, exist_ok=True)
        torch.manual_seed(recipe.seed)
        load_parts(task.parts() | dict(task.named_children()), recipe.start)
        task.adapt()
        learnt = freeze(task, recipe.learn)
        optimiser = make_optimiser(recipe, learnt)
        self.ema = Ema(recipe.ema, learnt) if recipe.ema else None
        self.rival = task.make_rival() if isinstance(task, AdversarialTask) else None
        rival_optimiser = None
        if self.rival is not None:
            rival_optimiser = torch.optim.AdamW(self.rival.parameters(), recipe.lr, recipe.betas, weight_decay=0.0)
        state = None if self.sharded else newest_state(self.folder)
        if state is not None:
            self._resume(state, optimiser, rival_optimiser)
        self.learnt = [parameter for _, parameter in learnt]
        self.wrapped, self.optimiser = self.accelerator.prepare(task, optimiser)
        if self.rival is not None:
            self.wrapped_rival, self.rival_optimiser = self.accelerator.prepare(self.rival, rival_optimiser)
        if self.sharded:
            self._resume_sharded()
        self.forward = torch.compile(self.wrapped) if recipe.compile else self.wrapped

    def train(self, progress: bool) -> dict[str, float]:
        from torch.utils.tensorboard import SummaryWriter

        recipe, accelerator = self.recipe, self.accelerator
        writer = figures_file = None
        if self.main:
            save_recipe(recipe, self.folder)
            writer = SummaryWriter(str(self.folder), purge_step=self.first)
            figures_file = Figures(self.folder, self.first)
        batches = _Batches(self.task, recipe, self.first, accelerator.process_index, accelerator.num_processes)
        loader = torch.utils.data.DataLoader(
            batches,
            batch_size=None,
            num_workers=recipe.workers,
            worker_init_fn=_one_thread,
            prefetch_factor=4 if recipe.workers else None,
            generator=torch.Generator(),  # or the loader would draw from the model's, and a resumed run differ
        )
        figures: dict[str, float] = {}
        throughput = Throughput()
        incoming = throughput.waiting(iter(loader))
        self.task.train()
        for step in _progress(self.first, recipe.steps, recipe.stage, figures, progress and self.main):
            shown = self._step(step, [next(incoming) for _ in range(batches.share)], throughput)
            done = step + 1
            last = done % recipe.save_every == 0 or done == recipe.steps
            if done % recipe.log_every == 0 or last:
                figures |= {key: float(value) for key, value in shown.items()}
                measured = throughput.figures(accelerator.device, accelerator.num_processes)
                figures |= {key: measured[key] for key in ("waiting", "padding", "mfu") if key in measured}
                if self.bad:
                    figures["left_out"] = float(len(self.bad))
                if writer is not None:
                    for key, value in (figures | measured).items():
                        writer.add_scalar(key, value, done)
            if last:
                self._save(done, figures, writer, figures_file)
        self.task.eval()
        if writer is not None:
            writer.close()
        return figures

    # One step.

    def _step(self, step: int, batches: list[Batch], throughput: Throughput) -> dict[str, Any]:
        recipe, accelerator = self.recipe, self.accelerator
        rate = recipe.lr_at(step)
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        if self.rival is not None:
            for group in self.rival_optimiser.param_groups:
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
                if not self._everywhere(math.isfinite(loss.item())):
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
        if self.rival is None or not isinstance(self.task, AdversarialTask):
            loss, shown = self.forward(batch)
            return loss, shown
        loss, shown, made, recorded = self.forward(batch)
        if step < self.task.rival_after:
            return loss, shown
        rival_loss, more = self.wrapped_rival(made.detach(), recorded)
        if self._everywhere(math.isfinite(rival_loss.item())):
            self.accelerator.backward(rival_loss)
            if math.isfinite(self.accelerator.clip_grad_norm_(self.rival.parameters(), self.recipe.clip)):
                self.rival_optimiser.step()
        self.rival_optimiser.zero_grad(set_to_none=True)
        self.rival.requires_grad_(False)
        with self.accelerator.autocast():
            judged, most = self.rival.judge(made, recorded)
        self.rival.requires_grad_(True)
        return loss + judged, {**shown, **more, **most}

    def _everywhere(self, good: bool) -> bool:
        """Whether it is so in every process."""
        if self.accelerator.num_processes == 1:
            return good
        flag = torch.tensor(float(good), device=self.accelerator.device)
        return bool(self.accelerator.reduce(flag, "sum") == self.accelerator.num_processes)

    def _leave_out(self, step: int, fault: str) -> None:
        """Count a step that must not move the weights; too many of them end the run."""
        recipe = self.recipe
        self.bad = [at for at in self.bad if at > step - 100] + [step]
        advice = f"lower lr ({recipe.lr}) or look at the data"
        if self.deepspeed:
            raise DuologueError(f"{fault}; DeepSpeed cannot leave a step out; {advice}")
        if len(self.bad) > recipe.bad_share * 100:
            raise DuologueError(f"{fault}; {len(self.bad)} of the last 100 steps were left out, {advice}")

    # Checkpoints.

    def _resume(self, state: dict[str, Any], optimiser: Any, rival_optimiser: Any) -> None:
        if set(state["learn"]) != set(self.recipe.learn) or state["optimiser_kind"] != self.recipe.optimiser:
            raise DuologueError(
                f"{self.folder} was trained with learn={','.join(state['learn'])} optimiser={state['optimiser_kind']}; "
                "go on with the same, or give another out="
            )
        self.task.load_state_dict(state["task"])
        optimiser.load_state_dict(state["optimiser"])
        if self.ema is not None and state["ema"] is not None:
            self.ema.load(state["ema"])
        if self.rival is not None:
            self.rival.load_state_dict(state["rival"])
            rival_optimiser.load_state_dict(state["rival_optimiser"])
        torch.set_rng_state(state["rng"])
        if state["cuda_rng"] is not None and torch.cuda.is_available():
            torch.cuda.set_rng_state(state["cuda_rng"])
        self.first, self.bad = state["step"], state["bad"]

    def _save(self, done: int, figures: dict[str, float], writer: Any, figures_file: Figures | None) -> None:
        """Evaluate, then write figures, weights and, last of all, the checkpoint to resume from."""
        task: Any = self.accelerator.unwrap_model(self.wrapped)
        if self.sharded:
            task = self._gathered()
        if task is not None and self.main and figures_file is not None:
            with self.ema.applied(task) if self.ema is not None else contextlib.nullcontext():
                task.eval()
                measured = task.evaluate()
                parts = task.parts()
                figures |= measured
                figures_file.add({"step": done, "time": round(time.time(), 1)} | figures)
                save_parts(parts, self.folder / WEIGHTS)
                if figures_file.is_best(self.recipe.best):
                    save_parts(parts, self.folder / BEST)
            for key, value in measured.items():
                writer.add_scalar(key, value, done)
            writer.flush()
        if self.sharded:
            self._save_sharded(done)
        elif self.main:
            rival = self.rival is not None
            save_state(
                self.folder,
                self.recipe.keep,
                {
                    "step": done,
                    "task": task.state_dict(),
                    "optimiser": self.optimiser.state_dict(),
                    "optimiser_kind": self.recipe.optimiser,
                    "learn": list(self.recipe.learn),
                    "ema": self.ema.average if self.ema is not None else None,
                    "rival": self.accelerator.unwrap_model(self.wrapped_rival).state_dict() if rival else None,
                    "rival_optimiser": self.rival_optimiser.state_dict() if rival else None,
                    "bad": self.bad,
                    "rng": torch.get_rng_state(),
                    "cuda_rng": torch.cuda.get_rng_state() if torch.cuda.is_available() else None,
                },
            )
        self.accelerator.wait_for_everyone()
        self.task.train()

    # Under FSDP and DeepSpeed no process has all of the weights: accelerate writes a folder, each process its share.

    def _gathered(self) -> Task | None:
        """The task with whole weights in the main process, None in the others; all must ask."""
        state = self.accelerator.get_state_dict(self.wrapped)
        if not self.main:
            return None
        whole = build_whole(self.recipe)
        whole.adapt()
        whole.to(self.accelerator.device)
        whole.load_state_dict(state)
        return whole

    def _sharded_folders(self) -> list[Path]:
        return sorted(path for path in self.folder.glob("state-*") if path.is_dir() and path.name[6:].isdigit())

    def _save_sharded(self, done: int) -> None:
        folder = self.folder / f"state-{done:08d}"
        beside = folder.with_name(folder.name + ".tmp")
        self.accelerator.save_state(str(beside))
        self.accelerator.wait_for_everyone()
        if self.main:
            beside.rename(folder)
            for old in self._sharded_folders()[: -self.recipe.keep]:
                shutil.rmtree(old)

    def _resume_sharded(self) -> None:
        folders = self._sharded_folders()
        if folders:
            self.accelerator.load_state(str(folders[-1]))
            self.first = int(folders[-1].name[6:])


def _progress(first: int, last: int, name: str, figures: dict[str, float], show: bool) -> Iterator[int]:
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
        TextColumn("{task.fields[figures]}"),
    )
    shares = ("waiting", "padding", "mfu")
    with Progress(*columns) as bar:
        row = bar.add_task(name, total=last, completed=first, figures="")
        for step in range(first, last):
            yield step
            text = " ".join(
                f"{key} {value:.0%}" if key in shares else f"{key} {value:.3g}"
                for key, value in figures.items()
                if key not in ("lr", "gradient_norm")
            )
            bar.update(row, completed=step + 1, figures=text)
