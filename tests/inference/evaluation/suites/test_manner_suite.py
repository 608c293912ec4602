"""Figures of the manner of speaking, by hand: accuracy, recalls, false alarms, and who was called what."""

from __future__ import annotations

from duologue.inference.evaluation.metrics.statistics import evaluate
from duologue.inference.evaluation.suites.manner import confusion, judged, metrics_of

CLASSES = ("calm", "agitated", "whisper")


def test_figures_of_a_confusion_made_by_hand() -> None:
    told = [("calm", "calm", 6), ("calm", "whisper", 2), ("agitated", "agitated", 3), ("agitated", "calm", 1)]
    rows = [judged({"id": at, "manner": manner}, said) for manner, said, times in told for at in range(times)]
    found = {metric.key: evaluate(metric, rows) for metric in metrics_of(CLASSES)}
    assert {key: (finding.value, finding.count) for key, finding in found.items()} == {
        "right": (0.75, 12), "recall_calm": (0.75, 8), "recall_agitated": (0.75, 4), "recall_whisper": (None, 0),
        "false_alarms": (0.25, 8),
    }  # fmt: skip
    right = found["right"]
    assert right.low is not None and right.high is not None and right.low < 0.75 < right.high
    assert confusion(rows, CLASSES) == {
        "calm": {"calm": 6, "agitated": 0, "whisper": 2}, "agitated": {"calm": 1, "agitated": 3, "whisper": 0}
    }  # fmt: skip
    assert {row["kind"] for row in rows} == {"unknown"}


def test_without_calm_there_are_no_false_alarms() -> None:
    assert [metric.key for metric in metrics_of(("whisper", "shout"))] == ["right", "recall_whisper", "recall_shout"]
