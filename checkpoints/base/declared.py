"""What a checkpoint says of its base weights: ``base`` in config.json, by the name of the part.

    "base": {"llm": {"hub": "Qwen/Qwen2.5-Coder-0.5B-Instruct-GGUF", "revision": "ebb2015…", "licence": "Apache-2.0",
                     "files": [{"name": "qwen….gguf", "size": 491400064, "sha256": "1d9614…"}], "importer": "gguf"}}
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from ...model.errors import DuologueError
from ..config_io import read_value
from ..files import read_object
from ..source import CONFIG

KEY = "base"


@dataclass(frozen=True, kw_only=True)
class BaseFile:
    """One file that an importer reads."""

    name: str  # its path in the repository of the hub
    size: int  # bytes
    sha256: str

    def __post_init__(self) -> None:
        path = PurePosixPath(self.name)
        if path.is_absolute() or ".." in path.parts or not path.name or "\\" in self.name:
            raise DuologueError(f"name is {self.name!r}; it must be a path within a repository")
        if not re.fullmatch(r"[0-9a-f]{64}", self.sha256):
            raise DuologueError(f"sha256 of {self.name} is {self.sha256!r}; it must be 64 hexadecimal digits")
        if self.size <= 0:
            raise DuologueError(f"size of {self.name} is {self.size}; it must be a number of bytes")


@dataclass(frozen=True, kw_only=True)
class BaseWeights:
    """Where a part comes from, and what makes it ours."""

    hub: str  # id of a repository: "owner/name"
    revision: str  # a commit of it
    files: tuple[BaseFile, ...]
    licence: str  # of the weights, by its SPDX name
    importer: str  # a kind of ``duologue import``
    settings: tuple[str, ...] = field(default=(), metadata={"newer": True})  # of the importer, KEY=VALUE

    def __post_init__(self) -> None:
        if not re.fullmatch(r"\w[\w.-]*/\w[\w.-]*", self.hub):
            raise DuologueError(f"hub is {self.hub!r}; it must be an id, owner/name")
        if not self.files:
            raise DuologueError(f"{self.hub} names no files")

    @property
    def size(self) -> int:
        """Bytes of all its files."""
        return sum(file.size for file in self.files)


Base = dict[str, BaseWeights]


def read_base(folder: Path) -> Base:
    """The base weights of a checkpoint's folder; none where it names none, or is no checkpoint.

    Raises:
        DuologueError: config.json says something else.
    """
    path = folder / CONFIG
    said = read_object(path) if path.is_file() else {}
    return _read(said[KEY], path) if "vocabulary" in said and KEY in said else {}


def read_base_file(path: Path) -> Base:
    """The base weights that a JSON file names: what stands under ``base`` in config.json.

    Raises:
        DuologueError: no such file, or it says something else.
    """
    return _read(read_object(path), path)


def _read(said: Any, path: Path) -> Base:
    try:
        return dict(read_value(Base, said, KEY))
    except DuologueError as error:
        raise DuologueError(f"{path}: {error}") from None
