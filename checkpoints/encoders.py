"""The ear of whatever has one: mel and encoder of a training run, of a part, or of a whole model."""

from __future__ import annotations

from pathlib import Path

import torch

from ..model.audio_encoder.mel import LogMel, LogMelConfig
from ..model.errors import DuologueError
from ..model.speech_lm_config import Encoder, EncoderConfig, build_encoder
from .config_io import config_from_dict
from .files import expanded, read_object, read_text
from .parts import FORMAT, EncoderPart, read_part
from .source import CONFIG, WEIGHTS, resolve
from .store import read_model_config
from .weights import fill, made

RUN = "recipe.json"  # a training run's folder holds it, a checkpoint's does not


def load_encoder(name: str) -> tuple[LogMel, Encoder]:
    """Mel and encoder, in evaluation mode, of a run that trained one, a part ``encoder``, or a model (folder, hub id).

    Raises:
        DuologueError: there is no encoder, or its tensors do not fit its sizes.
    """
    folder = expanded(name)
    if (folder / RUN).is_file():
        mel, sizes = _sizes_of_run(folder)
    else:
        folder = resolve(name)
        mel, sizes = _sizes_of_checkpoint(folder)
    encoder = made(lambda: build_encoder(sizes))
    fill(encoder, folder / WEIGHTS, prefix="encoder.", dtype=torch.float32)
    return LogMel(mel), encoder


def _sizes_of_run(run: Path) -> tuple[LogMelConfig, EncoderConfig]:
    recipe = read_object(run / RUN)
    if "mel" not in recipe or "encoder" not in recipe or not (run / WEIGHTS).is_file():
        raise DuologueError(f"{run} is not a run that has trained an encoder: expected one of asr_pretrain or ssl")
    return config_from_dict(LogMelConfig, recipe["mel"]), config_from_dict(EncoderConfig, recipe["encoder"])


def _sizes_of_checkpoint(folder: Path) -> tuple[LogMelConfig, EncoderConfig]:
    path = folder / CONFIG
    if path.is_file() and f'"{FORMAT}"' in read_text(path):
        part = config_from_dict(EncoderPart, read_part(folder, "encoder"))
        return part.mel, part.encoder
    model = read_model_config(folder)
    return model.mel, model.encoder
