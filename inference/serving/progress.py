"""What a service does until it can be reached, on stderr: a turning sign with seconds, or plain lines for a log."""

from __future__ import annotations

from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import Progress as Bar
from rich.progress import SpinnerColumn, TextColumn, TimeElapsedColumn


class Progress:
    """A context; call it with each step's name. Ends with the context, or by :meth:`end`. ``quiet``: shows nothing."""

    def __init__(self, console: Console | None = None, quiet: bool = False) -> None:
        self._console = console or Console(stderr=True, highlight=False, quiet=quiet)
        columns = (SpinnerColumn(), TextColumn("{task.description}", markup=False), TimeElapsedColumn())
        self._bar = Bar(*columns, console=self._console, transient=True) if self._console.is_terminal else None
        self._task = None if self._bar is None else self._bar.add_task("starting …")
        self._ended = False

    def __enter__(self) -> Self:
        if self._bar is not None:
            self._bar.start()
        return self

    def __call__(self, step: str) -> None:
        if self._ended:
            return
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, description=f"{step} …")
        else:
            self._console.print(f"{step} …", markup=False, soft_wrap=True)

    def note(self, line: str) -> None:
        """A line that stays."""
        self._console.print(line, markup=False, soft_wrap=True)

    def end(self) -> None:
        """It can be reached: nothing of this is left on a terminal."""
        if self._bar is not None and not self._ended:
            self._bar.stop()
        self._ended = True

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.end()
