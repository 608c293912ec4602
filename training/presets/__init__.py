"""Sizes and settings by name, and scripts that train a bundled model from nothing.

A module here has ``PRESETS``: {preset: {stage: {key of the stage's recipe: value}}}. Recipes ask for them by name.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

from ...model.errors import DuologueError


def preset(name: str, stage: str) -> dict[str, Any]:
    """The settings of a stage. A value that is a function is called: a vocabulary takes a second to collect.

    Raises:
        DuologueError: no preset of that name has the stage.
    """
    known: dict[str, dict[str, Any]] = {}
    for path in sorted(Path(__file__).parent.glob("[a-z]*.py")):
        presets = importlib.import_module(f".{path.stem}", __package__).PRESETS
        known |= {preset: stages[stage] for preset, stages in presets.items() if stage in stages}
    if name not in known:
        no_stage = f"no preset has the stage {stage!r}: add it to PRESETS in training/presets/{name}.py"
        raise DuologueError(f"preset is {name!r}; it must be {' or '.join(map(repr, known))}" if known else no_stage)
    return {key: value() if callable(value) else value for key, value in known[name].items()}
