"""Statements, back-channels and "stop": what the duplex monitor learns to tell from questions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ..speech.voices import draw_voice
from .speaking import SpeechConfig, SpokenText, spoken_set


@dataclass(frozen=True, kw_only=True)
class Config(SpeechConfig):
    """Settings of spoken sentences; none of them are drills."""

    n: int = 3000
    drills: float = 0.0


def sentence(index: int, config: SpeechConfig) -> SpokenText:
    """What the clip of this number is to be."""
    rng = np.random.default_rng([config.seed, index, 7])
    text, turn_state = config.asked().aside(config.seed, index, config.split)
    voice = draw_voice(config.speakers(), rng)
    fields = {"category": "aside", "verdict": turn_state}  # "verdict": its name in sets that were prepared before
    if turn_state == "query":
        fields["answer"] = ""  # what is to be obeyed is answered by silence
    return SpokenText(id=f"{config.seed}-{index:07d}", text=text, voice=voice, prosody=voice.draw(rng), fields=fields)


def run(config: Config, *, progress: bool = True) -> dict[str, Any]:
    """Make or complete the data set; returns its counts."""
    return spoken_set("asides", config, sentence, progress=progress)
