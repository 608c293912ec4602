"""LoRA: low-rank updates that learn in the place of a language model's weights, and are added to them on export.

Source: Hu et al., "LoRA: Low-Rank Adaptation of Large Language Models" (arXiv 2106.09685), section 4; the layers are
peft's.
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from ...model.errors import DuologueError
from ...model.language_model.causal_lm import LLM
from .task import Task


class LoraTask(Task):
    """A task whose language model may learn by low-rank updates.

    lora: their rank; 0: its weights themselves learn.
    """

    llm: LLM

    @property
    def lora(self) -> int:
        raise NotImplementedError

    def adapt(self) -> None:
        if self.lora:
            add_lora(self.llm, self.lora)

    def stays(self, name: str) -> bool:
        return bool(self.lora) and name.startswith("llm.") and not is_lora(name)


def add_lora(llm: LLM, rank: int) -> None:
    """Put updates of ``rank`` into every linear layer of the language model but its head, in place; scale 2.

    Raises:
        DuologueError: peft is not installed, or the rank is not positive.
    """
    if rank < 1:
        raise DuologueError(f"lora is {rank}; it must be 0 (none) or a rank, for example 16")
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError:
        raise DuologueError("lora needs the package peft: pip install duologue[train]") from None
    inject_adapter_in_model(LoraConfig(r=rank, lora_alpha=2 * rank, target_modules="all-linear"), llm.lm)


@contextlib.contextmanager
def without_lora(llm: LLM) -> Iterator[None]:
    """The language model without its updates, for as long as it lasts."""
    layers: list[Any] = [module for module in llm.modules() if hasattr(module, "base_layer")]
    for layer in layers:
        layer.enable_adapters(False)
    try:
        yield
    finally:
        for layer in layers:
            layer.enable_adapters(True)


def is_lora(name: str) -> bool:
    """Whether a parameter of that name is part of an update."""
    return ".lora_" in name


@torch.no_grad()
def merged(llm: LLM) -> LLM:
    """The language model with its updates added to its weights, under its plain names; itself if it has none."""
    if not any(is_lora(name) for name, _ in llm.named_parameters()):
        return llm
    whole = copy.deepcopy(llm)
    for name, module in list(whole.named_modules()):
        if hasattr(module, "base_layer"):
            module.merge()
            owner, _, last = name.rpartition(".")
            setattr(whole.get_submodule(owner), last, module.get_base_layer())
    for module in whole.modules():  # what peft left on the model itself
        if isinstance(module, nn.Module) and hasattr(module, "peft_config"):
            del module.peft_config
    return whole
