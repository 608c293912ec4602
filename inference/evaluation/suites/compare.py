"""Earlier reports side by side, and whether the systems differ: duologue evaluate compare A B …

Each report is a folder of an earlier evaluation, all of the same suite. The first is the one that the others are
compared with, over the items that both measured, the same question of the same set: the difference with its 95 %
interval and a two-sided p by paired bootstrap. A difference counts when it survives Holm's correction over all metrics
of that pair, at 5 %.
"""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from ....checkpoints.cards.markdown import table as markdown_table
from ....checkpoints.files import read_object, write_json, write_text
from ....model.errors import DuologueError
from ..inputs.pairing import Pairing, pair_up
from ..metrics.statistics import Difference, Metric, compare, holm
from ..report.page import Section, describe, document, section, show, table
from ..report.plots import bars, interval, number
from ..report.reporting import from_json

_EXAMPLES = 12


def run(reports: Sequence[Path], out: Path, *, seed: int = 0, quiet: bool = False) -> dict[str, Any]:
    """Compare the reports and write compare.json, report.html and summary.md into ``out``.

    Raises:
        DuologueError: fewer than two, one that is no report, reports of different suites, or without a row in common.
    """
    if len(reports) < 2:
        raise DuologueError("compare needs two reports or more: the folders of earlier evaluations")
    found = [_read(path) for path in reports]
    names = _names(reports)
    suites = sorted({report["settings"]["suite"] for report in found})
    if len(suites) > 1:
        raise DuologueError(f"the reports are of different suites: {', '.join(suites)}")
    pairs: list[dict[str, Any]] = []
    for name, other in zip(names[1:], found[1:], strict=True):
        pairing = pair_up(found[0], other, (names[0], name))
        pair = {"a": names[0], "b": name, "rows": len(pairing.a), "left_out": pairing.left_out, "note": pairing.note}
        pairs.append({**pair, "differences": differences(found[0], other, pairing, seed)})
    out.mkdir(parents=True, exist_ok=True)
    title = f"Compared: {', '.join(names)}"
    sections = [_side_by_side(names, found), *(_pair(pair) for pair in pairs)]
    note = "".join(
        f'<p class="dim">{html.escape(name)}: {html.escape(describe(report["settings"]))}</p>'
        for name, report in zip(names, found, strict=True)
    )
    page = document(title, f"<h1>{title}</h1>{note}" + "".join(section(part) for part in sections))
    result = {
        "settings": {"suite": "compare", "reports": [str(path) for path in reports], "seed": seed},
        "pairs": [{**pair, "differences": [_plain(d) for d in pair["differences"]]} for pair in pairs],
    }
    write_json(out / "compare.json", result)
    write_text(out / "report.html", page)
    write_text(out / "summary.md", _markdown(title, pairs))
    if not quiet:
        _print(pairs, out / "report.html")
    return result


def differences(a: Mapping[str, Any], b: Mapping[str, Any], pairing: Pairing, seed: int = 0) -> list[Difference]:
    """Every metric of rows that both reports have, over the paired ones, with `differs` after Holm's correction."""
    known = {entry["id"] for entry in b["metrics"]}
    measured = {key for row in a["rows"] for key in row.get("measures", {})}
    shared = [from_json(entry) for entry in a["metrics"] if entry["id"] in known]
    metrics = [metric for metric in shared if metric.key in measured]
    raw = [compare(metric, pairing.a, pairing.b, seed) for metric in metrics]
    held = holm([difference.p for difference in raw])
    return [replace(difference, differs=differs) for difference, differs in zip(raw, held, strict=True)]


def conclusion(difference: Difference) -> str:
    """One line."""
    if difference.a is None or difference.b is None:
        return "no items in common"
    if not difference.differs:
        return "no difference that can be told"
    if difference.better is None:
        return "differs"
    return "better" if difference.better else "worse"


def _read(path: Path) -> dict[str, Any]:
    file = path / "report.json" if path.is_dir() else path
    if not file.is_file():
        raise DuologueError(f"there is no {file}: give the folder of an earlier evaluation")
    report = read_object(file)
    try:
        whole = (
            isinstance(report["settings"]["suite"], str)
            and all(from_json(entry) for entry in report["metrics"])
            and all("id" in row and isinstance(row.get("measures", {}), dict) for row in report["rows"])
        )
    except (AttributeError, KeyError, TypeError, ValueError):
        whole = False
    if not whole:
        raise DuologueError(f"{file} is no report of `duologue evaluate`, which has settings, metrics and rows")
    return report


def _names(paths: Sequence[Path]) -> list[str]:
    """The folders' names; with as many of their parents as it takes to tell them apart."""
    for depth in range(1, max(len(path.parts) for path in paths) + 1):
        names = ["/".join(path.parts[-depth:]) for path in paths]
        if len(set(names)) == len(names):
            return names
    return [f"{path} ({at})" for at, path in enumerate(paths, start=1)]


def _plain(difference: Difference) -> dict[str, Any]:
    found = {**asdict(difference), "metric": difference.metric.id}
    return {"name": difference.metric.name, **found, "verdict": conclusion(difference)}


def _side_by_side(names: Sequence[str], reports: Sequence[Mapping[str, Any]]) -> Section:
    entries: dict[str, Metric] = {}
    for report in reports:
        for entry in report["metrics"]:
            entries.setdefault(entry["id"], from_json(entry))
    values = [{entry["id"]: entry for entry in report["metrics"]} for report in reports]
    rows, plots = [], []
    for key, metric in entries.items():
        cells = [number(found[key]["value"], metric.unit) if key in found else "–" for found in values]
        rows.append((metric.name, *cells))
        items = [
            (name, *(found[key][side] for side in ("value", "low", "high")))
            for name, found in zip(names, values, strict=True)
            if key in found
        ]
        plots.append(f"<h3>{metric.name}</h3>{bars(items, metric.unit)}")
    body = table(("metric", *names), rows, tuple(range(1, len(names) + 1)))
    body += f"<details><summary>Each metric as bars, with 95 % intervals</summary>{''.join(plots)}</details>"
    return Section(title="Side by side", body=body)


_COLUMNS = ("metric", "A", "B", "B − A, 95 % interval", "p", "over", "B is")


def _cells(difference: Difference) -> tuple[str, ...]:
    unit = difference.metric.unit
    a, b = number(difference.a, unit), number(difference.b, unit)
    p = "–" if difference.p is None else f"{difference.p:.4f}"
    between = interval(difference.low, difference.high, unit)
    return difference.metric.name, a, b, between, p, str(difference.count), conclusion(difference)


def _pair(pair: Mapping[str, Any]) -> Section:
    body = table(_COLUMNS, [_cells(difference) for difference in pair["differences"]], (1, 2, 3, 4, 5))
    if pair["note"]:
        body = f'<p class="dim">{html.escape(pair["note"])}</p>{body}'
    return Section(title=f"A: {pair['a']}, B: {pair['b']}", body=body)


def _markdown(title: str, pairs: Sequence[Mapping[str, Any]]) -> str:
    parts = [f"## {title}"]
    for pair in pairs:
        rows = [_cells(difference) for difference in pair["differences"]]
        note = [pair["note"]] if pair["note"] else []
        parts += [f"A: {pair['a']}, B: {pair['b']}", *note, markdown_table(_COLUMNS, rows, (1, 2, 3, 4, 5))]
    return "\n\n".join(parts) + "\n"


def _print(pairs: Sequence[Mapping[str, Any]], page: Path) -> None:
    for pair in pairs:
        show(f"A: {pair['a']}, B: {pair['b']}", _COLUMNS, list(map(_cells, pair["differences"])))
        if pair["note"]:
            print(pair["note"])
    print(page)
