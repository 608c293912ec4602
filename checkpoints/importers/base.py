"""A part of the base weights that a model or a JSON file names, from a folder of yours, the cache or the hub.

    duologue import base mini whisper part=encoder      of a model's folder
    duologue import base mini.json llm part=llm         of a file that has what stands under ``base`` in config.json
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from ...model.errors import DuologueError
from ..base.cache import imported
from ..base.declared import read_base, read_base_file
from ..folders import replaceable, replacing


@dataclass(frozen=True, kw_only=True)
class Config:
    """
    part: which of them
    """

    part: str


def run(source: Path, dest: Path, config: Config) -> Path:
    """Copy the imported part to a folder that a recipe takes by ``llm=DEST`` or ``encoder=DEST``.

    Raises:
        DuologueError: the source names no such part, or its files cannot be had or have other bytes.
    """
    base = read_base(source) if source.is_dir() else read_base_file(source)
    if config.part not in base:
        raise DuologueError(f"{source} names no base weights {config.part!r}; there are: {', '.join(base) or 'none'}")
    dest = replaceable(dest)
    folder = imported(config.part, base[config.part])
    with replacing(dest) as beside:
        shutil.copytree(folder, beside, dirs_exist_ok=True)
    return dest
