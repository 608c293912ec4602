"""The report of ``duologue bench streaming`` as one HTML file: its table, and the cost of each token as a plot."""

from __future__ import annotations

import html
import math
from pathlib import Path
from typing import Any

from ...checkpoints.files import write_text

_WIDTH, _HEIGHT, _LEFT, _BELOW = 640, 300, 56, 36  # of a plot in pixels; room for its axes
_INKS = ("#2f6fb3", "#3a9a5b", "#8a6fc0", "#c0562a")
_STYLE = """
:root{color-scheme:light dark}body{font:15px/1.5 system-ui,sans-serif;max-width:760px;margin:2rem auto;padding:0 1rem}
h1{font-size:1.4rem}h2{font-size:1.05rem}pre{overflow-x:auto;font-size:13px}svg{width:100%;height:auto}
text{font:11px system-ui,sans-serif;fill:currentColor}.axis{stroke:currentColor;opacity:.35}
"""


def write_plot(folder: Path, report: dict[str, Any], lines: list[str]) -> Path:
    """``folder``/report.html; nothing in it comes from a network."""
    about = f"{report['preset']}, {report['device']}, {report['dtype']}, {report['threads']} threads"
    plots = "".join(
        f"<h2>Units of each token, decoder {found['width']} wide</h2>"
        + _plot({name: row["token_ms"] for name, row in found["schedules"].items()})
        for found in report["widths"]
    )
    page = (
        '<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        f"<title>Cost of streaming</title><style>{_STYLE}</style><body><h1>What the speech of a reply costs</h1>"
        f"<p>{html.escape(about)}</p><pre>{html.escape(chr(10).join(lines))}</pre>{plots}</body></html>\n"
    )
    path = folder / "report.html"
    write_text(path, page)
    return path


def _plot(curves: dict[str, list[float]]) -> str:
    """Milliseconds over the number of the token, both axes logarithmic."""
    values = [value for curve in curves.values() for value in curve if value > 0]
    low, high = math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)))
    longest = max(len(curve) for curve in curves.values())

    def x(token: int) -> float:
        return _LEFT + (_WIDTH - _LEFT - 10) * math.log(token) / max(math.log(longest), 1e-9)

    def y(value: float) -> float:
        return 10 + (_HEIGHT - _BELOW - 10) * (high - math.log10(max(value, 10.0**low))) / max(high - low, 1)

    parts = []
    for power in range(low, high + 1):
        at = y(10.0**power)
        parts.append(f'<line class="axis" x1="{_LEFT}" x2="{_WIDTH - 10}" y1="{at:.1f}" y2="{at:.1f}"/>')
        parts.append(f'<text x="{_LEFT - 6}" y="{at + 4:.1f}" text-anchor="end">{10.0**power:g} ms</text>')
    for token in sorted({1, 2, 5, 10, 20, 50, 100, 200, 500, longest}):
        if token <= longest:
            parts.append(f'<text x="{x(token):.1f}" y="{_HEIGHT - 18}" text-anchor="middle">{token}</text>')
    parts.append(f'<text x="{_WIDTH - 10}" y="{_HEIGHT - 4}" text-anchor="end">token of the reply</text>')
    for number, (name, curve) in enumerate(curves.items()):
        ink = _INKS[number % len(_INKS)]
        points = " ".join(f"{x(t):.1f},{y(value):.1f}" for t, value in enumerate(curve, 1))
        parts.append(f'<polyline fill="none" stroke="{ink}" stroke-width="1.6" points="{points}"/>')
        parts.append(f'<text x="{_LEFT + 8}" y="{24 + 15 * number}" style="fill:{ink}">{html.escape(name)}</text>')
    return f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img">{"".join(parts)}</svg>'
