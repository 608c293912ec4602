"""Building data sets: `duologue prepare RECIPE [KEY=VALUE …]`, each a file in recipes/."""

from __future__ import annotations

from typing import Any

from ..checkpoints.outputs import keep_apart
from ..checkpoints.settings import Catalogue, read_settings

RECIPES = Catalogue("data_prep/recipes", "recipe")
OUTPUTS = ("out", "quantiser")  # settings that name what is written
INPUTS = ("source", "data", "codec", "checkpoint", "llm")  # and what is read


def main(recipe: str, words: list[str]) -> dict[str, Any]:
    """Make or complete a data set; returns its counts.

    Raises DuologueError for what a recipe does not take, for an output that is also read, and as the recipe does.
    """
    module = RECIPES.module(recipe)
    config = read_settings(module.Config, words, f"recipe {recipe}")
    written, read = ({f"{name}=": getattr(config, name, None) for name in names} for names in (OUTPUTS, INPUTS))
    keep_apart(written, read)
    return dict(module.run(config))
