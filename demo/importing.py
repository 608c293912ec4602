"""``duologue import``: which importer knows which kind of foreign weights."""

from __future__ import annotations

from pathlib import Path

from ..checkpoints.importers import IMPORTERS
from ..checkpoints.outputs import keep_apart
from ..checkpoints.settings import read_settings
from ..checkpoints.source import resolve_foreign


def run(kind: str, source: str, dest: Path, words: list[str]) -> Path:
    """Import weights of a kind from a path or a hub id.

    Raises:
        DuologueError: one line that says what is unknown, missing or does not fit; ``dest`` is then as it was.
    """
    module = IMPORTERS.module(kind)
    config = read_settings(module.Config, words, f"importer {kind}")
    texts = {name: value for name, value in vars(config).items() if isinstance(value, str)}
    keep_apart({"DEST": dest}, {"SOURCE": source, **texts}, replaces=True)
    return Path(module.run(resolve_foreign(source), dest, config))
