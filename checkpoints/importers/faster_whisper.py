"""Whisper's encoder from a folder of faster-whisper (CTranslate2's model.bin); the decoder is left behind.

The file, little-endian: uint32 version, string spec, uint32 revision, uint32 number of variables. Each variable: string
name, uint8 rank, uint32 a dimension, uint8 type, uint32 bytes, its numbers. Then uint32 number of aliases, two strings
each: equal variables are stored once. A string is a uint16 length and bytes that end in NUL. Source: CTranslate2's
python/ctranslate2/specs/model_spec.py. Nothing of it is code.
"""

from __future__ import annotations

import math
import mmap
import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ...model.errors import DuologueError
from ..source import one_line
from . import KeyTable, rename_keys, whisper

SOURCE = "CTranslate2 Whisper"
MODEL = "model.bin"
VERSIONS = range(4, 7)  # before, a variable had the size of its numbers in the place of their type
SPEC = "WhisperSpec"
TYPES = (np.float32, np.int8, np.int16, np.int32, np.float16, np.int16)  # the last: bfloat16, which numpy lacks
BFLOAT16 = 5

_LAYER = r"encoder/layer_(\d+)/"
KEYS: KeyTable = {  # to openai-whisper's names; q, k and v have been taken apart
    r"encoder/(conv[12])/(weight|bias)": r"\1.\2",
    r"encoder/position_encodings/encodings": r"positional_embedding",
    r"encoder/layer_norm/(gamma|beta)": r"ln_post.\1",
    rf"{_LAYER}self_attention/layer_norm/(gamma|beta)": r"blocks.\1.attn_ln.\2",
    rf"{_LAYER}self_attention/(query|key|value)/(weight|bias)": r"blocks.\1.attn.\2.\3",
    rf"{_LAYER}self_attention/linear_1/(weight|bias)": r"blocks.\1.attn.out.\2",
    rf"{_LAYER}ffn/layer_norm/(gamma|beta)": r"blocks.\1.mlp_ln.\2",
    rf"{_LAYER}ffn/linear_0/(weight|bias)": r"blocks.\1.mlp.0.\2",
    rf"{_LAYER}ffn/linear_1/(weight|bias)": r"blocks.\1.mlp.2.\2",
}
NORMS: KeyTable = {r"(.*)\.gamma": r"\1.weight", r"(.*)\.beta": r"\1.bias", r"(.*\.(?:weight|bias)|\w+)": r"\1"}


@dataclass(frozen=True, kw_only=True)
class Config:
    """Nothing is needed besides."""


def run(source: Path, dest: Path, config: Config) -> Path:
    """Import the encoder of a folder, or of its model.bin, to a folder that a recipe takes by ``encoder=DEST``.

    Weights of 8 or 16 bits with scales are unpacked to float16.

    Raises:
        DuologueError: a damaged or cut-off file, another model than Whisper, a tensor that is unknown or missing.
    """
    file = source / MODEL if source.is_dir() else source
    variables = read_variables(file)
    heads = variables.pop("encoder/num_heads", None)
    tensors = convert({name: value for name, value in variables.items() if name.startswith("encoder/")})
    return whisper.save(dest, tensors, None if heads is None else int(heads), source)


def convert(variables: dict[str, Tensor]) -> dict[str, Tensor]:
    """The encoder's variables of CTranslate2 under openai-whisper's names.

    Raises:
        DuologueError: an unknown variable.
    """
    found = dict(variables)
    for name in [name for name in found if name.endswith("weight_scale")]:
        weight, scale = name.removesuffix("_scale"), found.pop(name).float()
        if weight not in found or (scale.dim() and len(scale) != len(found[weight])):
            raise DuologueError(f"{SOURCE}: {name!r} {tuple(scale.shape)} fits no tensor {weight!r}")
        found[weight] = (found[weight].float() / scale.reshape(-1, *[1] * (found[weight].dim() - 1))).half()
    for name in [name for name in found if "self_attention/linear_0" in name]:
        stem, _, kind = name.rpartition("linear_0/")
        query, key, value = found.pop(name).chunk(3)
        found |= {f"{stem}query/{kind}": query, f"{stem}value/{kind}": value}
        if kind == "weight" or key.any():  # Whisper's keys have no bias: here it is zeros
            found[f"{stem}key/{kind}"] = key
    renamed = rename_keys(rename_keys(found, KEYS, SOURCE), NORMS, SOURCE)
    return {name: tensor.clone() for name, tensor in renamed.items()}  # aliases and thirds of a matrix are views


def read_variables(file: Path) -> dict[str, Tensor]:
    """The variables of a model.bin by name. Nothing larger than the file is made.

    Raises:
        DuologueError: no such file, a version or a spec that is not known, or it is cut off or damaged.
    """
    try:
        with file.open("rb") as opened, mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return _variables(_Reader(data))
    except DuologueError as error:
        raise DuologueError(f"{file} is no {MODEL} of {SOURCE}: {error}") from None
    except (OSError, ValueError) as error:  # no file, an empty one
        raise DuologueError(f"{file} cannot be read: {one_line(error)}") from None


class _Reader:
    """Takes numbers and strings from the front of a file."""

    def __init__(self, data: mmap.mmap) -> None:
        self.data, self.at = data, 0

    def take(self, size: int) -> bytes:
        if size > len(self.data) - self.at:
            raise DuologueError(f"it ends at byte {len(self.data)}, {size} bytes more are wanted at byte {self.at}")
        self.at += size
        return self.data[self.at - size : self.at]

    def number(self, kind: str) -> int:
        return int(struct.unpack(f"<{kind}", self.take(struct.calcsize(kind)))[0])

    def string(self) -> str:
        raw = self.take(self.number("H"))
        if not raw.endswith(b"\0") or not raw[:-1].isascii():
            raise DuologueError(f"the name before byte {self.at} is damaged")
        return raw[:-1].decode("ascii")


def _variables(reader: _Reader) -> dict[str, Tensor]:
    version = reader.number("I")
    if version not in VERSIONS:
        raise DuologueError(f"its format has version {version}; known are {VERSIONS[0]} to {VERSIONS[-1]}")
    if (spec := reader.string()) != SPEC:
        raise DuologueError(f"it holds a {spec!r}, not a {SPEC!r}")
    reader.number("I")  # the spec's revision
    found: dict[str, Tensor] = {}
    for _ in range(reader.number("I")):
        name = reader.string()
        shape = [reader.number("I") for _ in range(reader.number("B"))]
        kind, size = reader.number("B"), reader.number("I")
        if kind >= len(TYPES):
            raise DuologueError(f"variable {name!r} is of the unknown type {kind}")
        dtype = np.dtype(TYPES[kind])
        if math.prod(shape) * dtype.itemsize != size or name in found:
            raise DuologueError(f"variable {name!r} {tuple(shape)} is damaged: it has {size} bytes, or comes twice")
        tensor = torch.from_numpy(np.frombuffer(reader.take(size), dtype).reshape(shape).copy())
        found[name] = tensor.view(torch.bfloat16) if kind == BFLOAT16 else tensor
    for _ in range(reader.number("I")):
        alias, name = reader.string(), reader.string()
        if name not in found or alias in found:
            raise DuologueError(f"alias {alias!r} is damaged: it stands for {name!r}")
        found[alias] = found[name]
    if reader.at < len(reader.data):
        raise DuologueError(f"{len(reader.data) - reader.at} bytes follow its end at byte {reader.at}")
    return found
