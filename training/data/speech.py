"""What stages that hear speech have in common: their data, the front end, the augmentation of clips."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ...checkpoints.parts import load_encoder
from ...model.audio_encoder.encoder import Encoder
from ...model.audio_encoder.mel import LogMel, LogMelConfig
from ...model.speech_lm_config import EncoderConfig
from ..augment.presets import augmentation_of
from ..loop.task import Batch, Task
from ..loop.throughput import StepCost, speech_load
from ..recipe import Recipe
from .corpus import Corpus, recordings_of


@dataclass(frozen=True, kw_only=True)
class SpeechRecipe(Recipe):
    """Data, front end and augmentation."""

    data: tuple[str, ...]
    dev_data: tuple[str, ...] = ()
    noises: str | None = None  # a prepared set of recorded noise for the augmentation
    mel: LogMelConfig
    encoder: EncoderConfig
    augment: str = "light"  # how clips are changed; none, still: every sound stays where it was. light, voices, full
    # insert silence, which shifts the labels of frames.

    def __post_init__(self) -> None:
        super().__post_init__()
        augmentation_of(self.augment)


class SpeechTask(Task):
    """The clips, and how they are changed. A stage adds its modules, ``mel`` among them."""

    mel: LogMel

    def __init__(self, recipe: SpeechRecipe) -> None:
        super().__init__()
        torch.manual_seed(recipe.seed)
        self.corpus = Corpus(recipe.data)
        self.augmentation = augmentation_of(recipe.augment)
        self.noises = recordings_of(recipe.noises)

    def load_of(self, batch: Batch) -> StepCost | None:
        return speech_load(batch["lengths"], batch["samples"], self.mel.config.sample_rate)


def encoder_of(recipe: SpeechRecipe, source: str) -> tuple[LogMel, Encoder]:
    """Log-mel and encoder of a run, a part or a model; random weights of the recipe's sizes where there is no source.

    Raises:
        DuologueError: the source has no encoder.
    """
    return load_encoder(source) if source else (LogMel(recipe.mel), recipe.encoder.build())


def random_offsets(encoder: EncoderConfig, frames: int, count: int, rng: np.random.Generator) -> Tensor:
    """(count,) positions of the encoder where clips of at most so many frames begin; 0 in one that sees whole clips."""
    offsets = torch.from_numpy(rng.integers(0, max(1, encoder.positions - frames), count))
    return torch.zeros_like(offsets) if encoder.chunk is None else offsets
