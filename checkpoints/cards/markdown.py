"""Two shapes of Markdown that a model card is made of."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence


def bullets(items: Iterable[str]) -> str:
    return "\n".join(f"- {item}" for item in items)


def table(columns: Sequence[str], rows: Iterable[Sequence[object]], right: Collection[int] = ()) -> str:
    """A table; the columns whose index is in `right` stand to the right, as numbers do."""
    lines = [
        f"| {' | '.join(columns)} |",
        f"|{'|'.join('---:' if i in right else '---' for i in range(len(columns)))}|",
    ]
    for row in rows:
        cells = [str(cell).replace("|", "\\|").replace("\n", " ") for cell in row]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)
