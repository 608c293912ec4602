"""Commands whose paths may begin with ``~``, which no shell sees in ``--output=~/reply.wav``."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import typer

from ..checkpoints.files import expanded

Command = Callable[..., None]


class Commands(typer.Typer):
    """typer's, with the home folder in place of ``~`` in every argument that is a path."""

    def command(self, *names: Any, **settings: Any) -> Callable[[Command], Command]:  # type: ignore[override]
        register = super().command(*names, **settings)

        def add(function: Command) -> Command:
            @functools.wraps(function)
            def run(**given: Any) -> None:
                function(**{name: _at_home(value) for name, value in given.items()})

            register(run)
            return function

        return add


def _at_home(value: Any) -> Any:
    if isinstance(value, list):
        return [_at_home(item) for item in value]
    return expanded(value) if isinstance(value, Path) else value
