"""``duologue train RECIPE [key=value …]``: build the recipe, build its task, run the loop."""

from __future__ import annotations

import importlib
from typing import Any

from ..checkpoints.files import with_home
from ..checkpoints.outputs import keep_apart
from ..model.errors import DuologueError
from .recipe import Recipe, override

STAGES = (
    "asr_pretrain", "text_sft", "speech_to_text", "duplex", "word_monitor", "unit_decoder", "unit_vocoder", "codec",
    "ssl", "probe",
)  # fmt: skip


def resolve(stage: str, overrides: list[str]) -> Recipe:
    """The recipe of a stage with ``preset=`` and every other ``key=value`` applied."""
    if stage not in STAGES:
        raise DuologueError(f"unknown recipe {stage!r}; the recipes are: {', '.join(STAGES)}")
    overrides = [with_home(entry) for entry in overrides]
    module = importlib.import_module(f".recipes.{stage}", __package__)
    presets = [entry.partition("=")[2] for entry in overrides if entry.startswith("preset=")]
    preset = presets[-1] if presets else "nano"
    known = ("nano", "tiny", *getattr(module, "PRESETS", ()))
    if preset not in known:
        raise DuologueError(f"preset is {preset!r}; it must be {' or '.join(map(repr, known))}")
    recipe: Recipe = module.recipe(preset)
    entries = [entry.partition("=") for entry in overrides]
    parts = {key: folder for key, _, folder in entries if key in ("llm", "encoder")}
    if parts:
        from .data.chat_tokens import with_parts

        starts = ["".join(entry) for entry in entries if entry[0] == "start"]
        recipe = with_parts(override(recipe, starts), parts)  # a part's weights join those that are started from
        entries = [entry for entry in entries if entry[0] not in ("start", *parts)]
    return override(recipe, ["".join(entry) for entry in entries if entry[0] != "preset"])


INPUTS = ("data", "dev_data", "noises", "tokenizer", "source")  # fields of recipes that name what is read


def _keep_apart(recipe: Recipe) -> None:
    """Raises DuologueError where the run's folder is one that it reads."""
    from .loop.run_folder import weighted_runs

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
