"""What teachers said, kept on disk: a record for each row that was put to them, behind one another in a file.

A record: the key (32 bytes), positions N, width W, whether tokens are named (3 unsigned 32-bit numbers), then N × W
log-probabilities in float16 and, where they are named, N × (W - 1) tokens in int32. A run that was broken off leaves
whole records; one that was cut short is dropped. Each process of a training adds to a file of its own and reads all.
"""

from __future__ import annotations

import os
import struct
from pathlib import Path

import numpy as np
import torch

from ...checkpoints.files import append_whole, expanded
from ...model.errors import DuologueError
from ..losses.distillation import Target

SUFFIX = ".targets"
_HEAD = struct.Struct("<32sIII")


class TargetCache:
    """The targets in ``folder`` of the teachers called ``name``.

    Raises:
        DuologueError: the folder or its files cannot be read or written.
    """

    def __init__(self, folder: str | Path, name: str) -> None:
        self._places: dict[bytes, tuple[Path, int, tuple[int, int, int]]] = {}
        self._folder = expanded(folder)
        self._own = self._folder / f"{name}-{int(os.environ.get('RANK', '0'))}{SUFFIX}"
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            for path in sorted(self._folder.glob(f"{name}-*{SUFFIX}")):
                end = self._read_index(path)
                if path == self._own:
                    os.truncate(path, end)
        except OSError as error:
            raise DuologueError(f"cache={folder}: {error.strerror or error}") from None

    def __len__(self) -> int:
        return len(self._places)

    def __contains__(self, key: bytes) -> bool:
        return key in self._places

    def __getitem__(self, key: bytes) -> Target:
        path, at, (count, width, named) = self._places[key]
        with open(path, "rb") as file:
            file.seek(at)
            values = np.frombuffer(file.read(2 * count * width), np.float16).reshape(count, width)
            tokens = np.frombuffer(file.read(4 * count * (width - 1)), np.int32) if named else None
        log_probs = torch.from_numpy(values.astype(np.float32))
        if tokens is None:
            return Target(log_probs)
        return Target(log_probs, torch.from_numpy(tokens.astype(np.int64).reshape(count, width - 1)))

    def add(self, key: bytes, target: Target) -> None:
        """Keep the target of a row. Raises DuologueError where it cannot be written; the file is whole all the same."""
        values = target.log_probs.detach().half().cpu().numpy()
        shape = (*values.shape, int(target.tokens is not None))
        data = _HEAD.pack(key, *shape) + values.tobytes()
        if target.tokens is not None:
            data += target.tokens.to("cpu", torch.int32).numpy().tobytes()
        start = self._own.stat().st_size if self._own.exists() else 0
        append_whole(self._own, data)
        self._places[key] = self._own, start + _HEAD.size, shape

    def _read_index(self, path: Path) -> int:
        """Note where the records of a file stand; return where the last whole one ends."""
        size, at = path.stat().st_size, 0
        with open(path, "rb") as file:
            while len(head := file.read(_HEAD.size)) == _HEAD.size:
                key, count, width, named = _HEAD.unpack(head)
                end = at + _HEAD.size + 2 * count * width + 4 * count * (width - 1) * bool(named)
                if end > size:
                    break
                self._places[key] = path, at + _HEAD.size, (count, width, named)
                file.seek(end)
                at = end
        return at
