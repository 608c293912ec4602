"""A run's checkpoints, figures and weights: what it goes on from, and what is written at each save.

A save that fails ends no run: what could not be written is said and tried again at the next save. Only the last must
be whole. All processes agree on the checkpoint to go on from, and on every error.
"""

from __future__ import annotations

import contextlib
import hashlib
import shutil
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ...checkpoints.files import expanded
from ...checkpoints.source import WEIGHTS, one_line
from ...model.errors import DuologueError
from ..recipe import Recipe
from .accelerator import build_whole, everywhere, make_accelerator, on_main
from .ema import Ema
from .optimiser import make_optimiser
from .parts import load_parts, save_parts
from .run_folder import BEST, METRICS_LOG, MetricsLog, States, read_state, states, warn
from .scalars import Scalars
from .task import Task, below, freeze

_SAMPLED = 1009  # one value in so many stands for a tensor


def fingerprint(weights: Mapping[str, Tensor]) -> str:
    """Of the names and sizes of weights, and some of their values."""
    digest = hashlib.sha256()
    for name, weight in sorted(weights.items()):
        values = weight.detach().flatten()[::_SAMPLED].float().cpu().numpy()
        digest.update(f"{name} {tuple(weight.shape)}".encode() + values.tobytes())
    return digest.hexdigest()


class Run:
    """One process's side of a run: what learns, from which checkpoint it goes on, and what is written at each save."""

    wrapped_discriminator: Any
    discriminator_optimiser: Any
    _whole: Task | None = None  # under FSDP and DeepSpeed: the task with whole weights, to evaluate and hand on

    def __init__(self, recipe: Recipe, task: Task) -> None:
        from accelerate.utils import DistributedType

        self.recipe, self.task = recipe, task
        self.folder = expanded(recipe.out)
        self.accelerator = make_accelerator(recipe, adversarial=task.adversarial)
        kind = self.accelerator.distributed_type
        # Each process has a part of the weights alone.
        self.sharded = kind in (DistributedType.FSDP, DistributedType.DEEPSPEED)
        self.deepspeed = kind is DistributedType.DEEPSPEED
        self.main = self.accelerator.is_main_process
        self.bad: list[int] = []  # recent steps that were left out
        self.first = 0
        self.failed_saves = 0
        self.saved: dict[str, int] = {}  # what is whole in the folder, and of which step
        self.states = States(self.folder, recipe.keep)
        on_main(self.accelerator, self._make_folder)
        torch.manual_seed(recipe.seed)
        load_parts(task.parts() | dict(task.named_children()), recipe.start)
        task.adapt()
        learnt = freeze(task, recipe.learn)
        given = tuple(entry.partition("=")[0] for entry in recipe.start)
        frozen = [(name, weight) for name, weight in task.named_parameters() if not weight.requires_grad]
        # Frozen, and from elsewhere: a checkpoint has what they were, not they, which may be gigabytes.
        self.given = {name: weight for name, weight in frozen if below(name, given) and not task.moves(name)}
        optimiser = make_optimiser(recipe, learnt)
        self.ema = Ema(recipe.ema, learnt) if recipe.ema else None
        self.discriminator = task.make_discriminator() if task.adversarial else None
        discriminator_optimiser = None
        if self.discriminator is not None:
            discriminator_optimiser = torch.optim.AdamW(
                self.discriminator.parameters(), recipe.lr, recipe.betas, weight_decay=0.0
            )
        if not self.sharded:
            self._resume(optimiser, discriminator_optimiser)
        self.learnt = [parameter for _, parameter in learnt]
        self.wrapped, self.optimiser = self.accelerator.prepare(task, optimiser)
        if self.discriminator is not None:
            self.wrapped_discriminator, self.discriminator_optimiser = self.accelerator.prepare(
                self.discriminator, discriminator_optimiser
            )
        if self.sharded:
            self._resume_sharded()
        self.metrics_log = on_main(self.accelerator, lambda: MetricsLog(self.folder).begin(self.first))
        self.forward = torch.compile(self.wrapped) if recipe.compile else self.wrapped

    def _make_folder(self) -> None:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise DuologueError(f"cannot make the folder out={self.folder}: {error.strerror or error}") from None

    def _resume(self, optimiser: Any, discriminator_optimiser: Any) -> None:
        """Go on from the newest checkpoint that the main process can read, if there is any."""
        state = on_main(self.accelerator, self._newest)
        name = [None if state is None else self.states.newest_file]
        if self.accelerator.num_processes > 1:
            torch.distributed.broadcast_object_list(name, src=0)
        if name[0] is None:
            return
        state = state or read_state(name[0])
        if set(state["learn"]) != set(self.recipe.learn) or state["optimiser_kind"] != self.recipe.optimiser:
            raise DuologueError(
                f"{self.folder} was trained with learn={','.join(state['learn'])} optimiser={state['optimiser_kind']}; "
                "go on with the same, or give another out="
            )
        now = fingerprint(self.given)
        if state.get("given", now) != now:
            raise DuologueError(
                f"{self.folder} was trained with other weights than those of start={','.join(self.recipe.start)}; "
                "go on with the same, or give another out="
            )
        try:
            self.task.load_state_dict(dict(self.given) | state["task"])
            optimiser.load_state_dict(state["optimiser"])
            if self.ema is not None and state["ema"] is not None:
                self.ema.load(state["ema"])
            if self.discriminator is not None:
                self.discriminator.load_state_dict(state["rival"])
                discriminator_optimiser.load_state_dict(state["rival_optimiser"])
            torch.set_rng_state(state["rng"])
            if state["cuda_rng"] is not None and torch.cuda.is_available():
                torch.cuda.set_rng_state(state["cuda_rng"])
            self.first, self.bad = int(state["step"]), list(state["bad"])
        except (RuntimeError, ValueError, TypeError, KeyError, AttributeError) as error:
            raise DuologueError(
                f"{name[0]} does not fit this recipe: {one_line(error)}; nothing was changed: go on with the same "
                "settings, or give another out="
            ) from None
        self.saved[name[0].name] = self.first

    def _newest(self) -> dict[str, Any] | None:
        state = self.states.newest()
        if state is None and self._sharded_folders():
            raise DuologueError(
                f"{self._sharded_folders()[-1]} was written under FSDP or DeepSpeed: go on under the same launcher, or "
                "give another out="
            )
        return state

    def _save(self, done: int, metrics: dict[str, float], scalars: Scalars | None) -> list[str]:
        """Evaluate, then write figures, weights and, last of all, the checkpoint to resume from.

        Returns:
            What could not be written, and why, in the main process; the rest is whole.
        """
        task: Any = self.accelerator.unwrap_model(self.wrapped)
        faults: list[str] = []

        def attempt(name: str, write: Callable[[], None]) -> bool:
            try:
                write()
            except DuologueError as error:
                faults.append(str(error))
                return False
            self.saved[name] = done
            return True

        if self.sharded:
            task = self._gathered()
        if task is not None and self.metrics_log is not None and scalars is not None:
            with self.ema.applied(task) if self.ema is not None else contextlib.nullcontext():
                task.eval()
                measured = task.evaluate()
                parts = task.parts()
                metrics |= measured
                row = {"step": done, "time": round(time.time(), 1)} | metrics
                attempt(self.metrics_log.path.name, lambda: self.metrics_log.add(row))  # type: ignore[union-attr]
                best = self.metrics_log.is_best(self.recipe.best)
                attempt(WEIGHTS, lambda: save_parts(parts, self.folder / WEIGHTS))
                if best and not attempt(BEST, lambda: save_parts(parts, self.folder / BEST)):
                    self.metrics_log.best_not_kept()
            scalars.add(measured, done)
            if scalars.fault:
                faults.append(scalars.fault)
        if done == self.recipe.steps and not everywhere(self.accelerator, not faults):
            faults.append("its checkpoint was not written, so that the last steps are done again")
        elif self.sharded:
            attempt(f"state-{done:08d}", lambda: self._save_sharded(done))
        elif self.main:
            attempt(f"state-{done:08d}.pt", lambda: self.states.save(self._state(done, task)))
        self.accelerator.wait_for_everyone()
        if self._whole is not None:
            self._whole.cpu()  # until the next save
        self.task.train()
        if faults and self.main:
            self.failed_saves += 1
            if done < self.recipe.steps:
                warn(f"the save of step {done} failed, and is tried again at the next one: {'; '.join(faults)}")
        return faults

    def _state(self, done: int, task: Task) -> dict[str, Any]:
        discriminator = self.discriminator is not None
        return {
            "step": done,
            "task": {name: value for name, value in task.state_dict().items() if name not in self.given},
            "given": fingerprint(self.given),
            "optimiser": self.optimiser.state_dict(),
            "optimiser_kind": self.recipe.optimiser,
            "learn": list(self.recipe.learn),
            "ema": self.ema.average if self.ema is not None else None,
            "rival": self.accelerator.unwrap_model(self.wrapped_discriminator).state_dict() if discriminator else None,
            "rival_optimiser": self.discriminator_optimiser.state_dict() if discriminator else None,
            "bad": self.bad,
            "rng": torch.get_rng_state(),
            "cuda_rng": torch.cuda.get_rng_state() if torch.cuda.is_available() else None,
        }

    def _require_whole(self, faults: list[str]) -> None:
        """Raises DuologueError if the last save failed: what did, and what is whole."""
        if faults:
            steps = [f"{name} of step {step}" for name, step in self.saved.items() if (self.folder / name).exists()]
            whole = ", ".join(steps) or "nothing of this run"
            raise DuologueError(
                f"the last save, of step {self.recipe.steps}, failed: {'; '.join(faults)}; whole in {self.folder}: "
                f"{whole}; once there is room, the same command "
                + (
                    "goes on from the newest checkpoint"
                    if self.first or any("state-" in n for n in steps)
                    else f"begins anew, when {WEIGHTS} and {METRICS_LOG} are moved away"
                )
            )

    # Under FSDP and DeepSpeed no process has all of the weights: accelerate writes a folder, each process its part.

    def _gathered(self) -> Task | None:
        """The task with whole weights in the main process, None in the others; all must ask."""
        state = self.accelerator.get_state_dict(self.wrapped)
        if not self.main:
            return None
        if self._whole is None:
            self._whole = build_whole(self.recipe)
            self._whole.adapt()
        self._whole.load_state_dict(state)
        return self._whole.to(self.accelerator.device)

    def _sharded_folders(self) -> list[Path]:
        return sorted(path for path in self.folder.glob("state-*") if path.is_dir() and path.name[6:].isdigit())

    def _save_sharded(self, done: int) -> None:
        """Raises DuologueError in all processes if any of them could not write its part."""
        folder = self.folder / f"state-{done:08d}"
        beside = folder.with_name(folder.name + ".tmp")
        fault = ""
        try:
            self.accelerator.save_state(str(beside))
        except Exception as error:  # of the file system, of torch, of DeepSpeed
            fault = one_line(error)
        whole = everywhere(self.accelerator, not fault)
        if self.main:
            try:
                if not whole:
                    shutil.rmtree(beside, ignore_errors=True)
                else:
                    beside.rename(folder)
                    earlier = [old for old in self._sharded_folders() if int(old.name[6:]) <= done]
                    for old in earlier[: -self.recipe.keep]:
                        shutil.rmtree(old)
            except OSError as error:
                fault, whole = error.strerror or str(error), False
        if not everywhere(self.accelerator, whole):
            raise DuologueError(f"cannot write {folder}: {fault or 'another process failed'}")

    def _resume_sharded(self) -> None:
        folders = self._sharded_folders()
        if not folders:
            if found := states(self.folder):
                raise DuologueError(
                    f"{found[-1]} was written without FSDP or DeepSpeed: go on without them, or give another out="
                )
            return
        try:
            self.accelerator.load_state(str(folders[-1]))
        except Exception as error:  # of the file system, of torch, of DeepSpeed
            older = f"; to go on from {folders[-2].name}, move it away" if len(folders) > 1 else ""
            raise DuologueError(
                f"{folders[-1]} cannot be read: {one_line(error)}; nothing was changed{older}"
            ) from None
        self.first = int(folders[-1].name[6:])
        self.saved[folders[-1].name] = self.first
