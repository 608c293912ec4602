"""The report of ``duologue bench streaming`` as one HTML file: its table, and the cost of each token as a plot."""

from __future__ import annotations

import html
from pathlib import Path
from typing import Any

from ...checkpoints.files import write_text
from ..evaluation.report.page import Section, document, section
from ..evaluation.report.plots import curves


def write_plot(folder: Path, report: dict[str, Any], lines: list[str]) -> Path:
    """``folder``/report.html; nothing in it comes from a network."""
    about = f"{report['preset']}, {report['device']}, {report['dtype']}, {report['threads']} threads"
    body = f"<h1>What the speech of a reply costs</h1><p>{html.escape(about)}</p>"
    body += f"<pre>{html.escape(chr(10).join(lines))}</pre>"
    for found in report["widths"]:
        costs = {name: list(enumerate(row["token_ms"], 1)) for name, row in found["schedules"].items()}
        plot = curves(costs, "token of the reply", "ms", logarithmic=True)
        body += section(Section(title=f"Units of each token, decoder {found['width']} wide", body=plot))
    path = folder / "report.html"
    write_text(path, document("Cost of streaming", body))
    return path
