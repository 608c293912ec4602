"""Where foreign weights lie on disk: single files, and folders of shards as transformers writes them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import Tensor

from ...model.errors import DuologueError
from .. import files
from ..source import one_line
from .pickles import load_tensors

SAFETENSORS, PICKLED = "model.safetensors", "pytorch_model.bin"


def read_tensors(path: Path) -> dict[str, Tensor]:
    """A state dict from a safetensors file or a PyTorch one, memory-mapped.

    Raises:
        DuologueError: the file cannot be read, or holds anything but tensors by name.
    """
    if path.suffix == ".safetensors":
        try:
            with safe_open(path, "pt") as file:
                return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no dictionary)
        except (SafetensorError, OSError) as error:
            raise DuologueError(f"{path} cannot be read: {one_line(error)}") from None
    found = load_tensors(path)
    return as_state_dict(found, str(path))


def as_state_dict(found: Any, where: str) -> dict[str, Tensor]:
    """``found``, which must be tensors by name."""
    if not isinstance(found, dict) or not found:
        raise DuologueError(f"{where} holds no tensors by name")
    for name, value in found.items():
        if not isinstance(value, Tensor):
            raise DuologueError(f"{where}: {name!r} is a {type(value).__name__}; tensors by name are wanted")
    return dict(found)


def read_folder(folder: Path) -> dict[str, Tensor]:
    """The state dict of a transformers folder: safetensors rather than pickles, in one file or in shards.

    Raises:
        DuologueError: no weights, a shard is missing, or the shards and their index do not agree.
    """
    for name in (SAFETENSORS, PICKLED):
        if (folder / f"{name}.index.json").is_file():
            return _read_shards(folder, folder / f"{name}.index.json")
        if (folder / name).is_file():
            return read_tensors(folder / name)
    raise DuologueError(f"{folder} holds no weights: neither {SAFETENSORS} nor {PICKLED}, nor shards of one")


def _read_shards(folder: Path, index: Path) -> dict[str, Tensor]:
    places = files.read_object(index).get("weight_map")
    if not isinstance(places, dict):
        raise DuologueError(f"{index} has no weight_map")
    tensors: dict[str, Tensor] = {}
    for shard in sorted(set(places.values())):
        path = folder / shard
        if path.parent != folder or not path.is_file():
            raise DuologueError(f"{index} names {shard!r}, which is not in {folder}")
        tensors |= read_tensors(path)
    for name in places:
        if name not in tensors:
            raise DuologueError(f"{index} says that {places[name]} holds {name!r}, but it does not")
    return tensors


def only(folder: Path, suffix: str) -> Path:
    """The one file of a folder that ends so.

    Raises:
        DuologueError: none does, or several.
    """
    found = sorted(folder.glob(f"*{suffix}"))
    if len(found) != 1:
        raise DuologueError(f"{folder} has {len(found)} files that end in {suffix}; name the one that is meant")
    return found[0]
