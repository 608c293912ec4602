"""An exponential moving average of the weights: what is evaluated and handed on, while training goes on underneath.

Source: Polyak and Juditsky 1992; as used by Ho et al. (arXiv 2006.11239), section 4.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator

import torch
from torch import Tensor, nn


class Ema:
    """``average = decay * average + (1 - decay) * weight`` after every step, for the parameters that learn."""

    def __init__(self, decay: float, learnt: list[tuple[str, nn.Parameter]]) -> None:
        self.decay = decay
        self.average: dict[str, Tensor] = {name: parameter.detach().clone() for name, parameter in learnt}

    @torch.no_grad()
    def update(self, parameters: Iterable[tuple[str, nn.Parameter]]) -> None:
        """After a step."""
        for name, parameter in parameters:
            if name in self.average:
                average = self.average[name] = self.average[name].to(parameter.device)
                average.lerp_(parameter.detach(), 1 - self.decay)

    def load(self, average: dict[str, Tensor]) -> None:
        """Go on from a checkpoint's averages."""
        self.average = {name: tensor.clone() for name, tensor in average.items()}

    @contextlib.contextmanager
    def applied(self, task: nn.Module) -> Iterator[None]:
        """The averages in the place of the weights for a while."""
        own = {name: p for name, p in task.named_parameters() if name in self.average}
        kept = {name: parameter.detach().clone() for name, parameter in own.items()}
        with torch.no_grad():
            for name, parameter in own.items():
                parameter.copy_(self.average[name])
        try:
            yield
        finally:
            with torch.no_grad():
                for name, parameter in own.items():
                    parameter.copy_(kept[name])
