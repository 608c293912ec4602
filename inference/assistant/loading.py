"""A model by its name, whatever it is: a Duologue checkpoint, or a Qwen2-Audio as transformers has it."""

from __future__ import annotations

from pathlib import Path

import torch

from ...checkpoints.files import read_object
from ...checkpoints.source import CONFIG, one_line, resolve, resolve_foreign
from ...checkpoints.store import device_of, dtype_of
from ...model.audio_encoder.windowed import WindowConfig
from ...model.errors import DuologueError
from ...model.qwen2_audio import Qwen2Audio
from .assistant import Assistant
from .assistant import load as load_assistant


def load(
    name: str, device: str = "cpu", dtype: str = "float32", int8: bool = False, windowed: bool = False
) -> Assistant:
    """What answers by the name of a bundled model, a folder, or a hub id.

    Args:
        device, dtype: by their names, "cuda" and "bfloat16".
        int8: keep the language model's matrices in 8 bits.
        windowed: hear while the user speaks with an encoder that was made for whole clips.
    Raises:
        DuologueError: unknown, not whole, or an option that this kind of model does not have.
    """
    place, kind = device_of(device), dtype_of(dtype)
    if not _is_qwen2_audio(folder := resolve(name)):
        return load_assistant(name, str(place), kind, int8, WindowConfig() if windowed else None)
    if windowed or int8:
        raise DuologueError(f"{name} is a Qwen2-Audio, which takes neither --int8 nor --encoder windowed")
    if not folder.joinpath("tokenizer_config.json").is_file() or not any(folder.glob("*.safetensors*")):
        folder = resolve_foreign(name)  # from the hub, the shards too
    model = load_qwen2_audio(folder, str(place), kind)
    return Assistant(model, model.tokenizer, folder)


def load_qwen2_audio(folder: Path, device: str, dtype: torch.dtype) -> Qwen2Audio:
    """A Qwen2-Audio from a folder of transformers.

    Raises:
        DuologueError: the folder lacks something, or its tensors are not the network's.
    """
    from transformers import AutoProcessor, Qwen2AudioForConditionalGeneration

    try:
        processor = AutoProcessor.from_pretrained(folder, local_files_only=True)
        network, info = Qwen2AudioForConditionalGeneration.from_pretrained(
            folder, local_files_only=True, dtype=dtype, output_loading_info=True
        )
    except Exception as error:  # many kinds, some of several lines
        raise DuologueError(f"{folder}: {one_line(error)}") from None
    for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        if info.get(kind):
            raise DuologueError(f"{folder}: {kind.replace('_', ' ')}, {min(map(str, info[kind]))} for one")
    return Qwen2Audio(network.to(device), processor)


def _is_qwen2_audio(folder: Path) -> bool:
    try:
        return bool(read_object(folder / CONFIG).get("model_type") == "qwen2_audio")
    except DuologueError:
        return False
