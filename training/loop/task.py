"""What a stage is to the loop: modules, batches, a loss; and which of its parameters learn."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch import Tensor, nn

from ...model.errors import DuologueError
from .throughput import StepCost

Batch = dict[str, Any]


class Task(nn.Module):
    """What a recipe builds: the modules, the batches and the loss of one stage.

    ``forward(batch)`` returns the loss and a dictionary of figures (plain floats or scalar tensors) to show.
    """

    def batch(self, number: int) -> Batch:
        """Batch ``number``: runs in a worker process, keyed by (seed, number), never by the order of calls."""
        raise NotImplementedError

    def parts(self) -> dict[str, nn.Module]:
        """What the stage hands on: what is saved in model.safetensors. A part that a model is assembled from has
        its name in SpeechLMConfig; heads that only training needs are left out."""
        raise NotImplementedError

    def adapt(self) -> None:
        """Change the modules once the start is loaded and before anything learns (LoRA puts its matrices in)."""

    def stays(self, name: str) -> bool:
        """Whether a parameter below a prefix that learns is frozen all the same (LoRA: the weights it adds to)."""
        return False

    def moves(self, name: str) -> bool:
        """Whether a parameter without gradients changes all the same (a codebook's entries, by averages)."""
        return False

    def evaluate(self) -> dict[str, float]:
        """Figures on held-out data, asked for at every save. None by default."""
        return {}

    def load_of(self, batch: Batch) -> StepCost | None:
        """How much a batch holds, for the figures of throughput; None: they leave it out."""
        return None

    adversarial = False  # whether a discriminator learns beside it: forward then also returns made and recorded (B, n)
    discriminator_after = 0  # steps that a generator has to itself

    def make_discriminator(self) -> Discriminator:
        """A fresh module, no part of the task, that learns to tell what the task makes from recordings."""
        raise NotImplementedError


class Discriminator(nn.Module):
    """``discriminator(made, recorded)``, both (B, n): its own loss and metrics."""

    def judge(self, made: Tensor, recorded: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """What the generator loses by it, and the metrics of that."""
        raise NotImplementedError


def below(name: str, prefixes: Iterable[str]) -> bool:
    """Whether a parameter is one of the modules of these names, or in one of them."""
    return any(f"{name}.".startswith(f"{prefix}.") for prefix in prefixes)


def freeze(task: Task, learn: tuple[str, ...]) -> list[tuple[str, nn.Parameter]]:
    """Let only what is below the prefixes learn, and return it by name. A prefix that matches nothing is an error."""
    names = [name for name, _ in task.named_parameters()]
    for prefix in learn:
        if not any(below(name, [prefix]) for name in names):
            tops = sorted({name.split(".")[0] for name in names})
            raise DuologueError(f"learn prefix {prefix!r} matches no parameter; they begin with: {', '.join(tops)}")
    for name, parameter in task.named_parameters():
        named = below(name, learn)
        parameter.requires_grad_(named and not task.stays(name))
    return [(name, parameter) for name, parameter in task.named_parameters() if parameter.requires_grad]


def require_gradients(task: Task, learn: tuple[str, ...]) -> None:
    """After a backward pass: DuologueError for a prefix that should learn and that no gradient has reached."""
    for prefix in learn:
        learning = [p for name, p in task.named_parameters() if p.requires_grad and below(name, [prefix])]
        if learning and all(parameter.grad is None for parameter in learning):
            raise DuologueError(f"learn={prefix}: no gradient reaches it in this stage, so it would stay as it is")
