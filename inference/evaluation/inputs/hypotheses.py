"""What another system wrote of each utterance, in files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from ....checkpoints.files import read_text, texts_by_id
from ....model.errors import DuologueError

HYPOTHESES = "hypotheses.jsonl"


def texts_in(folder: Path) -> Callable[[str], str]:
    """The text of an id, "" where there is none: of hypotheses.jsonl, {"id": …, "text": …} a line, or of ID.txt.

    Raises:
        DuologueError: the folder has neither.
    """
    path = folder / HYPOTHESES
    if path.is_file():
        known = texts_by_id(path, "text")
        return lambda name: known.get(name, "")
    if not folder.is_dir() or next(folder.rglob("*.txt"), None) is None:
        raise DuologueError(f"{folder} holds neither {HYPOTHESES} nor texts (ID.txt)")

    def read(name: str) -> str:
        text = folder / f"{name}.txt"
        return read_text(text).strip() if text.is_file() else ""

    return read
