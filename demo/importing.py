"""``duologue import``: which importer knows which kind of foreign weights, and its options as KEY=VALUE."""

from __future__ import annotations

import dataclasses
import typing
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

from ..checkpoints.files import with_home
from ..checkpoints.outputs import keep_apart
from ..checkpoints.source import resolve_foreign
from ..model.errors import DuologueError

# Each module has a frozen dataclass ``Options`` and ``run(source, dest, options)``, which writes a folder or nothing.
KINDS = {
    "whisper": "checkpoints.importers.whisper",
    "llm": "checkpoints.importers.llm",
    "llama-omni": "checkpoints.importers.llama_omni",
    "code-hifigan": "checkpoints.importers.code_hifigan",
    "hubert-kmeans": "data_prep.units.import_units",
    "wavtokenizer": "checkpoints.importers.wavtokenizer",
    "encodec": "checkpoints.importers.encodec",
    "utmos22-strong": "checkpoints.importers.utmos22_strong",
}


def run(kind: str, source: str, dest: Path, options: list[str]) -> Path:
    """Import weights of a kind from a path or a hub id.

    Raises:
        DuologueError: one line that says what is unknown, missing or does not fit; ``dest`` is then as it was.
    """
    if kind not in KINDS:
        raise DuologueError(f"there is no importer {kind!r}; there are {', '.join(KINDS)}")
    module = import_module(f"..{KINDS[kind]}", __package__)
    given = _options(module, kind, options)
    texts = {name: value for name, value in vars(given).items() if isinstance(value, str)}
    keep_apart({"DEST": dest}, {"SOURCE": source, **texts}, replaces=True)
    return Path(module.run(resolve_foreign(source), dest, given))


def _options(module: ModuleType, kind: str, given: list[str]) -> Any:
    kinds = typing.get_type_hints(module.Options)
    values: dict[str, Any] = {}
    for entry in map(with_home, given):
        key, sep, text = entry.partition("=")
        if not sep or key not in kinds:
            known = f"it takes {', '.join(f'{name}=…' for name in kinds)}" if kinds else "it takes none"
            raise DuologueError(f"option {entry!r} of importer {kind}: {known}")
        number = int in (kinds[key], *typing.get_args(kinds[key]))
        if number and not (text.isascii() and text.isdigit() and len(text) < 10):
            raise DuologueError(f"option {entry}: the value must be a whole number")
        values[key] = int(text) if number else text
    required = [f.name for f in dataclasses.fields(module.Options) if f.default is dataclasses.MISSING]
    if missing := [name for name in required if name not in values]:
        raise DuologueError(f"importer {kind} needs {', '.join(f'{name}=…' for name in missing)}")
    return module.Options(**values)
