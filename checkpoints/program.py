"""What every program of Duologue does at its edge: any console will do, and an error is one line."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Callable
from typing import Any

from ..model.errors import DuologueError


def any_console() -> None:
    """Let a console that lacks a character (PYTHONIOENCODING=cp1252, ascii) show another instead of ending the run."""
    for stream, errors in ((sys.stdout, "replace"), (sys.stderr, "backslashreplace")):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=errors)


def say(line: str) -> None:
    """A line on stdout while the work goes on, which a reader that has left (``| head -1``) does not end."""
    try:
        print(line, flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def say_progress(line: str) -> None:
    """What takes a while, as a line on stderr before it begins."""
    print(f"duologue: {line}", file=sys.stderr, flush=True)


def say_error(message: Any) -> None:
    """An error as one line on stderr."""
    print(f"duologue: error: {' '.join(str(message).split())}", file=sys.stderr)


def program(main: Callable[[], None]) -> None:
    """Run ``main``; a :class:`DuologueError` or an error of the system is one line and exit status 2."""
    any_console()
    try:
        main()
    except DuologueError as error:
        say_error(error)
    except OSError as error:  # a full disk, a folder without permission, a port that is taken
        say_error(f"{error.filename}: {error.strerror}" if error.filename else error)
    else:
        return
    sys.exit(2)
