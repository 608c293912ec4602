"""A model by its name, whatever it is: a Duologue checkpoint, an audio language model as transformers has it, or a
cascade."""

from __future__ import annotations

from pathlib import Path

from ...checkpoints.files import read_object
from ...checkpoints.settings import Catalogue
from ...checkpoints.source import CONFIG, resolve, resolve_foreign
from ...checkpoints.store import device_of, dtype_of
from ...model.audio_encoder.windowed import WindowConfig
from ...model.errors import DuologueError
from .assistant import Assistant
from .assistant import load as load_assistant
from .cascade_file import find_cascade, load_cascade

AUDIO_LLMS = Catalogue("model/audio_llm", "audio language model", defines="load")


def load(
    name: str, device: str = "cpu", dtype: str = "float32", int8: bool = False, windowed: bool = False
) -> Assistant:
    """What answers by the name of a bundled model, a folder, a hub id, or the file of a cascade (:mod:`.cascade_file`).

    Args:
        device, dtype: by their names, "cuda" and "bfloat16".
        int8: keep the language model's matrices in 8 bits.
        windowed: hear while the user speaks with an encoder that was made for whole clips.
    Raises:
        DuologueError: unknown, not whole, or an option that this kind of model does not have.
    """
    place, kind = device_of(device), dtype_of(dtype)
    if file := find_cascade(name):
        if windowed or int8:
            raise DuologueError(f"{name} is a cascade, which takes neither --int8 nor --encoder windowed")
        cascade = load_cascade(file, place, kind)
        return Assistant(cascade, cascade.tokenizer, file)
    family = audio_llm(folder := resolve(name))
    if family is None:
        return load_assistant(name, str(place), kind, int8, WindowConfig() if windowed else None)
    if windowed or int8:
        raise DuologueError(f"{name} is a {family} of transformers, which takes neither --int8 nor --encoder windowed")
    if not folder.joinpath("tokenizer_config.json").is_file() or not any(folder.glob("*.safetensors*")):
        folder = resolve_foreign(name)  # from the hub, the shards too
    model = AUDIO_LLMS.module(family).load(folder, str(place), kind)
    return Assistant(model, model.tokenizer, folder)


def audio_llm(folder: Path) -> str | None:
    """The model type of an audio language model of transformers; ``None``: it is none that is known."""
    try:
        kind = read_object(folder / CONFIG).get("model_type")
    except DuologueError:
        return None
    return kind if isinstance(kind, str) and kind in AUDIO_LLMS.first_lines() else None
