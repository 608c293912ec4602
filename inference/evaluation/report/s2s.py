"""The page of a spoken evaluation: who and what was answered, chunk sizes, decoding time, best and worst replies."""

from __future__ import annotations

import html
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from ..metrics.chunk_sizes import chunk_table
from ..metrics.s2s import METRICS
from ..metrics.statistics import Better, Statistic, evaluate, measured
from ..metrics.words import alignment
from .page import Section, aligned, example, sounds, table
from .plots import bars, curves, histogram, number
from .reporting import ranked
from .run_folder import Row

_SHOWN = 5  # examples of a kind
_FOLLOWS = ("reply_wer", "dnsmos", "utmos")  # what decides which replies are shown


def sections(
    folder: Path, good: list[Row], found: dict[str, Any], chunked: list[Row], recogniser: str
) -> list[Section]:
    """What follows the figures."""
    groups = [_groups("By voice", "voice", found["by_voice"])]
    if set(found["by_category"]) - {""}:
        groups.append(_groups("By category", "category", found["by_category"]))
    return [
        *_instructions(good),
        *groups,
        _delays(good),
        *_chunks(good, chunked, recogniser),
        *examples(good, lambda row: folder / "replies" / f"{row['id']}.wav", recogniser),
    ]


def _instructions(rows: list[Row]) -> list[Section]:
    """LLaMA-Omni's tables: instruction following in text and in speech, whether the two agree, and what speech costs
    in time. (Its table of chunk sizes: :func:`_chunks`.)"""
    known = {metric.key: (metric, evaluate(metric, rows)) for metric in METRICS if metric.statistic is Statistic.RATIO}
    columns = ("reply", "content", "style", "ASR-WER", "ASR-CER", "UTMOS", "decoding time, mean")
    keys = {
        "text (S2TIF)": ("content_text", "style_text", "", "", "", "decode_text_s"),
        "speech (S2SIF)": ("content_speech", "style_speech", "reply_wer", "reply_cer", "utmos", "decode_speech_s"),
    }

    def cell(key: str) -> str:
        return "" if key not in known else number(known[key][1].value, known[key][0].unit)

    body = table(columns, [(name, *map(cell, row)) for name, row in keys.items()], tuple(range(1, len(columns))))
    note = (
        "<p class='dim'>As LLaMA-Omni (arXiv 2409.06666) reports a model: content and style from 1 to 5 by a judge "
        "(judge.url, judge.model), speech against the reply's text by a recogniser.</p>"
    )
    return [Section(title="Instructions, in text and in speech", body=note + body)] if rows else []


def _groups(title: str, name: str, groups: dict[str, Any]) -> Section:
    columns = (name, "questions", "right", "right by recogniser", "WER of what it heard")
    keys = ("right", "right_by_ear", "transcript_wer")
    rows = [(key, str(part["questions"]), *(number(part[k], "%") for k in keys)) for key, part in groups.items()]
    plot = bars([(key, part["right"], None, None) for key, part in groups.items()], "%")
    return Section(title=title, body=table(columns, rows, (1, 2, 3, 4)) + plot)


def _delays(rows: list[Row]) -> Section:
    values = [amount for amount, _ in measured(rows, "compute_delay_ms")]
    note = "<p class='dim'>Last samples of the question handed over to first samples of the reply ready.</p>"
    return Section(title="Compute delay", body=note + histogram(values, "compute delay", "ms"))


def _chunks(rows: list[Row], chunked: list[Row], recogniser: str) -> list[Section]:
    entries = chunk_table(rows, chunked)
    if entries[0]["latency_ms"] is None:
        return []
    utmos = any(entry["utmos_without_context"] is not None for entry in entries)
    measures = [("dnsmos", "DNSMOS", ""), ("plcmos", "PLCMOS", ""), ("reply_wer", "ASR-WER", "%")]
    measures += [("utmos", "UTMOS", "")] if utmos else []
    columns = ["Ω, units", "latency, median", "lagging words", *(f"{name}, no context" for _, name, _ in measures)]
    body = [
        [
            "whole reply" if entry["units"] is None else str(entry["units"]),
            number(entry["latency_ms"], "ms"),
            number(entry["lagging_words"]),
            *(number(entry[f"{key}_without_context"], unit) for key, _, unit in measures),
        ]
        for entry in entries
    ]
    ours = entries[-1]["dnsmos_without_context"]
    known = [(e["latency_ms"], score) for e in entries if (score := e["dnsmos_without_context"])]
    points = {"without context": known, "with context (ours)": [(e["latency_ms"], ours) for e in entries if ours]}
    note = (
        "<p class='dim'>Speech is handed out in chunks of Ω units. This vocoder keeps its state, so its speech is that "
        f"of the last line whatever Ω is; the figures without context, over {len(chunked)} replies (recogniser: "
        f"{html.escape(recogniser)}), show what chunks that know nothing of each other would cost.</p>"
    )
    plot = curves(points, "latency, ms", "DNSMOS", from_zero=False)
    return [Section(title="Chunk size", body=note + table(columns, body, tuple(range(1, len(columns)))) + plot)]


def examples(rows: list[Row], sound: Callable[[Row], Path], recogniser: str) -> list[Section]:
    """The worst and the best replies by each measure that decides, with their sound."""
    out = []
    for key in _FOLLOWS:
        order = ranked(rows, key, Better.LOWER if key.endswith("wer") else Better.HIGHER)
        if not order:
            continue
        name = {"reply_wer": f"as {recogniser} understands them", "dnsmos": "by DNSMOS", "utmos": "by UTMOS"}[key]
        for title, chosen in (("Worst", order[::-1][:_SHOWN]), ("Best", order[:_SHOWN])):
            cards = "".join(_card(row, sound(row), key, recogniser) for row in chosen)
            out.append(Section(title=f"{title} replies {name}", body=cards))
    return out


def _card(row: Row, path: Path, key: str, recogniser: str) -> str:
    amount, weight = row["measures"][key]
    lines = [(row["id"], " · ".join(str(row[name]) for name in ("voice", "category") if row.get(name)))]
    lines += [(name, row[name]) for name in ("question", "transcript", "answer") if row.get(name)]
    lines.append(("reply", row.get("reply") or "–"))
    lines.append((key.replace("_", " "), number(amount / weight, "%" if key.endswith("wer") else "")))
    waves = sounds({"speech": partial(Path, path)})
    heard = row.get("heard")
    steps = ""
    if heard is not None and row.get("reply"):
        steps = f'<p class="dim">{html.escape(recogniser)} heard:</p>{aligned(alignment(heard, row["reply"]))}'
    return example(lines, waves, steps)
