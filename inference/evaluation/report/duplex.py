"""The dialogues of a duplex evaluation as one HTML file: both sides' waveforms, the truth, and what happened when.

Everything is inside the file (no network, no scripts): plots as SVG, sound as data. Light and dark follow the reader's
system.
"""

from __future__ import annotations

import html
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ....checkpoints.files import read_json, read_json_lines
from ....data_prep.audio import read_audio
from ...session.events import EventKind, read_events, text_of
from .page import Section, player, table
from .run_folder import Row

_WIDTH, _HEIGHT, _RATE = 960, 44, 16_000  # of a plot and of each side in pixels; Hz
# Which line an event's name stands in, so that those that come together can be read.
_ROWS = {"answer_started": 0, "answer_audible": 1, "ducked": 0, "resumed": 1, "interrupted": 1, "answer_finished": 0,
         "turn_ignored": 0}  # fmt: skip
_AUDIO = 24  # dialogues with sound, so that the file stays small


def sections(good: Sequence[Row], lines: Sequence[tuple[str, str]], scenes: Path) -> list[Section]:
    """What follows the figures: more of them as (name, value), and the dialogues, whose files are in ``scenes``."""
    rows = sorted(good, key=lambda row: (not _went_wrong(row), row["kind"]))
    dialogues = [
        "<p class='dim'>Above what the microphone hears, below what the assistant says; shaded: what it was sent.</p>",
        *(_dialogue(scenes / row["name"], row, sound=at < _AUDIO) for at, row in enumerate(rows)),
    ]
    return [
        Section(title="Shares and times of scenes", body=table(("figure", "value"), lines)),
        Section(title="The dialogues, those that went wrong first", body="".join(dialogues)),
    ]


def _went_wrong(row: Row) -> bool:
    """Whether a person should look at it."""
    bad = ("answered", "early", "given_up")
    good = ("taken", "right", "obeyed")
    return any(row.get(key) is True for key in bad) or any(row.get(key) is False for key in good)


def _dialogue(folder: Path, row: Row, sound: bool) -> str:
    truth = read_json(folder / "scene.json")
    heard, said = (read_audio(folder / name, _RATE) for name in ("input.wav", "output.wav"))
    path = folder / "events.jsonl"
    events = read_json_lines(path) if path.is_file() else []
    conclusion = ", ".join(
        f"{key.replace('_', ' ')} {value}"
        for key, value in row.items()
        if key not in ("name", "kind", "voice", "segments", "id", "failed", "measures", "tick_ms")
    )
    answer = text_of(read_events(path), EventKind.ANSWER_TEXT)
    audio = f"<br>{player(heard)} {player(said)}" if sound else ""
    return (
        f'<div class="dialogue"><p><b>{html.escape(row["kind"].replace("_", " "))}</b> {html.escape(row["voice"])} '
        f'<span class="{"bad" if _went_wrong(row) else ""}">{html.escape(conclusion)}</span></p>'
        f"{_plot(heard, said, truth, events)}<p>{html.escape(answer)}{audio}</p></div>"
    )


def _plot(heard: np.ndarray, said: np.ndarray, truth: dict[str, Any], events: list[dict[str, Any]]) -> str:
    duration = 1000 * max(len(heard), len(said)) / _RATE

    def x(ms: float) -> float:
        return round(_WIDTH * ms / duration, 1)

    top, total = 14, 14 + 2 * _HEIGHT + 26
    parts = [f'<svg viewBox="0 0 {_WIDTH} {total}" role="img" aria-label="{html.escape(truth["kind"])}">']
    for span in truth["spans"]:
        width = max(1.0, x(span["end_ms"]) - x(span["start_ms"]))
        parts.append(f'<rect class="span" x="{x(span["start_ms"])}" y="{top}" width="{width}" height="{_HEIGHT}"/>')
        parts.append(f'<text x="{x(span["start_ms"])}" y="10">{html.escape(span["text"])}</text>')
    parts.append(_envelope(heard, "user", top + _HEIGHT / 2, duration))
    parts.append(_envelope(said, "them", top + 1.5 * _HEIGHT, duration))
    low = top + 2 * _HEIGHT
    for event in events:
        if event["kind"].endswith("_text"):
            continue
        place = x(event["at_ms"])
        parts.append(f'<line class="mark" x1="{place}" x2="{place}" y1="{top}" y2="{low}"/>')
        if event["kind"] in _ROWS:  # where speech starts and stops can be seen
            row = low + 10 + 11 * _ROWS[event["kind"]]
            parts.append(f'<text x="{place}" y="{row}">{event["kind"].replace("_", " ")}</text>')
    return "".join(parts) + "</svg>"


def _envelope(wave: np.ndarray, side: str, middle: float, duration: float) -> str:
    """The largest sample of each two pixels, up and down from the middle."""
    columns = max(1, int(_WIDTH / 2 * len(wave) / _RATE * 1000 / duration))
    peaks = [float(np.abs(part).max(initial=0.0)) for part in np.array_split(wave, columns)]
    half = (_HEIGHT / 2 - 2) / max(0.05, *peaks)
    up = [f"{2 * i},{middle - half * peak:.1f}" for i, peak in enumerate(peaks)]
    down = [f"{2 * i},{middle + half * peak:.1f}" for i, peak in reversed(list(enumerate(peaks)))]
    return f'<polygon class="{side}" points="{" ".join([*up, *down])}"/>'
