"""What launched the run: one process, several, FSDP or DeepSpeed, as accelerate finds them."""

from __future__ import annotations

import os
from typing import Any

import torch

from ...model.errors import DuologueError
from ..recipe import Recipe


def make_accelerator(recipe: Recipe) -> Any:
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
    if (zero or fsdp) and (recipe.ema or recipe.optimiser == "muon" or getattr(recipe, "adversary", False)):
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
    accelerator = Accelerator(cpu=cpu, mixed_precision=recipe.precision, gradient_accumulation_steps=fraction)
    if zero:  # what the recipe says is not to be said again to the launcher
        config = accelerator.state.deepspeed_plugin.deepspeed_config
        config["train_micro_batch_size_per_gpu"] = recipe.batch_size
        config["gradient_accumulation_steps"] = fraction
        config["gradient_clipping"] = recipe.clip
        config["zero_optimization"]["stage3_gather_16bit_weights_on_model_save"] = True
    return accelerator


def build_whole(recipe: Recipe) -> Any:
    """The recipe's task, built by one process for itself: under ZeRO-3 transformers would wait for the others."""
    from transformers.integrations.deepspeed import unset_hf_deepspeed_config

    unset_hf_deepspeed_config()
    return recipe.build()
