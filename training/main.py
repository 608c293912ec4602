"""``duologue train RECIPE [KEY=VALUE …]``: build the recipe, build its task, run the loop."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from ..checkpoints.files import with_home
from ..checkpoints.outputs import keep_apart
from ..checkpoints.settings import Catalogue, read_settings
from .recipe import Recipe

RECIPES = Catalogue("training/recipes", "recipe", defines="recipe")
PARTS = ("llm", "encoder", "adaptor")  # what may come from elsewhere: PART=FOLDER
INPUTS = ("data", "dev_data", "noises", "tokenizer", "source", "teachers")  # fields of recipes that name what is read


def resolve(stage: str, overrides: list[str]) -> Recipe:
    """The recipe of a stage with ``preset=`` and every other ``key=value`` applied."""
    given = [(word.partition("=")[0], word) for word in overrides]
    build = RECIPES.module(stage).recipe
    # By what a recipe is made, before it has settings: the preset, and where there are several the part that learns.
    chosen = {key: word.partition("=")[2] for key, word in given if key in ("preset", *_choices(build))}
    recipe: Recipe = build(chosen.pop("preset", "nano"), **chosen)
    parts = {key: with_home(word).partition("=")[2] for key, word in given if key in PARTS}
    kept = [word for key, word in given if key not in ("preset", *_choices(build), *parts)]
    if parts:  # a part's weights join those that are started from
        from .data.chat_tokens import with_parts

        starts = [word for key, word in given if key == "start"]
        recipe = with_parts(_changed(recipe, starts), parts)
        kept = [word for word in kept if word not in starts]
    return _changed(recipe, kept).completed()


def _choices(build: Callable[..., Recipe]) -> list[str]:
    """The arguments of a function ``recipe`` behind the name of a preset."""
    return list(inspect.signature(build).parameters)[1:]


def _changed(recipe: Recipe, words: list[str]) -> Recipe:
    return read_settings(recipe, words, f"recipe {recipe.stage}", fixed=("stage",))


def _keep_apart(recipe: Recipe) -> None:
    """Raises DuologueError where the run's folder is one that it reads."""
    from .loop.parts import weighted_runs

    read: dict[str, Any] = {f"{name}=": getattr(recipe, name, None) for name in INPUTS}
    means = (entry.partition("=")[2] for entry in recipe.start)
    read["start="] = [folder for mean in means for _, folder in weighted_runs(mean)]
    keep_apart({"out=": recipe.out}, read)


def run(stage: str, overrides: list[str]) -> dict[str, float]:
    """Train a stage, or go on with it: ``run("asr_pretrain", ["steps=1000", "out=runs/a"])``."""
    from .loop.trainer import train

    recipe = resolve(stage, overrides)
    _keep_apart(recipe)
    task = recipe.build()
    return train(recipe, task)
