"""A state on disk: what a conversation has accumulated, in one safetensors file. Nothing is pickled.

The tensors stand in it by number; their places, and all that is no tensor, are a JSON tree in its metadata. Classes are
named by module and name, and only dataclasses and enums of this package are made again.
"""

from __future__ import annotations

import dataclasses
import json
from enum import Enum
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..model.errors import DuologueError
from ..model.layers.kv_cache import KVBuffer
from .files import expanded, write_atomically

_PACKAGE = __name__.rpartition(".checkpoints.")[0]
_FORMAT = "duologue-state/1"


def save_state(path: str | Path, state: Any) -> None:
    """Write a state, or any dataclass of states, tensors, enums, generators and plain values. Whole or not at all.

    Raises:
        DuologueError: a value that has no place in a state, or a file that cannot be written.
    """
    from safetensors.torch import save

    tensors: dict[str, Tensor] = {}
    tree = _dump(state, tensors, "state")
    data = save(tensors, metadata={"format": _FORMAT, "state": json.dumps(tree)})
    write_atomically(path, data)


def load_state(path: str | Path) -> Any:
    """What :func:`save_state` wrote.

    Raises:
        DuologueError: no such file, or one that is not whole or not of this kind.
    """
    from safetensors import SafetensorError, safe_open

    path = expanded(path)
    if not path.is_file():
        raise DuologueError(f"no saved state {path}")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (it is no dictionary)
        if metadata.get("format") != _FORMAT:
            raise DuologueError(f"{path} is no saved state of format {_FORMAT}")
        return _made(json.loads(metadata["state"]), tensors)
    except (TypeError, AttributeError, ImportError) as error:  # a class with other fields, or of another name
        raise DuologueError(f"{path} was saved by another version of Duologue: {error}; begin a new session") from None
    except (SafetensorError, KeyError, ValueError) as error:
        raise DuologueError(f"{path} is not a whole saved state: {error}") from None


def _dump(value: Any, tensors: dict[str, Tensor], where: str) -> Any:
    def keep(tensor: Tensor) -> dict[str, str]:
        name = str(len(tensors))
        tensors[name] = tensor.detach().clone().contiguous()
        return {"tensor": name}

    if value is None or (isinstance(value, (bool, int, float, str)) and not isinstance(value, Enum)):
        return value
    if isinstance(value, Tensor):
        return keep(value)
    if isinstance(value, torch.Generator):
        return {"generator": keep(value.get_state())["tensor"]}
    if isinstance(value, KVBuffer):
        seen = [x for x in (value.keys, value.values) if x is not None]  # none before the first append
        frames = [keep(x)["tensor"] for x in seen] or None
        return {"cache": {"window": value.window, "dropped": value.dropped, "frames": frames}}
    if isinstance(value, (list, tuple)):
        kind = "list" if isinstance(value, list) else "tuple"
        return {kind: [_dump(item, tensors, f"{where}[{at}]") for at, item in enumerate(value)]}
    if isinstance(value, dict):
        return {"dict": [[_dump(part, tensors, where) for part in pair] for pair in value.items()]}
    name = f"{type(value).__module__}:{type(value).__qualname__}"
    if name.startswith(f"{_PACKAGE}."):
        name = name.removeprefix(f"{_PACKAGE}.")
        if isinstance(value, Enum):
            return {"enum": name, "value": value.value}
        if dataclasses.is_dataclass(value):
            fields = {f.name: getattr(value, f.name) for f in dataclasses.fields(value)}
            return {"class": name, "fields": {k: _dump(v, tensors, f"{where}.{k}") for k, v in fields.items()}}
    raise DuologueError(f"{where} is a {type(value).__name__}, which has no place in a saved state")


def _made(tree: Any, tensors: dict[str, Tensor]) -> Any:
    if not isinstance(tree, dict):
        return tree
    if "tensor" in tree:
        return tensors[tree["tensor"]]
    if "generator" in tree:
        generator = torch.Generator()
        generator.set_state(tensors[tree["generator"]])
        return generator
    if "cache" in tree:
        cache = KVBuffer(tree["cache"]["window"])
        if tree["cache"]["frames"] is not None:
            cache.append(*(tensors[name] for name in tree["cache"]["frames"]))
        cache.dropped = tree["cache"]["dropped"]
        return cache
    if "list" in tree or "tuple" in tree:
        kind = "list" if "list" in tree else "tuple"
        items = [_made(item, tensors) for item in tree[kind]]
        return items if kind == "list" else tuple(items)
    if "dict" in tree:
        return {key: _made(value, tensors) for key, value in tree["dict"]}
    if "enum" in tree:
        return _class(tree["enum"], lambda kind: issubclass(kind, Enum))(tree["value"])
    return _class(tree["class"], dataclasses.is_dataclass)(
        **{name: _made(value, tensors) for name, value in tree["fields"].items()}
    )


def _class(name: str, is_wanted: Any) -> Any:
    module, _, kind = name.partition(":")
    found = getattr(import_module(f".{module}", _PACKAGE), kind)
    if not (isinstance(found, type) and is_wanted(found) and found.__module__.startswith(f"{_PACKAGE}.")):
        raise ValueError(f"{name} is no part of a state")
    return found
