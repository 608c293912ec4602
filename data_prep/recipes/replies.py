"""Answers in the reply's voice: what the units, the unit decoder and the vocoder are made from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from .speaking import SpeechConfig, SpokenText, sentence_of, spoken_set


@dataclass(frozen=True, kw_only=True)
class Config(SpeechConfig):
    """Settings of spoken sentences; fewer, in one voice, more of them drills."""

    n: int = 3000
    voices: str = "reply"
    drills: float = 0.35


def sentence(index: int, config: SpeechConfig) -> SpokenText:
    """What the clip of this number is to be."""
    return sentence_of(index, config, lambda dialogue: dialogue.answer)


def run(config: Config, *, progress: bool = True) -> dict[str, Any]:
    """Make or complete the data set; returns its counts."""
    return spoken_set("replies", config, sentence, progress=progress)
