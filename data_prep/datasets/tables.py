"""Tables of texts: a .tsv whose first line names its columns, of which `text` is what is said.

`reply`, `slot`, `system` and `id` are what they are in a conversation, where there are such; any other column is a
field, by which rows are chosen (:class:`RowFilter`). Cells are as they are written, without quotes or escapes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ...checkpoints.files import lines, read_text
from ...model.errors import DuologueError

TABLE = ".tsv"


def read_table(file: Path) -> list[dict[str, str]]:
    """{column: cell} of each row that has a text. Raises DuologueError that names the line with what is wrong."""
    (head, *body) = [line.split("\t") for line in lines(read_text(file))] or [[]]
    if "text" not in head or len(set(head)) < len(head):
        raise DuologueError(f"{file}, line 1: expected names of columns, 'text' among them, each once; found {head}")
    rows = []
    for number, cells in enumerate(body, start=2):
        if cells == [""]:
            continue
        if len(cells) != len(head):
            raise DuologueError(f"{file}, line {number} has {len(cells)} cells, and the first line {len(head)} columns")
        rows.append(dict(zip(head, cells, strict=True)))
    found = [row for row in rows if row["text"].strip()]
    if not found:
        raise DuologueError(f"{file} has no row with a text")
    return found


@dataclass(frozen=True)
class RowFilter:
    """Which entries are taken, by their fields: "split=train set=clinc150,webquestions", all of it, or ""."""

    wanted: tuple[tuple[str, frozenset[str]], ...]

    @classmethod
    def read(cls, text: str, setting: str) -> RowFilter:
        """Raises DuologueError, which names the setting, for what is no filter."""
        wanted = []
        for part in text.split():
            column, equals, values = part.partition("=")
            if not column or not equals or not values:
                raise DuologueError(f"{setting}={text}: expected COLUMN=VALUE[,VALUE], several with spaces between")
            wanted.append((column, frozenset(values.split(","))))
        return cls(tuple(wanted))

    def __bool__(self) -> bool:
        return bool(self.wanted)

    def takes(self, fields: Mapping[str, str]) -> bool:
        """Whether an entry has one of the values of each column."""
        return all(fields.get(column) in values for column, values in self.wanted)
