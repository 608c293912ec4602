"""Muon for the matrices inside a network, AdamW for everything else, as one optimiser.

Muon makes each update of a matrix nearly orthogonal, so that all directions of it learn at the same pace; scaled to
AdamW's root mean square, both take the same learning rate.

Source: Jordan et al. 2024, "Muon: An optimizer for hidden layers in neural networks"; the scale, Liu et al. 2025, "Muon
is Scalable for LLM Training" (arXiv 2502.16982), section 2.2.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import nn

from ..recipe import Recipe


def make_optimiser(recipe: Recipe, named: list[tuple[str, nn.Parameter]]) -> torch.optim.Optimizer:
    """The recipe's optimiser for the (name, parameter) pairs that learn."""
    if recipe.optimiser == "muon":
        return MuonAdamW(named, recipe.lr, recipe.betas, recipe.weight_decay)
    parameters = [parameter for _, parameter in named]
    return torch.optim.AdamW(parameters, lr=recipe.lr, betas=recipe.betas, weight_decay=recipe.weight_decay)


def is_hidden_matrix(name: str, parameter: nn.Parameter) -> bool:
    """Whether Muon is for it: two dimensions, and neither an embedding nor an output head."""
    return parameter.ndim == 2 and not any(word in name for word in ("embed", "head"))


class MuonAdamW(torch.optim.Optimizer):
    """Both, behind one interface: ``param_groups`` of the two in a row, one step, one state."""

    def __init__(
        self,
        named: Iterable[tuple[str, nn.Parameter]],
        lr: float,
        betas: tuple[float, float] = (0.9, 0.98),
        weight_decay: float = 0.01,
    ) -> None:
        matrices: list[nn.Parameter] = []
        rest: list[nn.Parameter] = []
        for name, parameter in named:
            (matrices if is_hidden_matrix(name, parameter) else rest).append(parameter)
        self.both: list[torch.optim.Optimizer] = []
        if matrices:
            self.both.append(
                torch.optim.Muon(matrices, lr=lr, weight_decay=weight_decay, adjust_lr_fn="match_rms_adamw")
            )
        if rest:
            self.both.append(torch.optim.AdamW(rest, lr=lr, betas=betas, weight_decay=weight_decay))
        super().__init__([{"params": [*matrices, *rest]}], {})
        self.param_groups = [group for one in self.both for group in one.param_groups]

    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        loss = None if closure is None else closure()
        for one in self.both:
            one.step()
        return loss

    def zero_grad(self, set_to_none: bool = True) -> None:
        for one in self.both:
            one.zero_grad(set_to_none)

    def state_dict(self) -> dict[str, Any]:
        return {"both": [one.state_dict() for one in self.both]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        for one, state in zip(self.both, state_dict["both"], strict=True):
            one.load_state_dict(state)
        self.param_groups = [group for one in self.both for group in one.param_groups]
