"""Answers of a model, kept on disk as they come: who asks again after a break is given them from there.

A file of JSON lines, {"key", "answer"}; the key is a hash of everything that was asked.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ...checkpoints.files import append_whole, encoded
from ...model.errors import DuologueError


def key_of(request: Mapping[str, Any]) -> str:
    """The key of what is asked, in JSON values."""
    return hashlib.sha256(json.dumps(request, sort_keys=True).encode()).hexdigest()


class Journal:
    """The answers in a file, which is made with the first of them.

    Raises:
        DuologueError: a line that is no answer. A last line that was cut off is dropped.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._answers = _read(path)

    def __contains__(self, key: str) -> bool:
        return key in self._answers

    def __getitem__(self, key: str) -> str:
        return self._answers[key]

    def add(self, answers: Mapping[str, str]) -> None:
        """Keep {key: answer}: whole lines, or none. Raises DuologueError where they cannot be written."""
        self._answers.update(answers)
        rows = ({"key": key, "answer": answer} for key, answer in answers.items())
        append_whole(self.path, encoded("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)))


def _read(path: Path) -> dict[str, str]:
    if not path.exists():
        return {}
    lines = path.read_bytes().split(b"\n")
    answers = {}
    for number, line in enumerate(lines[:-1], start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            answers[row["key"]] = str(row["answer"])
        except (ValueError, TypeError, KeyError):
            raise DuologueError(f"{path}, line {number} is no answer: delete that line") from None
    if lines[-1]:
        os.truncate(path, path.stat().st_size - len(lines[-1]))
    return answers
