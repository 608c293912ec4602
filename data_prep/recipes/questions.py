"""Questions in many voices: what an encoder learns to hear."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from .speaking import SpeechConfig, SpokenText, sentence_of, spoken_set


@dataclass(frozen=True, kw_only=True)
class Config(SpeechConfig):
    """Settings of spoken sentences."""


def sentence(index: int, config: SpeechConfig) -> SpokenText:
    """What the clip of this number is to be."""
    return sentence_of(index, config, lambda dialogue: dialogue.question)


def run(config: Config, *, progress: bool = True) -> dict[str, Any]:
    """Make or complete the data set; returns its counts."""
    return spoken_set("questions", config, sentence, progress=progress)
