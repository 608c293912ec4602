"""Reports are compared over the same questions of the same sets, and what differs is said with how often."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from duologue.inference.evaluation.inputs.pairing import pair_up
from duologue.inference.evaluation.suites import compare
from duologue.model.errors import DuologueError

METRIC = {
    "id": "m",
    "key": "m",
    "name": "Right",
    "unit": "%",
    "better": "higher",
    "value": 0.5,
    "low": 0.0,
    "high": 1.0,
}


def report(rows: list[dict[str, Any]], **settings: Any) -> dict[str, Any]:
    return {"settings": {"suite": "s2s", **settings}, "metrics": [METRIC], "rows": rows}


def row(at: int, right: float = 1.0, **fields: Any) -> dict[str, Any]:
    return {
        "id": f"{at:04d}",
        "question": f"what is {at} plus one",
        "measures": {"m": [right, 1]},
        "failed": None,
    } | fields


def stored(folder: Path, found: dict[str, Any]) -> Path:
    folder.mkdir()
    (folder / "report.json").write_text(json.dumps(found), encoding="utf-8")
    return folder


def test_the_same_id_is_not_the_same_question(tmp_path: Path) -> None:
    """Two seeds: four of the ten rows ask the same, and only those are compared, whatever the others would say."""
    a = report([row(at) for at in range(10)], seed=0)
    b = report([row(at, 0.0, question=f"who is {at}") if at > 3 else row(at) for at in range(10)], seed=1)
    folders = [stored(tmp_path / name, found) for name, found in (("a", a), ("b", b))]
    (pair,) = compare.run(folders, tmp_path / "out", quiet=True)["pairs"]
    assert pair["rows"] == 4 and pair["left_out"] == {"with another question": 6}
    (difference,) = pair["differences"]
    assert difference["count"] == 4 and not difference["differs"]
    for name in ("report.html", "summary.md"):
        text = (tmp_path / "out" / name).read_text(encoding="utf-8")
        assert "compared over 4 rows; left out: 6 with another question" in text


def test_rows_of_one_id_are_all_compared(tmp_path: Path) -> None:
    rows = [row(at % 3, question=f"number {at}") for at in range(6)]
    found = pair_up(report(rows), report(rows[:5]))
    assert len(found.a) == len(found.b) == 5 and found.left_out == {"of A alone": 1}


@pytest.mark.parametrize(
    "wrong",
    [
        {"settings": None}, {"settings": {}}, {"metrics": None}, {"metrics": [{}]}, {"rows": None}, {"rows": [3]},
        {"rows": [{"question": "q"}]}, {"rows": [{"id": 1, "measures": None}]},
    ],
)  # fmt: skip
def test_what_is_no_report_is_one_line(wrong: dict[str, Any], tmp_path: Path) -> None:
    good = report([row(0)])
    folders = [stored(tmp_path / name, found) for name, found in (("a", good), ("b", good | wrong))]
    with pytest.raises(DuologueError, match=r"b/report\.json is no report of"):
        compare.run(folders, tmp_path / "out", quiet=True)


def test_nothing_in_common_is_an_error(tmp_path: Path) -> None:
    a, b = report([row(0), row(1)], seed=0), report([row(0, question="x"), row(2)], seed=1)
    folders = [stored(tmp_path / name, found) for name, found in (("a", a), ("b", b))]
    why = "1 with another question, 1 of a alone, 1 of b alone; their settings differ in seed"
    with pytest.raises(DuologueError, match=f"^a and b have no row in common: {why}$"):
        compare.run(folders, tmp_path / "out", quiet=True)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("field", ["question", "text", "prompt", "asked", "answer", "slot", "set", "subset", "voice"])
def test_every_field_that_says_what_is_asked_counts(field: str) -> None:
    a, b = report([row(0), row(1, **{field: "one"})]), report([row(0), row(1, **{field: "another"})])
    assert pair_up(a, b).left_out == {f"with another {field}": 1}
    assert len(pair_up(a, report([row(0), row(1, **{field: " one "})])).a) == 2


def test_what_is_left_out_is_counted() -> None:
    a = report([row(0), row(1, failed="no sound"), row(2), row(3), {"id": "0004", "measures": {"m": [1, 1]}}])
    b = report([row(0), row(1), row(3, question=None), row(4), row(5), row(6)])
    found = pair_up(a, b, ("one", "two"))
    assert list(found.a) == list(found.b) == ["0000"]
    assert found.left_out == {
        "failed in one of the two": 1,
        "of one alone": 1,
        "of which two does not say what was asked": 1,
        "of which one does not say what was asked": 1,
        "of two alone": 2,
    }
    bare = report([{"id": "x", "measures": {"m": [1, 1]}}])
    assert pair_up(bare, bare).note == ""  # where neither says it, the name is all there is
