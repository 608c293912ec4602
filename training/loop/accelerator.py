"""What launched the run: one process, several, FSDP or DeepSpeed, as accelerate finds them."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, TypeVar

import torch

from ...checkpoints.store import has_bf16
from ...model.errors import DuologueError
from ..recipe import Recipe

T = TypeVar("T")


def make_accelerator(recipe: Recipe, *, adversarial: bool = False) -> Any:
    """The accelerator of this process, with the recipe's precision, batches a step and clipping.

    Raises:
        DuologueError: the processes cannot share the recipe's batches, or the engine cannot do what it is asked.
    """
    from accelerate import Accelerator, PartialState

    zero, fsdp = (os.environ.get(f"ACCELERATE_USE_{name}", "").lower() == "true" for name in ("DEEPSPEED", "FSDP"))
    # Several processes on a machine without an accelerator speak gloo; DeepSpeed finds that out by itself.
    cpu = not torch.accelerator.is_available() and not zero
    if fsdp and cpu:
        raise DuologueError("accelerate runs FSDP on GPUs alone; without one use DeepSpeed, or neither")
    if (zero or fsdp) and (recipe.ema or recipe.optimiser == "muon" or adversarial):
        raise DuologueError("FSDP and DeepSpeed want optimiser=adamw, ema=0 and no adversary")
    processes = PartialState(cpu=cpu)
    if zero and torch.distributed.is_initialized():
        # Without a GPU accelerate 1.15 takes each of DeepSpeed's processes for the only one.
        processes.num_processes = torch.distributed.get_world_size()
        processes.process_index = torch.distributed.get_rank()
        processes.local_process_index = int(os.environ.get("LOCAL_RANK", 0))
    world = processes.num_processes
    if recipe.accumulate % world:
        raise DuologueError(
            f"{world} processes cannot share {recipe.accumulate} batches a step: give accumulate={world} (a step "
            f"is then {world} batches of {recipe.batch_size}) or a multiple of it"
        )
    fraction = recipe.accumulate // world
    precision = recipe.precision
    if precision == "auto":
        precision = "bf16" if has_bf16() else "no"
    accelerator = Accelerator(cpu=cpu, mixed_precision=precision, gradient_accumulation_steps=fraction)
    if zero:  # what the recipe says is not to be said again to the launcher
        config = accelerator.state.deepspeed_plugin.deepspeed_config
        config["train_micro_batch_size_per_gpu"] = recipe.batch_size
        config["gradient_accumulation_steps"] = fraction
        config["gradient_clipping"] = recipe.clip
        config["zero_optimization"]["stage3_gather_16bit_weights_on_model_save"] = True
    return accelerator


def everywhere(accelerator: Any, good: bool) -> bool:
    """Whether it is so in every process."""
    if accelerator.num_processes == 1:
        return good
    flag = torch.tensor(float(good), device=accelerator.device)
    return bool(accelerator.reduce(flag, "sum") == accelerator.num_processes)


def on_main(accelerator: Any, work: Callable[[], T]) -> T | None:
    """What ``work`` returns, in the main process; None in the others. A DuologueError of it is raised in all."""
    made, fault = None, [""]
    if accelerator.is_main_process:
        try:
            made = work()
        except DuologueError as error:
            fault = [str(error)]
    if accelerator.num_processes > 1:
        torch.distributed.broadcast_object_list(fault, src=0)
    if fault[0]:
        raise DuologueError(fault[0])
    return made


def build_whole(recipe: Recipe) -> Any:
    """The recipe's task, built by one process for itself: under ZeRO-3 transformers would wait for the others."""
    from transformers.integrations.deepspeed import unset_hf_deepspeed_config

    unset_hf_deepspeed_config()
    return recipe.build()
