"""Rows of an evaluation to figures, and figures to a short table."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from collections.abc import Iterable, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from .judge import word_errors

Row = dict[str, Any]
PACKAGES = ("torch", "transformers", "numpy", "soxr", "soundfile", "pocketsphinx", "jiwer")
SYNTHESISERS = {"espeak-ng": "--version", "flite": "--version", "festival": "--version"}


def figures(rows: Sequence[Row]) -> dict[str, Any]:
    """Everything a card states. Shares are of the questions that could be spoken; error rates are over all their words.

    right: the reply's text holds the answer; right_macro: the mean of the categories' shares of it.
    right_by_ear: so does what pocketsphinx hears in its speech.
    reply_speech: word error rate of that against the reply's text, beside the synthesiser's own for the same texts.
    compute_delay_ms: last samples of the question handed over -> first samples of the reply ready.
    """
    good = [row for row in rows if not row["failed"]]
    voices, categories = (sorted({row[name] for row in good}) for name in ("voice", "category"))
    spoken = [row for row in good if row["synthesiser_heard"] is not None]
    own = word_errors([row["heard"] for row in spoken], [row["reply"] for row in spoken])
    theirs = word_errors([row["synthesiser_heard"] for row in spoken], [row["reply"] for row in spoken])
    by_category = {name: _scores([row for row in good if row["category"] == name]) for name in categories}
    return {
        "overall": _scores(good)
        | {"right_macro": float(np.mean([scores["right"] for scores in by_category.values()])) if good else None},
        "by_voice": {voice: _scores([row for row in good if row["voice"] == voice]) for voice in voices},
        "by_category": by_category,
        "by_voice_and_category": {
            voice: {
                name: _scores(both)
                for name in categories
                if (both := [row for row in good if row["voice"] == voice and row["category"] == name])
            }
            for voice in voices
        },
        "reply_speech": {
            "replies": len(spoken),
            "words": own.words,
            "wer": own.rate,
            "synthesiser_wer": theirs.rate,
            "difference": None if own.rate is None or theirs.rate is None else own.rate - theirs.rate,
        },
        "compute_delay_ms": percentiles([row["timings"]["compute_delay_ms"] for row in good]),
        "first_word_ms": percentiles([row["timings"]["first_word_ms"] for row in good]),
        "real_time_factor": percentiles([row["timings"]["real_time_factor"] for row in good]),
        "peak_rss_mib": max((row["peak_rss_mib"] for row in good), default=None),
        "failed": len(rows) - len(good),
    }


def _scores(rows: Sequence[Row]) -> dict[str, Any]:
    errors = word_errors([row["transcript"] for row in rows], [row["question"] for row in rows])
    return {
        "questions": len(rows),
        "right": float(np.mean([row["right"] for row in rows])) if rows else None,
        "right_by_ear": float(np.mean([row["right_by_ear"] for row in rows])) if rows else None,
        "transcript_wer": errors.rate,
        "transcript_exact": float(np.mean([row["transcript"] == row["question"] for row in rows])) if rows else None,
    }


def share(values: Iterable[bool]) -> float | None:
    """How many of them hold; None of none."""
    held = list(values)
    return float(np.mean(held)) if held else None


def percentiles(values: Sequence[float | None]) -> dict[str, float | None]:
    """The median, the 95th percentile and the largest of what is known."""
    known = [value for value in values if value is not None]
    if not known:
        return {"p50": None, "p95": None, "max": None}
    return {"p50": float(np.percentile(known, 50)), "p95": float(np.percentile(known, 95)), "max": float(max(known))}


def environment() -> dict[str, Any]:
    """What the figures were measured on and with."""
    import torch

    versions: dict[str, str | None] = {}
    for package in ("duologue", *PACKAGES):
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            versions[package] = None
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count(),
        "torch_threads": torch.get_num_threads(),
        "versions": versions,
        "synthesisers": {name: _first_line([name, flag]) for name, flag in SYNTHESISERS.items()},
    }


def _processor() -> str:
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def _first_line(command: list[str]) -> str | None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    lines = (done.stdout or done.stderr).strip().splitlines()
    return " ".join(lines[0].split()) if lines else None


def print_tables(report: dict[str, Any]) -> None:
    """The figures that matter, on one screen."""
    from rich.console import Console
    from rich.table import Table

    found = report["figures"]
    table = Table(title=f"Spoken questions, {report['settings']['profile']}", title_justify="left")
    table.add_column("")
    for column in ("questions", "right", "right by ear", "transcript WER"):
        table.add_column(column, justify="right")
    groups = (found["by_voice"], found["by_category"], {"all": found["overall"]})
    for group in groups:
        for name, scores in group.items():
            shares = (_percent(scores[key]) for key in ("right", "right_by_ear", "transcript_wer"))
            table.add_row(name, str(scores["questions"]), *shares)
        table.add_section()
    console = Console()
    console.print(table)
    speech, delay, factor = found["reply_speech"], found["compute_delay_ms"], found["real_time_factor"]
    console.print(
        f"Reply speech: WER {_percent(speech['wer'])} by pocketsphinx, the synthesiser's own "
        f"{_percent(speech['synthesiser_wer'])} ({speech['replies']} replies)"
    )
    if delay["p50"] is not None:
        console.print(
            f"Compute delay: {delay['p50']:.0f} ms at the median, {delay['p95']:.0f} ms at the 95th percentile"
        )
    if factor["p50"] is not None:
        console.print(f"Real-time factor of a turn: {factor['p50']:.2f} at the median, {factor['p95']:.2f} at the 95th")
    console.print(f"Memory at its peak: {found['peak_rss_mib']} MiB")
    if found["failed"]:
        console.print(f"{found['failed']} questions could not be spoken: see 'failed' in report.json")


def _percent(share: float | None) -> str:
    return "–" if share is None else f"{100 * share:.1f} %"
