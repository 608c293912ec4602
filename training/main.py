"""``duologue train RECIPE [key=value …]``: build the recipe, build its task, run the loop."""

from __future__ import annotations

import importlib

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
        from .chat_tokens import with_parts

        starts = ["".join(entry) for entry in entries if entry[0] == "start"]
        recipe = with_parts(override(recipe, starts), parts)  # a part's weights join those that are started from
        entries = [entry for entry in entries if entry[0] not in ("start", *parts)]
    return override(recipe, ["".join(entry) for entry in entries if entry[0] != "preset"])


def run(stage: str, overrides: list[str]) -> dict[str, float]:
    """Train a stage, or go on with it: ``run("asr_pretrain", ["steps=1000", "out=runs/a"])``."""
    from .loop import train

    recipe = resolve(stage, overrides)
    task = recipe.build()
    return train(recipe, task)
