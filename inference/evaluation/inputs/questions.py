"""The questions that a suite asks: of a set that makes them, as many as are wanted; of a file, those that it has."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ....checkpoints.files import lines, parsed, read_text
from ....data_prep.datasets.question_sets import Dialogue, question_set
from ....data_prep.datasets.splits import Split
from ....model.errors import DuologueError

BUNDLED = "nano"  # the model and the question set where none is given
_CONVERSATIONS = {"turns", "instruction", "conversations", "messages"}  # what the objects of such a file begin with


def questions_of(data: str | Path, seed: int, count: int, split: str | None = None) -> list[Dialogue]:
    """``count`` questions of a set, by its name or file; of a file, in its order, or all that it has if they are fewer.

    split: None: of a set that makes its questions the test's, of a file all of them.

    Raises:
        DuologueError: no such set, no such split, or none of its questions is in the split.
    """
    if split is not None and split not in set(Split):
        raise DuologueError(f"split is {split!r}; it must be {', '.join(Split)}")
    questions = question_set(str(data))
    written = questions.written(split, answered=False)
    if written is None:
        return list(questions.distinct(seed, count, split or Split.TEST))
    if not written:
        raise DuologueError(f"{questions.name} has no question to ask" + (f" in the split {split}" if split else ""))
    chosen = np.random.default_rng(seed).permutation(len(written))[:count]
    return [written[at] for at in sorted(chosen.tolist())]


def usual_split(data: str | Path) -> str:
    """Whose questions are asked where no split is chosen."""
    return "all" if question_set(str(data)).written() is not None else str(Split.TEST)


def is_question_file(path: Path) -> bool:
    """Whether it is a file of conversations in writing (and not a manifest of recordings)."""
    if not path.is_file() or path.suffix not in (".json", ".jsonl"):
        return False
    text = read_text(path)
    first = next((line for line in lines(text) if line.strip()), "")
    if first.lstrip().startswith("["):
        return True
    entry = parsed(first, f"{path}, line 1")
    return isinstance(entry, dict) and bool(_CONVERSATIONS & entry.keys())
