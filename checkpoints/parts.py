"""A part of a model in a folder of its own: an encoder, a language model, a vocoder, a judge that came from elsewhere.

folder/config.json          which part it is, and its config
folder/model.safetensors    its tensors under the part's name ("encoder.conv1.weight"), as in a whole checkpoint, so
                            that a recipe takes it by start=encoder=FOLDER
folder/README.md            where it came from
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors.torch import save_file
from torch import nn

from ..model.audio_encoder.mel import LogMelConfig
from ..model.errors import DuologueError
from ..model.speech_lm_config import EncoderConfig
from .config_io import config_from_dict, config_to_dict
from .files import read_object
from .folders import replaceable, replacing
from .source import CARD, CONFIG, WEIGHTS, resolve
from .weights import fill, made, named_tensors

FORMAT = "duologue-part/1"
C = TypeVar("C")
M = TypeVar("M", bound=nn.Module)


@dataclass(frozen=True, kw_only=True)
class StoredPart:
    """What config.json holds."""

    format: str  # FORMAT
    part: str
    config: dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class EncoderPart:
    """The config of a part ``encoder``: an encoder means nothing without the spectrogram that it was trained on."""

    mel: LogMelConfig
    encoder: EncoderConfig


def save_part(folder: str | Path, part: str, module: nn.Module, config: Any, card: str, tokenizer: Any = None) -> Path:
    """Write a part, so that readers see the old folder or the new one, never half of one.

    Args:
        part: its name in a whole model ("encoder"), or what it is elsewhere ("utmos").
        config: its dataclass, or plain JSON values.
        card: the text of README.md.
        tokenizer: a transformers tokenizer, for a language model.
    Raises:
        DuologueError: ``folder`` is something other than a model folder, or the config has no JSON form.
    """
    folder = replaceable(folder)
    values = config if isinstance(config, dict) else config_to_dict(config)
    stored = config_to_dict(StoredPart(format=FORMAT, part=part, config=values))
    tensors = {f"{part}.{name}": tensor.detach().contiguous() for name, tensor in named_tensors(module).items()}
    with replacing(folder) as beside:
        save_file(tensors, beside / WEIGHTS, metadata={"format": "pt"})
        if tokenizer is not None:
            tokenizer.save_pretrained(beside)
        (beside / CONFIG).write_text(json.dumps(stored, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        (beside / CARD).write_text(card, encoding="utf-8")
    return folder


def read_part(folder: str | Path, part: str) -> dict[str, Any]:
    """The config of a part's folder (or hub id).

    Raises:
        DuologueError: no such folder, or it holds something else.
    """
    path = resolve(folder) / CONFIG
    if not path.is_file():
        raise DuologueError(f"{folder} is not a folder of an imported {part}: it has no {CONFIG}")
    found = read_object(path)
    try:
        stored = config_from_dict(StoredPart, found)
    except DuologueError as error:
        raise DuologueError(f"{path} is not that of an imported {part} (duologue import): {error}") from None
    if stored.format != FORMAT or stored.part != part:
        raise DuologueError(f"{path} is a {stored.part!r} in format {stored.format!r}; wanted: {part!r} in {FORMAT!r}")
    return stored.config


def load_part(
    folder: str | Path,
    part: str,
    config: type[C],
    build: Callable[[C], M],
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> M:
    """The module of a part's folder, in evaluation mode: ``load_part(folder, "utmos", UTMOSConfig, UTMOS)``.

    Raises:
        DuologueError: one line that says what is missing, extra or misshapen.
    """
    values = read_part(folder, part)
    try:
        sizes = config_from_dict(config, values)
        module = made(lambda: build(sizes))
    except DuologueError as error:
        raise DuologueError(f"{folder}: {error}") from None
    fill(module, resolve(folder) / WEIGHTS, prefix=f"{part}.", device=device, dtype=dtype)
    return module
