"""Muon for the matrices inside a network, AdamW for everything else, as one optimiser.

Muon makes each update of a matrix nearly orthogonal, so that all directions of it learn at the same pace; scaled to
AdamW's root mean square, both take the same learning rate.

PyTorch's Muon multiplies in bfloat16, which a CPU without it in hardware does 20 times as slowly as in float32: there
the same steps are taken in float32.

Source: Jordan et al. 2024, "Muon: An optimizer for hidden layers in neural networks"; the scale, Liu et al. 2025, "Muon
is Scalable for LLM Training" (arXiv 2502.16982), section 2.2.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from ...checkpoints.store import has_bf16
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


class Float32Muon(torch.optim.Muon):
    """PyTorch's, with its state, in float32; for ``adjust_lr_fn="match_rms_adamw"``."""

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                state = self.state[parameter]
                if not state:
                    state["momentum_buffer"] = torch.zeros_like(parameter.grad)
                average = state["momentum_buffer"].lerp_(parameter.grad, 1 - group["momentum"])
                update = parameter.grad.lerp(average, group["momentum"]) if group["nesterov"] else average
                update = orthogonal(update, group["ns_coefficients"], group["ns_steps"], group["eps"])
                parameter.mul_(1 - group["lr"] * group["weight_decay"])
                parameter.add_(update, alpha=-0.2 * max(parameter.shape) ** 0.5 * group["lr"])


def orthogonal(x: Tensor, coefficients: tuple[float, float, float], steps: int, eps: float) -> Tensor:
    """A matrix near ``x`` whose singular values are all about 1, by that many Newton-Schulz iterations."""
    a, b, c = coefficients
    wide = x if x.shape[0] <= x.shape[1] else x.T
    wide = wide / wide.norm().clamp(min=eps)
    for _ in range(steps):
        gram = wide @ wide.T
        wide = torch.addmm(wide, torch.addmm(gram, gram, gram, beta=b, alpha=c), wide, beta=a)
    return wide if x.shape[0] <= x.shape[1] else wide.T


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
            muon = torch.optim.Muon if has_bf16() else Float32Muon
            self.both.append(muon(matrices, lr=lr, weight_decay=weight_decay, adjust_lr_fn="match_rms_adamw"))
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
