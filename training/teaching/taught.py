"""A stage whose task is taught: its own loss on the labels, and the divergence from what its teachers say.

A stage becomes one that is taught by saying which logits count (:meth:`Taught.predicted`), which rows they belong to
(:meth:`Taught.taught_rows`) and what a teacher is (:meth:`Taught.teacher`). Teachers are no part of the task: they are
not saved, and where the cache knows all that they would say they are not even loaded.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from ...model.errors import DuologueError
from ..data.turns import weighted_mean
from ..loop.task import Batch, Task
from ..losses.distillation import Target, joint
from ..recipe import Recipe
from .cache import TargetCache
from .teachers import fingerprint


@dataclass(frozen=True, kw_only=True)
class TaughtRecipe(Recipe):
    """Who teaches, and how much it counts."""

    part: str  # what learns: llm, encoder or unit_decoder
    teachers: tuple[str, ...] = ()  # runs, checkpoints or imported parts
    teacher_weights: tuple[float, ...] = ()  # of each; none: all alike
    combine: Literal["probabilities", "logits"] = "probabilities"  # what is averaged over several teachers
    temperature: float = 1.0  # of the teachers' distributions and the student's
    label_weight: float = 0.5  # of the stage's own loss on the labels; the teachers have the rest. 1: none is asked
    cache: str | None = None  # folder in which what they said is kept
    top_k: int = 0  # of a distribution, keep so many classes, and the others as one; 0: all

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check_fractions("label_weight")
        if not 0 < self.temperature < float("inf"):
            raise DuologueError(f"temperature is {self.temperature}; it must be above 0")
        if self.teacher_weights and (
            len(self.teacher_weights) != len(self.teachers) or not all(w > 0 for w in self.teacher_weights)
        ):
            raise DuologueError(
                f"teacher_weights is {','.join(map(str, self.teacher_weights))}; it must be a number above 0 for each "
                f"of the {len(self.teachers)} teachers"
            )

    @property
    def fractions(self) -> list[float]:
        """What each teacher counts, which makes one."""
        weights = self.teacher_weights or (1.0,) * len(self.teachers)
        return [weight / sum(weights) for weight in weights]

    def check_teachers(self) -> None:
        """Raises DuologueError where somebody should teach, and nobody is named."""
        if self.label_weight < 1 and not self.teachers:
            raise DuologueError("recipe distil needs teachers=FOLDER[,FOLDER]: runs or models that have the part")


class Predicted(NamedTuple):
    """Logits (N, V) at the positions that count, their weights (N,), the stage's own loss (), and what it shows."""

    logits: Tensor
    weights: Tensor
    loss: Tensor
    shown: dict[str, Tensor]


class RowOfBatch(NamedTuple):
    """One row: the key of all that a teacher is given of it, and how many of a batch's N positions are its own."""

    key: bytes
    positions: int


class Taught(Task):
    """Mixed in before the task of a stage, which has made the modules by the time that :meth:`enrol` is called."""

    def enrol(self, recipe: TaughtRecipe) -> None:
        """Take the teachers of a recipe, behind ``__init__``."""
        recipe.check_teachers()
        self.teaching = Teaching(recipe, self.teacher) if recipe.label_weight < 1 else None

    def predicted(self, batch: Batch) -> Predicted:
        """What the student says of a batch."""
        raise NotImplementedError

    def taught_rows(self, batch: Batch) -> list[RowOfBatch]:
        """The rows of a batch in the order in which their positions are predicted."""
        raise NotImplementedError

    def teacher(self, name: str) -> nn.Module:
        """The teacher of that name: of a batch it returns logits (N, V). Raises DuologueError for one that is none."""
        raise NotImplementedError

    def forward(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        found = self.predicted(batch)
        if self.teaching is None:
            return found.loss, found.shown
        recipe = self.teaching.recipe
        target = self.teaching(batch, found.logits, lambda: self.taught_rows(batch))
        taught = weighted_mean(target.divergence(found.logits, recipe.temperature), found.weights)
        loss = recipe.label_weight * found.loss + (1 - recipe.label_weight) * taught
        return loss, found.shown | {"labels": found.loss.detach(), "taught": taught.detach()}


class Teaching:
    """What the teachers of a recipe say of batches, by the cache or by themselves."""

    def __init__(self, recipe: TaughtRecipe, load: Callable[[str], nn.Module]) -> None:
        self.recipe, self._load = recipe, load
        self._teachers: list[nn.Module] = []
        self.cache = None if recipe.cache is None else TargetCache(recipe.cache, self._name())
        if self.cache is None or not len(self.cache):
            self._called(torch.device("cpu"))  # what is wrong with a teacher is said before anything is computed

    def _name(self) -> str:
        """Of what is kept: the teachers' weights, and what is made of their logits."""
        r = self.recipe
        about = [r.part, r.fractions, r.combine, r.temperature, r.top_k, [fingerprint(t, r.part) for t in r.teachers]]
        return hashlib.sha256(repr(about).encode()).hexdigest()[:16]

    def _called(self, device: torch.device) -> list[nn.Module]:
        if not self._teachers:
            self._teachers = [self._load(name).eval() for name in self.recipe.teachers]
        return [teacher.to(device) for teacher in self._teachers]

    @torch.no_grad()
    def __call__(self, batch: Batch, student: Tensor, rows: Callable[[], list[RowOfBatch]]) -> Target:
        """What the student, whose logits (N, V) these are, is to say at the N positions of a batch."""
        if self.cache is None:
            return self._asked(batch, student)
        cache, named = self.cache, rows()
        if all(row.key in cache for row in named):
            return _joined([cache[row.key] for row in named], student.device)
        target, start = self._asked(batch, student), 0
        for key, positions in named:
            end = start + positions
            if key not in cache:
                tokens = None if target.tokens is None else target.tokens[start:end]
                cache.add(key, Target(target.log_probs[start:end], tokens))
            start = end
        return target

    def _asked(self, batch: Batch, student: Tensor) -> Target:
        said = [teacher(batch) for teacher in self._called(student.device)]
        # Vocabularies of one family are filled up to different sizes: what all have counts.
        size = min(logits.shape[1] for logits in (student, *said))
        r = self.recipe
        target = joint([logits[:, :size] for logits in said], r.fractions, r.temperature, r.combine == "logits")
        return target.likeliest(r.top_k) if r.top_k else target


def _joined(targets: list[Target], device: torch.device) -> Target:
    tokens = [target.tokens for target in targets if target.tokens is not None]
    whole = torch.cat([target.log_probs for target in targets]).to(device)
    return Target(whole, torch.cat(tokens).to(device) if tokens else None)


def key_of(*parts: Tensor) -> bytes:
    """Of all that a teacher is given of a row."""
    digest = hashlib.sha256()
    for part in parts:
        values = np.ascontiguousarray(part.detach().cpu().numpy())
        digest.update(f"{values.dtype} {values.shape}".encode() + values.tobytes())
    return digest.digest()


def rows_of(items: Iterable[tuple[bytes, int]]) -> list[RowOfBatch]:
    """Those of (key, count), without such as have no position that counts."""
    return [RowOfBatch(key, count) for key, count in items if count]
