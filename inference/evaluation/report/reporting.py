"""The last step of every suite: rows to metrics, and the three reports into the folder."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ....checkpoints.files import write_json, write_text
from ..metrics.statistics import Better, Finding, Metric, Statistic, evaluate
from .environment import environment
from .page import NUMERIC, Section, cells, markdown, report_page, show
from .run_folder import Row

Parts = list[tuple[str, list[Finding]]]


def finish(
    out: Path,
    title: str,
    settings: Mapping[str, Any],
    metrics: Sequence[Metric],
    rows: Sequence[Row],
    sections: Callable[[dict[str, Any], list[Finding]], Sequence[Section]] | Sequence[Section] = (),
    *,
    details: Mapping[str, Any] | None = None,
    parts: Parts | None = None,
    over_all: Sequence[Finding] = (),
    quiet: bool = False,
) -> dict[str, Any]:
    """Write report.json, report.html and summary.md into ``out`` and print the figures.

    A metric that no row has is left out. Rows that ``failed`` are in no figure; they are counted and named.

    Args:
        sections: of the page, after the figures; or what makes them from the report and the findings.
        parts: findings of parts of the rows, by name, which report.json keeps beside the whole's; None: there are none.
        over_all: findings that are no sum over rows; they stand first.
    """
    good = good_rows(rows)
    seed = int(settings.get("seed") or 0)
    findings = [*over_all, *(found for metric in metrics if (found := evaluate(metric, good, seed)).count)]
    report: dict[str, Any] = {
        "settings": dict(settings),
        "metrics": [finding.to_json() for finding in findings],
        "parts": {name: [finding.to_json() for finding in found] for name, found in parts or []},
        "figures": dict(details or {}),
        "broken": [{"id": row["id"], "reason": row["failed"]} for row in rows if row.get("failed")],
        "environment": environment(),
        "rows": list(rows),
    }
    shown = sections(report, findings) if callable(sections) else sections
    write_json(out / "report.json", report)
    write_text(out / "report.html", report_page(title, report, findings, shown))
    write_text(out / "summary.md", markdown(title, report, findings))
    if not quiet:
        _print(title, findings, report["broken"], out / "report.html")
    return report


def by_part(rows: Sequence[Row], field: str, metrics: Sequence[Metric], seed: int) -> Parts:
    """Findings over the rows with each value of a field, in the order of its values."""
    names = sorted({row[field] for row in rows})
    return [(name, [evaluate(m, [row for row in rows if row[field] == name], seed) for m in metrics]) for name in names]


def good_rows(rows: Sequence[Row]) -> list[Row]:
    """Those that could be measured."""
    return [row for row in rows if not row.get("failed")]


def ranked(rows: Sequence[Row], key: str, better: Better) -> list[Row]:
    """Rows that have the measure, the best first."""
    known = [row for row in rows if key in row.get("measures", {}) and row["measures"][key][1]]
    sign = -1 if better is Better.HIGHER else 1
    return sorted(known, key=lambda row: sign * row["measures"][key][0] / row["measures"][key][1])


def from_json(entry: Mapping[str, Any]) -> Metric:
    """The metric of an entry of report.json's ``metrics``."""
    key, _, last = entry["id"].rpartition("_")
    found = last in (Statistic.P50.value, Statistic.P95.value)
    reference = entry.get("reference")
    return Metric(
        key=key if found else entry["id"],
        name=entry["name"],
        unit=entry["unit"],
        better=Better(entry["better"]),
        statistic=Statistic(last) if found else Statistic.RATIO,
        reference=None if reference is None else (reference[0], reference[1]),
    )


def _print(title: str, findings: Sequence[Finding], broken: Sequence[Mapping[str, str]], page: Path) -> None:
    """The figures, on one screen."""
    show(title, ("", "value", "95 % interval", "over", ""), list(map(cells, findings)), NUMERIC)
    for entry in broken[:10]:
        print(f"not measured: {entry['id']}: {entry['reason']}")
    if len(broken) > 10:
        print(f"and {len(broken) - 10} more that could not be measured")
    print(page)
