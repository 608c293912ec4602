"""Statements, back-channels and "stop": what the duplex monitor learns to tell from questions."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...checkpoints.files import lines, read_text
from ...model.errors import DuologueError
from ..datasets.question_sets import one_statement, statement_split
from ..speech.voices import draw_voice
from .speaking import SpeechConfig, SpokenText, spoken_set


@dataclass(frozen=True, kw_only=True)
class Config(SpeechConfig):
    """Settings of spoken sentences; none of them are drills.

    statements: a file of statements that need no answer, one a line, in the place of those of the question set
    """

    n: int = 3000
    drills: float = 0.0
    statements: str = ""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.statements:
            statements_of(self.statements, self.split)


@functools.cache
def statements_of(file: str, split: str) -> list[str]:
    """The statements of a file, one a line, that belong to a split. Raises DuologueError for a file without any."""
    found = [line for line in lines(read_text(file)) if line.strip()]
    if not found:
        raise DuologueError(f"{file} is empty: expected statements, one a line")
    return [text for text in found if statement_split(text) == split]


def sentence(index: int, config: Config) -> SpokenText:
    """What the clip of this number is to be."""
    rng = np.random.default_rng([config.seed, index, 7])
    if config.statements:
        among = statements_of(config.statements, config.split)
        text = one_statement(among, config.seed, index, f"{config.statements}, split {config.split},")
        turn_state = "noise"
    else:
        text, turn_state = config.asked().aside(config.seed, index, config.split)
    voice = draw_voice(config.speakers(), rng)
    fields = {"category": "aside", "verdict": turn_state}  # "verdict": its name in sets that were prepared before
    if turn_state == "query":
        fields["answer"] = ""  # what is to be obeyed is answered by silence
    return SpokenText(id=f"{config.seed}-{index:07d}", text=text, voice=voice, prosody=voice.draw(rng), fields=fields)


def run(config: Config, *, progress: bool = True) -> dict[str, Any]:
    """Make or complete the data set; returns its counts. Raises as `spoken_set`, and for no statements."""
    sentence(0, config)
    return spoken_set("asides", config, sentence, progress=progress, newer=("statements",))
