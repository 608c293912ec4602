"""A model by its name, whatever it is: a Duologue checkpoint, or a Qwen2-Audio as transformers has it."""

from __future__ import annotations

from pathlib import Path

from ...checkpoints.files import read_object
from ...checkpoints.source import CONFIG, resolve, resolve_foreign
from ...checkpoints.store import device_of, dtype_of
from ...model.audio_encoder.windowed import WindowConfig
from ...model.errors import DuologueError
from . import qwen2_audio
from .assistant import Assistant
from .assistant import load as load_assistant
from .qwen2_audio import AudioChat


def load(
    name: str, device: str = "cpu", dtype: str = "float32", int8: bool = False, windowed: bool = False
) -> Assistant | AudioChat:
    """What answers by the name of a bundled model, a folder, or a hub id.

    Args:
        device, dtype: by their names, "cuda" and "bfloat16".
        int8: keep the language model's matrices in 8 bits.
        windowed: hear while the user speaks with an ear that was made for whole clips.
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
    return qwen2_audio.load(folder, str(place), kind)


def _is_qwen2_audio(folder: Path) -> bool:
    try:
        return bool(read_object(folder / CONFIG).get("model_type") == "qwen2_audio")
    except DuologueError:
        return False
