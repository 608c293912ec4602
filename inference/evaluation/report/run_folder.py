"""The folder of one evaluation: its settings, rows that are only appended to, and the reports made from them.

settings.json    what is measured: another model, seed or set wants another folder
*.jsonl          one row an item, written as soon as it is known, so that a run which was broken off goes on
report.json      settings, metrics, figures, environment, rows, broken inputs
report.html      the same for people, self-contained
summary.md       the same as a section of a model card
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ....checkpoints.files import read_json_lines, read_object, write_atomically, write_json
from ....checkpoints.source import WEIGHTS
from ....model.errors import DuologueError
from ...assistant.assistant import Assistant, limit_threads
from ...assistant.cascade_file import weights_of
from ...assistant.loading import load

Row = dict[str, Any]


def open_folder(out: Path, settings: Mapping[str, Any]) -> Path:
    """Make the folder, or go on in it.

    Raises:
        DuologueError: it holds the figures of other settings.
    """
    out.mkdir(parents=True, exist_ok=True)
    path = out / "settings.json"
    if path.exists():
        before = read_object(path)
        other = [name for name in settings if before.get(name) != settings[name]]
        if other:
            raise DuologueError(f"{out} holds figures of another {' and '.join(other)}: choose another folder")
    write_json(path, settings)
    return out


def loaded(model: str | Assistant) -> tuple[Assistant, dict[str, str | None]]:
    """The model, and what it is called: its name and the hash of its weights."""
    if isinstance(model, Assistant):
        return model, {"name": None, "sha256": None}
    assistant = load(model)
    limit_threads(assistant)
    assert assistant.path is not None
    return assistant, {"name": model, "sha256": _digest(assistant.path)}


def _digest(model: Path) -> str:
    """SHA-256 of a model's weights: of one file, of all shards in their order, of a cascade's file and weights."""
    if model.is_file():
        files = weights_of(model)
    else:
        files = [model / WEIGHTS] if (model / WEIGHTS).is_file() else sorted(model.glob("*.safetensors"))
    digest = hashlib.sha256()
    for path in files:
        with path.open("rb") as file:
            while part := file.read(1 << 24):
                digest.update(part)
    return digest.hexdigest()


def resume_rows(
    path: Path,
    title: str,
    items: Sequence[Any],
    work: Callable[[int, Any], Row],
    quiet: bool,
    name: Callable[[Any], str] | None = None,
) -> list[Row]:
    """Do ``work(number, item)`` for the items that have no row in the file yet, or one that was broken off in writing.

    name: an item's id, for the row. With it, an item that raises DuologueError gets a row too: its ``failed`` says why.
    """

    def row(at: int, item: Any) -> Row:
        if name is None:
            return work(at, item)
        try:
            return {"id": name(item), "failed": None} | work(at, item)
        except DuologueError as error:
            return {"id": name(item), "failed": str(error)}

    whole = path.read_bytes().split(b"\n")[:-1] if path.exists() else []  # the last may end in the middle of a letter
    write_atomically(path, b"".join(line + b"\n" for line in whole[: len(items)]))
    rows = read_json_lines(path)
    with path.open("a", encoding="utf-8", errors="backslashreplace") as file:
        for item in progress(items[len(rows) :], title, len(rows), len(items), quiet):
            line = json.dumps(row(len(rows), item), ensure_ascii=False)
            file.write(f"{line}\n")
            file.flush()
            rows.append(json.loads(line))  # as a run that goes on would read it
    return rows


def progress(items: Iterable[Any], title: str, done: int, total: int, quiet: bool) -> Iterator[Any]:
    """The items, with a progress bar on stderr."""
    if quiet:
        yield from items
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn(f"{title:8}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(title, total=total, completed=done)
        for item in items:
            yield item
            bar.advance(task)
