"""The evaluation part of a model card: the report of `duologue evaluate s2s` as Markdown, its weak places named."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence, Set
from typing import Any

from ...model.errors import DuologueError
from .facts import AcceptanceRun
from .markdown import bullets, table

NOT_MEASURED = "not measured"
_SCORES = ("questions", "right", "right by ear", "transcript WER")


def percent(fraction: float | None) -> str:
    return NOT_MEASURED if fraction is None else f"{100 * fraction:.1f} %"


def interval(fraction: float | None, count: int) -> str:
    """A share with its 95 % interval (Wilson, JASA 1927): how far it may be luck with so many questions."""
    if fraction is None or count == 0:
        return NOT_MEASURED
    z = 1.96
    centre = (fraction + z * z / (2 * count)) / (1 + z * z / count)
    spread = z / (1 + z * z / count) * math.sqrt(fraction * (1 - fraction) / count + z * z / (4 * count * count))
    return f"{percent(fraction)} ({100 * max(0.0, centre - spread):.0f} to {100 * min(1.0, centre + spread):.0f})"


def check_report(report: Mapping[str, Any]) -> None:
    """Raises DuologueError when it is not the report of a spoken evaluation."""
    for keys in (("settings", "voices"), ("settings", "split"), ("figures", "overall"), ("figures", "by_voice"),
                 ("figures", "by_category"), ("figures", "reply_speech"), ("figures", "compute_delay_ms")):  # fmt: skip
        if keys[1] not in report.get(keys[0], {}):
            raise DuologueError(
                f"the report has no {keys[0]}.{keys[1]}: it must be report.json of duologue evaluate s2s"
            )


def headline(report: Mapping[str, Any] | None) -> str:
    """One sentence that says how good it is."""
    if report is None:
        return "This checkpoint has not been measured."
    overall, delay = report["figures"]["overall"], report["figures"]["compute_delay_ms"]["p50"]
    late = "" if delay is None else f"; the reply's first sound is ready {delay:.0f} ms after the question (median)"
    return (
        f"Of {overall['questions']} spoken questions it answered {percent(overall['right'])} right, "
        f"{percent(overall['right_by_ear'])} as heard in its own speech{late}."
    )


def evaluation_section(report: Mapping[str, Any] | None, heard: Set[str]) -> str:
    """By voice, by category, the speech of the replies, delay and memory. heard: the voices of the training data."""
    if report is None:
        return "Not measured."
    settings, found = report["settings"], report["figures"]
    by_voice = [
        (voice, "yes" if voice in heard else "no", *_row(scores)) for voice, scores in sorted(found["by_voice"].items())
    ]
    by_voice.append(("**all**", "", *_row(found["overall"])))
    worst_first = sorted(found["by_category"].items(), key=lambda item: (item[1]["right"], item[0]))
    by_category = [(name, *_row(scores)) for name, scores in worst_first]
    parts = [
        _setting(settings, report.get("environment", {})),
        table(("voice", "in training", *_SCORES), by_voice, (2, 3, 4, 5)),
        f"By category, the weakest first (the mean of the categories: {percent(found['overall'].get('right_macro'))}):",
        table(("category", *_SCORES), by_category, (1, 2, 3, 4)),
        bullets(_speech_and_speed(found)),
    ]
    if found["failed"]:
        parts.append(f"{found['failed']} questions could not be synthesised and are not counted.")
    return "\n\n".join(parts)


def _row(scores: Mapping[str, Any]) -> tuple[str, str, str, str]:
    count = scores["questions"]
    return (
        f"{count}",
        interval(scores["right"], count),
        interval(scores["right_by_ear"], count),
        percent(scores["transcript_wer"]),
    )


def _setting(settings: Mapping[str, Any], environment: Mapping[str, Any]) -> str:
    kept = {
        "test": "Their wordings and operands are those kept for the test, never trained on.",
        "dev": "Their wordings and operands are those kept for development.",
        "train": "Their wordings and operands may occur in the training data.",
    }[settings["split"]]
    machine = ", ".join(
        str(part)
        for part in (
            environment.get("processor"),
            f"{environment['cores']} cores" if environment.get("cores") else None,
            f"{environment['torch_threads']} threads" if environment.get("torch_threads") else None,
        )
        if part
    )
    return (
        f"Generated questions in {len(settings['voices'])} voices (seed {settings['seed']}). {kept} A reply is right "
        "when its text holds the computed answer; right by ear when the words that pocketsphinx hears in its speech "
        f"do. In brackets the 95 % interval, in percent. Measured on {machine or 'a machine that was not recorded'}."
    )


def _speech_and_speed(found: Mapping[str, Any]) -> list[str]:
    speech, lines = found["reply_speech"], []
    lines.append(
        f"Reply speech, by pocketsphinx: word error rate {percent(speech['wer'])} over {speech['replies']} replies; "
        f"the synthesiser it learnt from {percent(speech['synthesiser_wer'])} on the same texts"
    )
    names = (
        ("compute_delay_ms", "Compute delay, last sample heard to first reply sample ready", "ms", 0),
        ("first_word_ms", "To the first word written", "ms", 0),
        ("real_time_factor", "Real-time factor of a whole turn (below 1: it keeps up)", "", 2),
    )
    for key, text, unit, digits in names:
        values = found.get(key) or {}
        if values.get("p50") is None:
            lines.append(f"{text}: {NOT_MEASURED}")
        else:
            shown = [f"{values[name]:.{digits}f} {unit}".strip() for name in ("p50", "p95", "max")]
            lines.append(f"{text}: {shown[0]} at the median, {shown[1]} at the 95th percentile, {shown[2]} at most")
    memory = found.get("peak_rss_mib")
    lines.append(f"Memory at its peak: {NOT_MEASURED if memory is None else f'{memory:.0f} MiB'}")
    return lines


def summary(report: Mapping[str, Any]) -> dict[str, Any]:
    """What the log of acceptance runs keeps of a report."""
    check_report(report)
    settings, found = report["settings"], report["figures"]
    return {
        "voices": list(settings["voices"]),
        "split": settings["split"],
        "seed": settings["seed"],
        "questions": found["overall"]["questions"],
        "right": found["overall"]["right"],
        "right_by_ear": found["overall"]["right_by_ear"],
        "transcript_wer": found["overall"]["transcript_wer"],
        "reply_wer": found["reply_speech"]["wer"],
        "compute_delay_ms": found["compute_delay_ms"]["p50"],
    }


def acceptance_table(runs: Sequence[AcceptanceRun]) -> str:
    """Every look at the acceptance questions, oldest first: the more looks, the less the last one proves."""
    if not runs:
        return "None so far."
    rows = []
    for number, run in enumerate(runs, start=1):
        found = run.metrics
        delay = found["compute_delay_ms"]
        rows.append(
            (
                number,
                run.weights,
                f"{found['questions']} in {', '.join(found['voices'])}",
                percent(found["right"]),
                percent(found["right_by_ear"]),
                percent(found["transcript_wer"]),
                percent(found["reply_wer"]),
                NOT_MEASURED if delay is None else f"{delay:.0f} ms",
                run.note,
            )
        )
    columns = ("run", "weights", *_SCORES, "reply WER", "delay", "note")
    said = "Every look at the questions and voices kept for acceptance is counted here, whether it pleased or not."
    return f"{said}\n\n{table(columns, rows, (0, 3, 4, 5, 6, 7))}"
