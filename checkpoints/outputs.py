"""What a command writes is nothing that it reads: checked at the edge of every command, before anything is loaded."""

from __future__ import annotations

import itertools
import os
import stat
from collections.abc import Iterable, Mapping
from pathlib import Path

from ..model.errors import DuologueError
from .files import expanded
from .source import BUNDLED

Name = str | os.PathLike[str]
Names = Name | Iterable[Name] | None


def keep_apart(
    outputs: Mapping[str, Names], inputs: Mapping[str, Names], *, replaces: bool = False, mixes: bool = False
) -> None:
    """Refuse an output that is an input, one of the files of a folder that is an input, or another output.

    Paths are compared by what they lead to: links, ``./x`` and hard links are seen through. Devices and FIFOs are not
    compared, for writing to them takes nothing away.

    Args:
        outputs: what a user calls each (``"-o"``), and its path or paths; None: not given.
        inputs: the same. A name that is no path (a hub id) does no harm, nor does one of what is not there.
        replaces: the outputs are folders that are replaced whole, so no input may lie in one.
        mixes: the inputs are folders that are read with all that lies below, so no output may lie in one.
    """
    written, read = _pairs(outputs), [(what, path) for what, path in _pairs(inputs) if path.exists()]
    for (what, out), (other, source) in itertools.product(written, read):
        if _same(out, source):
            raise DuologueError(f"{what} {out} is also {other}: write to another place")
        if out.is_file() and source.is_dir() and _inside(out, source):
            raise DuologueError(f"{what} {out} is a file of {other} {source}: write to another place")
        if replaces and _inside(source, out):
            raise DuologueError(f"{what} {out} would replace {other}, which lies in it: write to another place")
        if mixes and source.is_dir() and _inside(out, source):
            raise DuologueError(f"{what} {out} would become a part of {other} {source}: write to another place")
    for (what, out), (other, second) in itertools.combinations(written, 2):
        if _same(out, second):
            raise DuologueError(f"{what} and {other} are both {out}: write to two places")


def model_path(name: str) -> Path:
    """Where a model lies, if it is a bundled name or a folder."""
    return Path(__file__).parent / name if name in BUNDLED else expanded(name)


def _pairs(named: Mapping[str, Names]) -> list[tuple[str, Path]]:
    found = []
    for what, given in named.items():
        names = [given] if isinstance(given, str | os.PathLike) else given or ()
        found += [(what, expanded(name)) for name in names if os.fspath(name)]
    return found


def _same(a: Path, b: Path) -> bool:
    try:
        return os.path.samefile(a, b) and (stat.S_ISREG(a.stat().st_mode) or a.is_dir())
    except OSError:  # one is not there yet
        return os.path.realpath(a) == os.path.realpath(b)


def _inside(path: Path, folder: Path) -> bool:
    """Whether ``path`` lies anywhere in the folder, seen through links."""
    return any(_same(parent, folder) for parent in Path(os.path.realpath(path)).parents)
