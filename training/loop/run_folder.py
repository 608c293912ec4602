"""What a training run leaves in its folder: checkpoints, weights, figures; each file whole or not there.

``state-00000400.pt`` holds all that resuming needs, ``model.safetensors`` the parts that the stage makes (a part that a
model is assembled from has its name in SpeechLMConfig), ``best.safetensors`` the same at the best figure so
far, ``figures.jsonl`` what was measured at each save.
"""

from __future__ import annotations

import json
import re
import sys
import zipfile
from pathlib import Path
from typing import Any, BinaryIO, Self

import torch

from ...checkpoints.files import appearing, write_text
from ...checkpoints.source import WEIGHTS, one_line
from ...model.errors import DuologueError

BEST = "best.safetensors"
METRICS_LOG = "figures.jsonl"
STATE = re.compile(r"state-(\d{8,})\.pt")
FORMAT = 1  # of a checkpoint; the first ones do not say so
_FIELDS = {
    "step", "task", "optimiser", "optimiser_kind", "learn", "ema", "rival", "rival_optimiser", "bad", "rng", "cuda_rng",
}  # fmt: skip


def warn(message: str) -> None:
    """A line on stderr about something that the run goes on in spite of."""
    print(f"duologue: warning: {message}", file=sys.stderr, flush=True)


def states(folder: Path) -> list[Path]:
    """The checkpoints of a run, readable or not, the oldest first."""
    found = ((STATE.fullmatch(path.name), path) for path in folder.iterdir())
    return [path for _, path in sorted((int(match[1]), path) for match, path in found if match)]


def read_state(path: Path, mmap: bool = False) -> dict[str, Any]:
    """A checkpoint, every byte of it compared with its checksum (torch.load does not).

    Raises:
        DuologueError: it cannot be read, it is damaged, or another version wrote it.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
        if damaged:
            raise DuologueError(f"{damaged} in it is damaged")
        state = torch.load(path, weights_only=True, map_location="cpu", mmap=mmap)
        if not isinstance(state, dict) or state.get("format", FORMAT) != FORMAT:
            found = state.get("format") if isinstance(state, dict) else type(state).__name__
            raise DuologueError(f"its format is {found!r}; this version reads {FORMAT}")
        missing = _FIELDS - state.keys()
        if missing:
            raise DuologueError(f"it lacks {', '.join(sorted(missing))}")
    except Exception as error:  # damaged bytes make a pickle fail in any way
        raise DuologueError(f"{path} cannot be read: {one_line(error)}") from None
    return state


def newest_state(folder: Path) -> dict[str, Any] | None:
    """See :meth:`States.newest`."""
    return States(folder, keep=1).newest()


class States:
    """The checkpoints of a run: which one to go on from, and which to remove. What cannot be read is never removed."""

    def __init__(self, folder: Path, keep: int) -> None:
        self.folder, self.keep = folder, keep
        self.newest_file: Path | None = None  # read or written, whole
        self._faults: dict[Path, str] = {}  # of each that was looked at, why it cannot be read; "": it can

    def newest(self) -> dict[str, Any] | None:
        """The newest checkpoint that can be read; None where there are none. Newer ones are named on stderr.

        Raises:
            DuologueError: there are checkpoints, and none can be read.
        """
        try:
            found = states(self.folder)
        except OSError as error:
            raise DuologueError(f"{self.folder} cannot be read: {error.strerror or error}") from None
        for path in reversed(found):
            try:
                state = read_state(path)
            except DuologueError as error:
                self._faults[path] = str(error)
                continue
            for fault in self._faults.values():
                warn(f"{fault}; it is left as it is, and the run goes on from {path.name}")
            self.newest_file, self._faults[path] = path, ""
            return state
        if self._faults:
            newest, *older = self._faults.values()
            more = f" (nor can {len(older)} older ones)" if older else ""
            raise DuologueError(
                f"{newest}{more}; nothing was changed: restore a checkpoint, give another out, or move all "
                f"state-* and {METRICS_LOG} out of {self.folder} to begin anew"
            )
        return None

    def save(self, state: dict[str, Any]) -> None:
        """Write ``state`` (its "step" names the file); of those that are whole, remove all but the newest ``keep``.

        Raises:
            DuologueError: it cannot be written; nothing is left of it, and nothing was removed.
        """
        path = self.folder / f"state-{state['step']:08d}.pt"
        self._move_aside(path)
        with appearing(path) as file:
            written = _Remembering(file)
            try:
                torch.save({"format": FORMAT} | state, written)  # type: ignore[arg-type]
            except RuntimeError as error:  # torch's own word for a write that failed
                raise written.error or OSError(one_line(error)) from None
        self.newest_file, self._faults[path] = path, ""
        earlier = states(self.folder)
        earlier = earlier[: earlier.index(path) + 1]  # what claims to be later is not this run's
        for old in [each for each in earlier if self._is_whole(each)][: -self.keep]:
            try:
                old.unlink()
            except OSError as error:
                warn(f"{old} cannot be removed: {error.strerror or error}")

    def _move_aside(self, path: Path) -> None:
        """A checkpoint that could not be read, and in whose place the next is written, gets another name."""
        if not path.exists() or self._is_whole(path):
            return
        names = (path.with_name(f"{path.name}.unreadable{number}") for number in ("", *range(2, 1_000)))
        aside = next(name for name in names if not name.exists())
        try:
            path.rename(aside)
        except OSError as error:
            raise DuologueError(f"cannot write {path}: {error.strerror or error}") from None
        warn(f"{path.name}, which cannot be read, is now {aside.name}")

    def _is_whole(self, path: Path) -> bool:
        if path not in self._faults:
            try:
                read_state(path, mmap=True)
                self._faults[path] = ""
            except DuologueError as error:
                self._faults[path] = str(error)
                warn(f"{error}; it is left as it is")
        return not self._faults[path]


class _Remembering:
    """A file that keeps the error of a write: torch.save replaces it by one that does not say why."""

    def __init__(self, file: BinaryIO) -> None:
        self.file = file
        self.error: OSError | None = None

    def write(self, data: bytes) -> int:
        try:
            return self.file.write(data)
        except OSError as error:
            self.error = error
            raise

    def flush(self) -> None:
        self.file.flush()


class MetricsLog:
    """``figures.jsonl``: a row a save.

    Raises:
        DuologueError: a line of the file is no row. (Its last one may be cut short.)
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / METRICS_LOG
        self.rows: list[dict[str, Any]] = []
        self._not_kept: set[int] = set()  # steps that were the best, and whose weights could not be written
        try:
            lines = self.path.read_bytes().split(b"\n")[:-1] if self.path.exists() else []
        except OSError as error:
            raise DuologueError(f"{self.path} cannot be read: {error.strerror or error}") from None
        for number, line in enumerate(lines, start=1):
            try:
                row = json.loads(line)
                self.rows.append(row | {"step": int(row["step"])})
            except (ValueError, TypeError, KeyError, RecursionError) as error:
                raise DuologueError(
                    f"{self.path}, line {number}: no row of figures ({one_line(error)}); nothing was changed: mend the "
                    "line, or move the file away"
                ) from None

    def begin(self, first: int) -> Self:
        """Take back the rows after the checkpoint that the run goes on from; the file loses them at the next save.

        Raises:
            DuologueError: a run that begins at 0, and figures of several saves with weights. (One was killed in its
                first.)
        """
        if first == 0 and len(self.rows) > 1 and self.path.with_name(WEIGHTS).exists():
            raise DuologueError(
                f"{self.path} has the figures of {len(self.rows)} saves, to step {self.rows[-1]['step']}, but there is "
                f"no checkpoint to go on from; nothing was changed: restore state-*, give another out, or move "
                f"{METRICS_LOG} away to begin anew"
            )
        self.rows = [row for row in self.rows if row["step"] <= first]
        return self

    def add(self, row: dict[str, Any]) -> None:
        """Keep a row and write all. Raises DuologueError; the row is then in the next write."""
        self.rows.append(row)
        write_text(self.path, "".join(json.dumps(row) + "\n" for row in self.rows))

    def is_best(self, best: str | None) -> bool:
        """Whether the last row's figure is the best so far; ``best`` is "min:NAME" or "max:NAME"."""
        if best is None or not self.rows:
            return False
        way, _, name = best.partition(":")
        if name not in self.rows[-1]:
            raise DuologueError(f"best is {best!r}, but this run measures: {', '.join(self.rows[-1])}")
        values = [row[name] for row in self.rows if name in row and row["step"] not in self._not_kept]
        return bool(values[-1] == (min if way == "min" else max)(values))

    def best_not_kept(self) -> None:
        """The last row was the best, and its weights could not be written: the next may be the best beside it."""
        self._not_kept.add(self.rows[-1]["step"])
