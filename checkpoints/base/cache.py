"""Base weights in our form: each imported once, and kept in the user's cache under the digests of its files.

    DUOLOGUE_CACHE/base/llm-0123456789abcdef/     a part's folder, as ``duologue import`` writes it

DUOLOGUE_CACHE is $XDG_CACHE_HOME/duologue or ~/.cache/duologue where it is not set. A part appears whole or not at all;
of several processes that want it, one makes it.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from ...model.errors import DuologueError
from ..files import expanded, read_object
from ..importers import IMPORTERS
from ..program import say_progress
from ..settings import read_settings
from ..source import CONFIG, WEIGHTS
from . import sources
from .declared import BaseWeights, read_base

CACHE = "DUOLOGUE_CACHE"
FORM = 1  # counted up where an importer comes to write something else


def weights_of(folder: Path, part: str) -> Path:
    """The file that holds a part's tensors, of a run, a part's folder or a checkpoint. Raises as :func:`imported`."""
    base = read_base(folder)
    return (imported(part, base[part]) if part in base else folder) / WEIGHTS


def imported(part: str, base: BaseWeights) -> Path:
    """The folder of an imported part, made on first use: its files are found or fetched, checked and read.

    Raises:
        DuologueError: they cannot be had, have other bytes, or are no such part.
    """
    paths = sources.named(base) if sources.takes_any() else []
    wanted = [file.sha256 for file in base.files]
    folder = _place(part, base, wanted)
    if not paths and (folder / CONFIG).is_file():
        return folder
    with _one_at_a_time(folder):
        if not paths and (folder / CONFIG).is_file():  # another process has made it meanwhile
            return folder
        paths = paths or [sources.obtain(part, base, file) for file in base.files]
        found = [sources.digest(path) for path in paths] if sources.takes_any() else wanted
        if found != wanted:
            folder = _place(part, base, found)
            say_progress(
                f"warning: the {part} is read from {', '.join(map(str, paths))}, which this model was not made with: "
                "the card's figures do not hold"
            )
        if not (folder / CONFIG).is_file():
            _make(folder, base, paths)
    if (kind := read_object(folder / CONFIG).get("part")) != part:
        raise DuologueError(f"base.{part}: importer {base.importer} makes a {kind} of {base.hub}, no {part}")
    return folder


def _place(part: str, base: BaseWeights, digests: Sequence[str]) -> Path:
    default = expanded(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "duologue"
    root = expanded(os.environ.get(CACHE) or default)
    made_of = [FORM, base.importer, base.settings, [(f.name, sha) for f, sha in zip(base.files, digests, strict=True)]]
    name = hashlib.sha256(json.dumps(made_of).encode()).hexdigest()[:16]
    return root / "base" / f"{part}-{name}"


@contextmanager
def _one_at_a_time(folder: Path) -> Iterator[None]:
    """One process at a time is here with the same folder. The lock goes with the process that holds it."""
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        lock = (folder.parent / f".{folder.name}.lock").open("w")
    except OSError as error:
        raise DuologueError(f"the cache cannot be written: {error}; set {CACHE} to a folder that can") from None
    with lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _make(folder: Path, base: BaseWeights, paths: Sequence[Path]) -> None:
    """Import the files, which an importer finds under the names that they have on the hub."""
    importer = IMPORTERS.module(base.importer)
    config = read_settings(importer.Config, base.settings, f"importer {base.importer}")
    for left in folder.parent.glob(f".{folder.name}.new-*"):  # by a process that was killed
        shutil.rmtree(left, ignore_errors=True)
    with tempfile.TemporaryDirectory() as temporary:
        source = Path(temporary) / base.hub.rpartition("/")[2]
        links = [source / file.name for file in base.files]
        for link, path in zip(links, paths, strict=True):
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(path.resolve())
        importer.run(links[0] if len(links) == 1 else source, folder, config)
