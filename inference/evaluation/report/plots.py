"""Plots as SVG text: bars with intervals, curves, histograms. No scripts; colours are the page's CSS variables."""

from __future__ import annotations

import html
import math
import statistics
from collections.abc import Mapping, Sequence

_WIDTH, _LEFT, _RIGHT = 720, 200, 90
_BAR, _GAP = 18, 8
_COLOURS = ("var(--a)", "var(--b)", "var(--c)", "var(--d)")


def number(value: float | None, unit: str = "") -> str:
    """A value as people write it: three digits, shares in percent."""
    if value is None:
        return "–"
    if unit == "%":
        return f"{100 * value:.1f} %"
    digits = 0 if unit == "ms" or abs(value) >= 100 else 1 if abs(value) >= 10 else 2 if abs(value) >= 0.1 else 3
    return f"{value:.{digits}f}{' ' + unit if unit and unit != 'MOS' else ''}"


def interval(low: float | None, high: float | None, unit: str = "") -> str:
    """A 95 % interval as people write it."""
    return "–" if low is None or high is None else f"{number(low, unit)} to {number(high, unit)}"


def bars(items: Sequence[tuple[str, float | None, float | None, float | None]], unit: str = "") -> str:
    """Horizontal bars: (label, value, low, high); low and high draw a whisker."""
    known = [(high if high is not None else value) for _, value, _, high in items if value is not None]
    top = max([1e-9, *known])
    room = _WIDTH - _LEFT - _RIGHT
    parts = []
    for at, (label, value, low, high) in enumerate(items):
        y = at * (_BAR + _GAP) + 2
        middle = y + _BAR / 2
        parts.append(f'<text class="label" x="{_LEFT - 10}" y="{middle + 4}" text-anchor="end">{_cut(label)}</text>')
        if value is None:
            parts.append(f'<text x="{_LEFT}" y="{middle + 4}">not measured</text>')
            continue
        width = room * max(0.0, value) / top
        parts.append(f'<rect class="bar" x="{_LEFT}" y="{y}" width="{width:.1f}" height="{_BAR}" rx="2"/>')
        end = width
        if low is not None and high is not None:
            a, b = (room * max(0.0, side) / top for side in (low, high))
            end = max(end, b)
            parts.append(
                f'<path class="whisker" d="M{_LEFT + a:.1f} {middle}H{_LEFT + b:.1f}M{_LEFT + a:.1f} {middle - 4}v8'
                f'M{_LEFT + b:.1f} {middle - 4}v8"/>'
            )
        parts.append(f'<text class="value" x="{_LEFT + end + 7:.1f}" y="{middle + 4}">{number(value, unit)}</text>')
    return _svg(parts, len(items) * (_BAR + _GAP) + 4)


def curves(
    series: Mapping[str, Sequence[tuple[float, float]]],
    x_name: str,
    y_name: str,
    *,
    logarithmic: bool = False,
    from_zero: bool = True,
) -> str:
    """Lines with their points. logarithmic: both axes; points at or below 0 are left out then."""
    scale = math.log10 if logarithmic else float
    points = {
        name: [(scale(x), scale(y)) for x, y in line if not logarithmic or (x > 0 and y > 0)]
        for name, line in series.items()
    }
    everything = [point for line in points.values() for point in line]
    if not everything:
        return "<p>Nothing to plot.</p>"
    (x0, x1), (y0, y1) = ((min(axis), max(axis)) for axis in zip(*everything, strict=True))
    if not logarithmic:
        y0 = min(0.0, y0) if from_zero else y0 - 0.5 * (y1 - y0)
    x1, y1 = x1 + (x1 == x0), y1 + (y1 == y0)
    height, left, bottom = 260, 64, 214

    def place(x: float, y: float) -> tuple[float, float]:
        return left + (_WIDTH - left - 150) * (x - x0) / (x1 - x0), bottom - (bottom - 14) * (y - y0) / (y1 - y0)

    parts = []
    for fraction in (0, 0.25, 0.5, 0.75, 1):
        x, y = x0 + fraction * (x1 - x0), y0 + fraction * (y1 - y0)
        (px, _), (_, py) = place(x, y0), place(x0, y)
        shown = [10**value if logarithmic else value for value in (x, y)]
        parts.append(f'<path class="grid" d="M{left} {py:.1f}H{_WIDTH - 150}"/>')
        parts.append(f'<text x="{left - 8}" y="{py + 4:.1f}" text-anchor="end">{_tick(shown[1])}</text>')
        parts.append(f'<text x="{px:.1f}" y="{bottom + 18}" text-anchor="middle">{_tick(shown[0])}</text>')
    for at, (name, line) in enumerate(points.items()):
        colour = _COLOURS[at % len(_COLOURS)]
        path = "L".join("{:.1f} {:.1f}".format(*place(*point)) for point in line)
        if len(line) > 1 and not logarithmic:
            parts.append(f'<path d="M{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        for point in line:
            px, py = place(*point)
            parts.append(f'<circle cx="{px:.1f}" cy="{py:.1f}" r="3.5" fill="{colour}"/>')
        y = 20 + 18 * at
        parts.append(f'<circle cx="{_WIDTH - 136}" cy="{y - 4}" r="4" fill="{colour}"/>')
        parts.append(f'<text class="label" x="{_WIDTH - 126}" y="{y}">{_cut(name, 22)}</text>')
    middle = (left + _WIDTH - 150) / 2
    parts.append(f'<text x="{middle}" y="{bottom + 38}" text-anchor="middle">{html.escape(x_name)}</text>')
    parts.append(f'<text x="14" y="{bottom / 2}" text-anchor="middle" transform="rotate(-90 14 {bottom / 2})">'
                 f"{html.escape(y_name)}</text>")  # fmt: skip
    return _svg(parts, height)


def histogram(values: Sequence[float], x_name: str, unit: str = "", buckets: int = 24) -> str:
    """How often which value; the median is marked."""
    if not values:
        return "<p>Nothing to plot.</p>"
    low, high = min(values), max(values)
    step = (high - low) / buckets or 1.0
    counts = [0] * buckets
    for value in values:
        counts[min(buckets - 1, int((value - low) / step))] += 1
    left, width, bottom = 40, _WIDTH - 80, 140
    each = width / buckets
    parts = [
        f'<rect class="bar" x="{left + at * each + 1:.1f}" y="{bottom - 120 * count / max(counts):.1f}" '
        f'width="{each - 2:.1f}" height="{120 * count / max(counts):.1f}"/>'
        for at, count in enumerate(counts)
    ]
    middle = statistics.median(values)
    x = left + width * (middle - low) / (buckets * step)
    parts.append(f'<path class="whisker" d="M{x:.1f} 6V{bottom}"/>')
    parts.append(f'<text class="value" x="{x + 5:.1f}" y="14">median {number(middle, unit)}</text>')
    for fraction in (0, 0.5, 1):
        place, shown = left + fraction * width, number(low + fraction * (high - low), unit)
        parts.append(f'<text x="{place:.1f}" y="{bottom + 16}" text-anchor="middle">{shown}</text>')
    parts.append(f'<text x="{left + width / 2}" y="{bottom + 34}" text-anchor="middle">{html.escape(x_name)}</text>')
    return _svg(parts, bottom + 40)


def _svg(parts: Sequence[str], height: float) -> str:
    return f'<svg class="plot" viewBox="0 0 {_WIDTH} {height:.0f}" role="img">{"".join(parts)}</svg>'


def _cut(text: str, length: int = 24) -> str:
    return html.escape(text if len(text) <= length else text[: length - 1] + "…")


def _tick(value: float) -> str:
    return f"{value:.3g}"
