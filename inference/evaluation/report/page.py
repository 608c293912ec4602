"""Reports for people: one HTML file with everything inside it, and a Markdown summary.

No network and no scripts: styles in the head, plots as SVG, sound as data. Light and dark follow the reader's system. A
report is a conclusion for each metric, then sections, then what could not be measured and what it was measured on.
"""

from __future__ import annotations

import base64
import contextlib
import html
import io
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ....checkpoints.cards.markdown import table as markdown_table
from ....data_prep.audio import AudioSource, read_audio
from ....model.errors import DuologueError
from ..metrics.statistics import Better, Finding
from ..metrics.words import Aligned
from .plots import interval, number

PLAYER_RATE = 16_000  # Hz
COLUMNS, NUMERIC = ("metric", "value", "95 % interval", "over", "conclusion"), (1, 2, 3)  # of a table of findings
_STYLE = Path(__file__).with_name("report.css")


@dataclass(frozen=True, kw_only=True)
class Section:
    """Part of a page: a heading and HTML that is safe already."""

    title: str
    body: str


def document(title: str, body: str) -> str:
    """A whole page."""
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{html.escape(title)}</title><style>{_STYLE.read_text()}</style></head><body>{body}</body></html>\n"
    )


def report_page(title: str, report: Mapping[str, Any], findings: Sequence[Finding], sections: Sequence[Section]) -> str:
    """The page of one suite's report.json."""
    settings, broken = report["settings"], report["broken"]
    head = f'<h1>{html.escape(title)}</h1><p class="dim">{html.escape(describe(settings))}</p>'
    parts = [Section(title="Figures", body=table(COLUMNS, list(map(cells, findings)), NUMERIC)), *sections]
    if broken:
        note = f"{len(broken)} inputs could not be measured and are in no figure; they are named below."
        head += f'<p class="bad">{note}</p>'
        rows = [(entry["id"], entry["reason"]) for entry in broken]
        parts.append(Section(title="What could not be measured", body=table(("input", "why"), rows)))
    end = "<h2>Measured with</h2>"
    for summary, found in ((machine(report["environment"]), report["environment"]), ("Settings", settings)):
        text = html.escape(json.dumps(found, indent=1, ensure_ascii=False))
        end += f"<details><summary>{html.escape(summary)}</summary><pre>{text}</pre></details>"
    return document(title, f"{head}{''.join(map(section, parts))}{end}")


def section(part: Section) -> str:
    return f"<h2>{html.escape(part.title)}</h2>{part.body}"


def cells(finding: Finding) -> tuple[str, ...]:
    """A row of COLUMNS."""
    metric, value = finding.metric, number(finding.value, finding.metric.unit)
    return metric.name, value, interval(finding.low, finding.high, metric.unit), str(finding.count), conclusion(finding)


def conclusion(finding: Finding) -> str:
    """One line that says what the figure means."""
    metric, value = finding.metric, finding.value
    if value is None:
        return "not measured"
    if metric.reference is None:
        return _plain_conclusion(finding, value)
    other, whose = metric.reference
    against = f"{number(other, metric.unit)}, {whose}"
    if metric.better is Better.NEITHER:
        return f"beside {against}"
    if finding.low is not None and finding.high is not None and finding.low <= other <= finding.high:
        return f"cannot be told from {against}"
    good = (value > other) == (metric.better is Better.HIGHER)
    return f"{'better' if good else 'worse'} than {against}"


def _plain_conclusion(finding: Finding, value: float) -> str:
    """Of a metric that nothing stands beside: its place on its scale, and whether more ought to be measured."""
    metric = finding.metric
    way = {Better.HIGHER: "higher is better", Better.LOWER: "lower is better", Better.NEITHER: "a description"}
    parts = [way[metric.better]]
    if metric.unit == "MOS":
        low = int(min(max(value, 1.0), 4.999))
        names = ("bad", "poor", "fair", "good", "excellent")
        parts = [f"between {names[low - 1]} ({low}) and {names[low]} ({low + 1})"]
    elif metric.unit == "%" and value > 0 and metric.better is Better.LOWER:
        parts = [f"one in {1 / value:.0f}" if value < 0.4 else "often", *parts]
    if metric.unit == "%" and finding.low is not None and finding.high is not None and finding.high - finding.low > 0.2:
        parts.append("too few for more than a guess")
    return "; ".join(parts)


def table(columns: Sequence[str], rows: Sequence[Sequence[str]], numeric: Sequence[int] = ()) -> str:
    """Text in cells; columns in ``numeric`` stand to the right."""
    classes = ['class="number"' if at in numeric else "" for at in range(len(columns))]
    head = "".join(f"<th {cls}>{html.escape(name)}</th>" for name, cls in zip(columns, classes, strict=True))
    body = "".join(
        "<tr>"
        + "".join(f"<td {c}>{html.escape(str(cell))}</td>" for cell, c in zip(row, classes, strict=True))
        + "</tr>"
        for row in rows
    )
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def show(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]], numeric: Sequence[int] = ()) -> None:
    """The same on the terminal."""
    from rich.console import Console
    from rich.table import Table

    shown = Table(title=title, title_justify="left")
    for at, name in enumerate(columns):
        shown.add_column(name, justify="right" if at in numeric else "left")
    for row in rows:
        shown.add_row(*row)
    Console().print(shown)


def example(lines: Sequence[tuple[str, str]], waves: Mapping[str, np.ndarray] | None = None, safe: str = "") -> str:
    """A card: (name, text) lines, players by name, and HTML that is safe already."""
    text = "".join(f'<p><span class="dim">{html.escape(a)}:</span> {html.escape(b)}</p>' for a, b in lines)
    sound = "".join(f'<p><span class="dim">{html.escape(a)}:</span> {player(b)}</p>' for a, b in (waves or {}).items())
    return f'<div class="example">{text}{safe}{sound}</div>'


def aligned(steps: Sequence[Aligned]) -> str:
    """An alignment in one line: what was missed is struck out, what was put in is underlined."""
    out = []
    for step in steps:
        if step.said and step.kind != "equal":
            out.append(f"<del>{html.escape(step.said)}</del>")
        if step.understood:
            tag = "ins" if step.kind != "equal" else "span"
            out.append(f"<{tag}>{html.escape(step.understood)}</{tag}>")
    return f"<p>{' '.join(out)}</p>"


def sounds(named: Mapping[str, Callable[[], AudioSource]]) -> dict[str, np.ndarray]:
    """Recordings for the players of a card, by name, without those that cannot be read: they are in no figure either,
    or their words alone are."""
    found = {}
    for name, source in named.items():
        with contextlib.suppress(DuologueError):
            found[name] = read_audio(source(), PLAYER_RATE)
    return found


def player(wave: np.ndarray) -> str:
    """(n,) at PLAYER_RATE as an audio element with the sound in it."""
    import soundfile

    buffer = io.BytesIO()
    with soundfile.SoundFile(buffer, "w", PLAYER_RATE, 1, "VORBIS", format="OGG") as sound:
        for start in range(0, len(wave), PLAYER_RATE):  # libvorbis overflows the stack above two minutes
            sound.write(wave[start : start + PLAYER_RATE])
    data = base64.b64encode(buffer.getvalue()).decode()
    return f'<audio controls preload="none" src="data:audio/ogg;base64,{data}"></audio>'


def markdown(title: str, report: Mapping[str, Any], findings: Sequence[Finding]) -> str:
    """The figures as a section of a model card."""
    rows = markdown_table(COLUMNS, list(map(cells, findings)), NUMERIC)
    parts = [f"## {title}", describe(report["settings"]), rows]
    if report["broken"]:
        named = "; ".join(f"{entry['id']}: {entry['reason']}" for entry in report["broken"][:10])
        parts.append(f"{len(report['broken'])} inputs could not be measured and are in no figure: {named}")
    parts.append(f"Measured on {machine(report['environment'])}.")
    return "\n\n".join(parts) + "\n"


def describe(settings: Mapping[str, Any]) -> str:
    """The settings in one line."""
    shown = []
    for name, value in settings.items():
        if isinstance(value, Mapping):
            value = value.get("name") or "one that was loaded already"
        if value is not None and name != "suite":
            text = ", ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)
            shown.append(f"{name.replace('_', ' ')}: {text if len(text) < 120 else text[:117] + '…'}")
    return " · ".join(shown)


def machine(found: Mapping[str, Any]) -> str:
    return f"{found['processor']}, {found['cores']} cores, {found['torch_threads']} threads, {found['device']}"
