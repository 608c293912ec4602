"""A folder that readers see whole, the old one or the new one: written beside, then renamed."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..model.errors import DuologueError
from .files import expanded
from .source import CONFIG, previous


def replaceable(folder: str | Path) -> Path:
    """The folder's absolute path.

    Raises:
        DuologueError: something is there that is neither a model folder nor an empty one.
    """
    path = expanded(folder).absolute()
    if path.exists() and not (path / CONFIG).is_file() and not (path.is_dir() and not any(path.iterdir())):
        raise DuologueError(f"cannot save a model to {path}: it exists and is not a model folder")
    return path


@contextmanager
def replacing(folder: Path) -> Iterator[Path]:
    """A new folder to fill, which takes the place of ``folder`` when the block ends well, and goes when it does not."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    beside = Path(tempfile.mkdtemp(prefix=f".{folder.name}.new-", dir=folder.parent))
    try:
        yield beside
        _open_to_readers(beside)
        swap(beside, folder)
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def _open_to_readers(folder: Path) -> None:
    """The permissions that plain files and folders get; temporary folders and safetensors are private otherwise."""
    umask = os.umask(0)
    os.umask(umask)
    folder.chmod(0o777 & ~umask)
    for path in folder.iterdir():
        path.chmod(0o666 & ~umask)


def swap(beside: Path, folder: Path) -> None:
    """Put the finished folder ``beside`` in the place of ``folder``, with two renames."""
    for path in beside.iterdir():
        with path.open("rb") as file:
            os.fsync(file.fileno())
    old = previous(folder)
    if folder.exists():
        shutil.rmtree(old, ignore_errors=True)
        folder.rename(old)
    try:
        beside.rename(folder)
    except OSError:
        if old.exists():
            old.rename(folder)
        raise
    shutil.rmtree(old, ignore_errors=True)
