"""The last step of every suite: rows to metrics, and the three reports into the folder."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ....checkpoints.files import write_json, write_text
from ..metrics.statistics import Better, Finding, Metric, Statistic, evaluate
from .environment import environment
from .page import Section, conclusion, findings_table, markdown, report_page
from .plots import number
from .run_folder import Row

__all__ = ["findings_table", "finish", "from_json", "good_rows", "ranked"]


def finish(
    out: Path,
    title: str,
    *,
    settings: Mapping[str, Any],
    metrics: Sequence[Metric],
    rows: Sequence[Row],
    details: Mapping[str, Any] | None = None,
    sections: Callable[[Sequence[Finding]], Sequence[Section]] | Sequence[Section] = (),
    more: Sequence[tuple[str, Sequence[Finding]]] = (),
    quiet: bool = False,
) -> dict[str, Any]:
    """Write report.json, report.html and summary.md into ``out`` and print the figures.

    A metric that no row has is left out. Rows that ``failed`` are in no figure; they are counted and named.

    Args:
        sections: of the page, after the figures; or what makes them from the findings.
        more: findings of parts of the rows, by name, which report.json keeps beside the whole's.
    """
    good = good_rows(rows)
    seed = int(settings.get("seed") or 0)
    findings = [found for metric in metrics if (found := evaluate(metric, good, seed)).count]
    report: dict[str, Any] = {
        "settings": dict(settings),
        "metrics": [finding.to_json() for finding in findings],
        "parts": {name: [finding.to_json() for finding in found] for name, found in more},
        "figures": dict(details or {}),
        "broken": [{"id": row["id"], "reason": row["failed"]} for row in rows if row.get("failed")],
        "environment": environment(),
        "rows": list(rows),
    }
    parts = sections(findings) if callable(sections) else sections
    write_json(out / "report.json", report)
    write_text(out / "report.html", report_page(title, report, findings, parts))
    write_text(out / "summary.md", markdown(title, report, findings))
    if not quiet:
        print_findings(title, findings, report["broken"], out / "report.html")
    return report


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


def print_findings(title: str, findings: Sequence[Finding], broken: Sequence[Mapping[str, str]], page: Path) -> None:
    """The figures, on one screen."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title=title, title_justify="left")
    for name in ("", "value", "95 % interval", "over"):
        table.add_column(name, justify="left" if not name else "right")
    table.add_column("")
    for found in findings:
        unit = found.metric.unit
        interval = "–" if found.low is None else f"{number(found.low, unit)} to {number(found.high, unit)}"
        table.add_row(found.metric.name, number(found.value, unit), interval, str(found.count), conclusion(found))
    console = Console()
    console.print(table)
    for entry in broken[:10]:
        console.print(f"not measured: {entry['id']}: {entry['reason']}", markup=False)
    if len(broken) > 10:
        console.print(f"and {len(broken) - 10} more that could not be measured")
    console.print(str(page), markup=False)
