"""A data set that is spoken while it is trained on: nothing on disk, any number of hours.

    duologue train asr_pretrain data='live:questions?n=450000&seed=7' workers=14        # 300 h an epoch

What is written is `live:RECIPE?key=value&key=value`, the keys those of `duologue prepare RECIPE`. A clip depends on the
seed and its number alone, like those on disk, so a run that is broken off goes on to the bit. The loader's processes
speak; espeak-ng takes some 15 ms for a clip.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ...checkpoints.settings import Catalogue, read_settings
from ..recipes.speaking import SpeechConfig, SpokenText, speak
from ..speech.engine import SAMPLE_RATE, SynthesisError
from ..speech.voices import require_voices
from .shards import Clip, Computed, ShardedDataset

PREFIX = "live:"
RECIPES = Catalogue("data_prep/recipes", "recipe of live speech", defines="sentence")
_START_S, _LETTER_S = 0.3, 0.065  # a clip's length, guessed from its text to batch it with its like
_TRIES = 20


class LiveDataset:
    """The clips that `duologue prepare` would make, each spoken when it is asked for.

    A sentence that a synthesiser fails on gives way to the next one's.
    Raises DuologueError for an unknown recipe or key, or a synthesiser that is not installed.
    """

    sample_rate = SAMPLE_RATE

    def __init__(self, name: str) -> None:
        recipe, _, settings = name.removeprefix(PREFIX).partition("?")
        self.recipe = RECIPES.module(recipe)
        words = [*filter(None, settings.split("&")), f"out={name}"]
        self.config: SpeechConfig = read_settings(self.recipe.Config, words, f"recipe {recipe}")
        require_voices(self.config.speakers())
        self.metas = Computed(len(self), self._plan)

    def __len__(self) -> int:
        return self.config.n

    def utterance(self, index: int) -> SpokenText:
        found: SpokenText = self.recipe.sentence(index, self.config)
        return found

    def _plan(self, index: int) -> dict[str, Any]:
        """What a clip is to be; "samples" is a guess."""
        said = self.utterance(index)
        return {"samples": int((_START_S + _LETTER_S * len(said.text)) * SAMPLE_RATE)} | said.meta()

    def __getitem__(self, index: int) -> Clip:
        for further in range(_TRIES):
            try:
                return speak(self.utterance((index + further) % len(self)))
            except SynthesisError:
                if further == _TRIES - 1:
                    raise
        raise AssertionError


def open_dataset(name: str) -> ShardedDataset | LiveDataset:
    """A folder of shards, or `live:RECIPE?…`."""
    return LiveDataset(name) if name.startswith(PREFIX) else ShardedDataset(name)


def lengths_of(dataset: ShardedDataset | LiveDataset) -> np.ndarray:
    """(clips,) samples of each, guessed where they have not been spoken."""
    return np.array([meta["samples"] for meta in dataset.metas])
