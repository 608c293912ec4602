"""Which rows of two reports are about the same: not the same id alone, but the same question of the same set."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ....model.errors import DuologueError

# What says what was asked, and of which set; rows of one suite have some of them.
ASKED = ("question", "text", "prompt", "asked", "answer", "slot", "reference")
SET = ("set", "subset", "category", "kind", "voice", "seconds")
# Settings that decide what is asked, to be named where rows differ.
SETTINGS = ("seed", "split", "profile", "voices", "data", "questions", "utterances", "scenes", "limit")

Rows = dict[str, dict[str, Any]]


@dataclass(frozen=True, kw_only=True)
class Pairing:
    """a and b: the rows that are compared, by id. left_out: why others are not, with how many."""

    a: Rows
    b: Rows
    left_out: dict[str, int]

    @property
    def note(self) -> str:
        """One line; "" where every row has its pair."""
        left = ", ".join(f"{count} {why}" for why, count in self.left_out.items())
        return f"compared over {len(self.a)} rows; left out: {left}" if left else ""


def pair_up(a: Mapping[str, Any], b: Mapping[str, Any], names: tuple[str, str] = ("A", "B")) -> Pairing:
    """Pair the rows of two reports.

    Raises:
        DuologueError: they have none in common, with what differs.
    """
    rows = [_by_id(report["rows"]) for report in (a, b)]
    left: Counter[str] = Counter()
    shared = []
    for key in rows[0]:
        if key not in rows[1]:
            left[f"of {names[0]} alone"] += 1
        elif any(side[key].get("failed") for side in rows):
            left["failed in one of the two"] += 1
        elif differing := [field for field in (*ASKED, *SET) if _differ(rows[0][key], rows[1][key], field)]:
            left[f"with another {differing[0]}"] += 1
        elif len({_says_what(side[key]) for side in rows}) > 1:
            left[f"of which {names[_says_what(rows[0][key])]} does not say what was asked"] += 1
        else:
            shared.append(key)
    if alone := sum(key not in rows[0] for key in rows[1]):
        left[f"of {names[1]} alone"] = alone
    found = Pairing(**{name: {key: side[key] for key in shared} for name, side in zip("ab", rows, strict=True)},
                    left_out=dict(left))  # fmt: skip
    if not shared:
        why = ", ".join(f"{count} {reason}" for reason, count in left.items()) or "there are none"
        settings = [name for name in SETTINGS if a["settings"].get(name) != b["settings"].get(name)]
        hint = f"; their settings differ in {', '.join(settings)}" if settings else ""
        raise DuologueError(f"{names[0]} and {names[1]} have no row in common: {why}{hint}")
    return found


def _by_id(rows: Sequence[dict[str, Any]]) -> Rows:
    """Each row by its id; the second of an id, which some benchmarks have, is another than the first."""
    found: Rows = {}
    for row in rows:
        name, times = str(row["id"]), 1
        while name in found:
            times += 1
            name = f"{row['id']} ({times})"
        found[name] = row
    return found


def _says_what(row: Mapping[str, Any]) -> bool:
    return any(row.get(field) is not None for field in ASKED)


def _differ(a: Mapping[str, Any], b: Mapping[str, Any], field: str) -> bool:
    """Whether both say it, and not the same; spaces aside."""
    found = [row.get(field) for row in (a, b)]
    if None in found:
        return False
    one, other = (" ".join(value.split()) if isinstance(value, str) else value for value in found)
    return bool(one != other)
