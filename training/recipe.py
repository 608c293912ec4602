"""Recipes: a run is one frozen dataclass, made by a function, changed by KEY=VALUE, saved beside the weights."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Self

from ..checkpoints.files import write_text
from ..model.errors import DuologueError

if TYPE_CHECKING:
    from .loop.task import Task


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """What every stage states. A stage's own recipe adds its data and the weights of its losses."""

    stage: str  # the recipe's name
    out: str  # the run's folder: weights, recipe, checkpoints, TensorBoard
    start: tuple[str, ...] = ()  # "PREFIX=FOLDER": the tensors below PREFIX come from that run or checkpoint
    learn: tuple[str, ...]  # parameter prefixes that learn; all else is frozen; each must match
    steps: int
    batch_size: int = 32
    accumulate: int = 1  # batches a step, shared among the processes
    lr: float = 1e-3
    warmup: int = 200  # steps of linear rise
    schedule: str = "cosine"  # cosine to zero | constant
    optimiser: str = "adamw"  # adamw | muon (for the matrices inside, adamw for the rest)
    betas: tuple[float, float] = (0.9, 0.98)
    weight_decay: float = 0.01
    clip: float = 1.0  # gradient norm
    bad_fraction: float = (
        0.05  # of the last 100 steps: more than so many with a loss or gradient not finite end the run
    )
    ema: float = 0.0  # decay of the average of the weights that is evaluated and handed on; 0: the weights themselves
    best: str | None = None  # "min:NAME" or "max:NAME": the figure by which best.safetensors is kept
    seed: int = 0
    precision: str = "no"  # no | bf16 | auto: bf16 where the processor computes in it
    compile: bool = False
    workers: int = 1  # processes that make batches; 0: in the training process
    log_every: int = 20
    save_every: int = 200
    keep: int = 2  # resumable checkpoints to keep

    def __post_init__(self) -> None:
        if self.schedule not in ("cosine", "constant"):
            raise DuologueError(f"schedule is {self.schedule!r}; it must be 'cosine' or 'constant'")
        if self.optimiser not in ("muon", "adamw"):
            raise DuologueError(f"optimiser is {self.optimiser!r}; it must be 'adamw' or 'muon'")
        if self.precision not in ("no", "bf16", "auto"):
            raise DuologueError(f"precision is {self.precision!r}; it must be 'no', 'bf16' or 'auto'")
        if not 0 <= self.ema < 1:
            raise DuologueError(f"ema is {self.ema}; it must be 0 (none) or a decay below 1, for example 0.999")
        if not 0 <= self.bad_fraction < 1:
            raise DuologueError(f"bad_fraction is {self.bad_fraction}; it must be a fraction of steps, 0 to below 1")
        if self.best is not None and not self.best.startswith(("min:", "max:")):
            raise DuologueError(f"best is {self.best!r}; it must be min:NAME or max:NAME, for example min:loss")
        self.check_least(1, "steps", "batch_size", "accumulate", "log_every", "save_every", "keep")
        numbers = [field.name for field in dataclasses.fields(self) if field.type in ("int", "float")]
        self.check_least(0, *numbers)
        if self.workers > 256:
            raise DuologueError(f"workers is {self.workers}; it must be at most 256")
        if not all(0 <= beta < 1 for beta in self.betas):
            raise DuologueError(f"betas is {self.betas}; both must be 0 to below 1, for example 0.9,0.98")
        for name in ("out", "learn"):
            if not getattr(self, name):
                raise DuologueError(f"{name} is empty; it must name {'a folder' if name == 'out' else 'what learns'}")
        for entry in self.start:
            if "=" not in entry:
                raise DuologueError(f"start entry is {entry!r}; it must be PREFIX=FOLDER, for example encoder=runs/asr")

    def check_least(self, least: int, *names: str) -> None:
        """Raises DuologueError unless each of these fields is at least so much."""
        for name in names:
            if not getattr(self, name) >= least:
                raise DuologueError(f"{name} is {getattr(self, name)}; it must be at least {least}")

    def check_fractions(self, *names: str) -> None:
        """Raises DuologueError unless each of these fields is a fraction."""
        for name in names:
            if not 0 <= getattr(self, name) <= 1:
                raise DuologueError(f"{name} is {getattr(self, name)}; a fraction lies between 0 and 1")

    @property
    def joins(self) -> tuple[str, ...]:
        """Parts that may come from elsewhere, by ``PART=FOLDER`` (see chat_tokens.py)."""
        return ()

    def fitted(self) -> Self:
        """The same with all that joins such parts made to fit them, before other settings are applied."""
        return self

    def completed(self) -> Self:
        """The same with what follows from its settings, once all are applied."""
        return self

    def build(self) -> Task:
        """The task of this recipe."""
        raise NotImplementedError

    def lr_at(self, step: int) -> float:
        """The learning rate at a step: linear warm-up, then the schedule."""
        import math

        rise = min(1.0, (step + 1) / max(1, self.warmup))
        if self.schedule == "constant":
            return self.lr * rise
        done = min(1.0, max(0.0, (step - self.warmup) / max(1, self.steps - self.warmup)))
        return self.lr * rise * 0.5 * (1 + math.cos(math.pi * done))


@dataclass(frozen=True, kw_only=True)
class CrossEntropyRecipe(Recipe):
    """A stage that learns to predict tokens."""

    mile: float = 0.0  # MiLe loss: a token counts (1 + entropy)^mile, where the model is unsure; 0: all alike


def save_recipe(recipe: Recipe, folder: Path) -> None:
    """Write the resolved recipe as ``recipe.json``."""
    text = json.dumps(dataclasses.asdict(recipe), indent=2) + "\n"
    write_text(folder / "recipe.json", text)
