"""Written instructions and answers, of Alpaca's or ShareGPT's form, spoken."""

from __future__ import annotations

from typing import Any

from ..datasets.conversations import read_instructions
from .turns import Config, spoken_turns


def run(config: Config, *, progress: bool = True) -> dict[str, Any]:
    """Make or complete the data set. Returns and raises as `turns.spoken_turns`."""
    return spoken_turns("instructions", read_instructions(config.source), config, progress)
