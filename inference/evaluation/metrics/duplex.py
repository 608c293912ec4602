"""What was judged of a scene as measures, so that dialogues have intervals and can be compared as everything else."""

from __future__ import annotations

from typing import Any

from ..inputs.scenes import SceneKind
from .statistics import Better, Metric, Statistic

_LOW, _P50, _P95 = Better.LOWER, Statistic.P50, Statistic.P95
METRICS = (
    Metric(key="question_taken", name="Question answered", unit="%"),
    Metric(key="question_right", name="Question answered right", unit="%"),
    Metric(key="pause_taken_early", name="Answered in a pause", unit="%", better=_LOW),
    Metric(key="pause_right", name="Question with a pause answered right", unit="%"),
    Metric(key="ignorable_answered", name="Answered what was nobody's question", unit="%", better=_LOW),
    Metric(key="disturbed_given_up", name="Stopped for a cough or 'yeah'", unit="%", better=_LOW),
    Metric(key="stop_obeyed", name="Stopped when told to", unit="%"),
    Metric(key="interruption_taken", name="Interruption answered", unit="%"),
    Metric(key="interruption_right", name="Interruption answered right", unit="%"),
    Metric(key="recall_consistent", name="Remembered what was heard, no more", unit="%"),
    Metric(key="stop_ms", name="Stop latency, median", unit="ms", better=_LOW, statistic=_P50),
    Metric(key="stop_ms", name="Stop latency, 95th", unit="ms", better=_LOW, statistic=_P95),
    Metric(key="endpoint_ms", name="Endpoint delay, median", unit="ms", better=_LOW, statistic=_P50),
    Metric(key="compute_ms", name="Compute delay of the answer, median", unit="ms", better=_LOW, statistic=_P50),
    Metric(key="compute_ms", name="Compute delay of the answer, 95th", unit="ms", better=_LOW, statistic=_P95),
    Metric(key="response_ms", name="Response heard after, median", unit="ms", better=_LOW, statistic=_P50),
    Metric(key="response_ms", name="Response heard after, 95th", unit="ms", better=_LOW, statistic=_P95),
    Metric(key="echo_interrupted", name="Interrupted by its own echo", unit="%", better=_LOW),
    Metric(key="echo_answered", name="Answered its own echo", unit="%", better=_LOW),
    Metric(key="echo_stopped", name="Interrupted over its echo", unit="%"),
    Metric(key="echo_stop_ms", name="Stop latency over its echo, median", unit="ms", better=_LOW, statistic=_P50),
    Metric(key="echo_stop_ms", name="Stop latency over its echo, 95th", unit="ms", better=_LOW, statistic=_P95),
)
# (kind, field of the judged row, measure)
_FRACTIONS = (
    (SceneKind.QUESTION, "taken", "question_taken"),
    (SceneKind.QUESTION, "right", "question_right"),
    (SceneKind.PAUSE, "early", "pause_taken_early"),
    (SceneKind.PAUSE, "right", "pause_right"),
    (SceneKind.NOISE, "answered", "ignorable_answered"),
    (SceneKind.TALKER, "answered", "ignorable_answered"),
    (SceneKind.STATEMENT, "answered", "ignorable_answered"),
    (SceneKind.BACK_CHANNEL, "given_up", "disturbed_given_up"),
    (SceneKind.COUGH, "given_up", "disturbed_given_up"),
    (SceneKind.STOP, "obeyed", "stop_obeyed"),
    (SceneKind.STOP, "stop_ms", "stop_ms"),
    (SceneKind.INTERRUPTION, "stop_ms", "stop_ms"),
    (SceneKind.INTERRUPTION, "taken", "interruption_taken"),
    (SceneKind.INTERRUPTION, "right", "interruption_right"),
    (SceneKind.RECALL, "consistent", "recall_consistent"),
    (SceneKind.RECALL, "stop_ms", "stop_ms"),
    (SceneKind.QUESTION, "endpoint_ms", "endpoint_ms"),
    (SceneKind.QUESTION, "compute_ms", "compute_ms"),
    (SceneKind.QUESTION, "response_ms", "response_ms"),
    (SceneKind.ECHO, "echo_answered", "echo_answered"),
    (SceneKind.ECHO_INTERRUPTION, "stopped", "echo_stopped"),
    (SceneKind.ECHO_INTERRUPTION, "stop_ms", "echo_stop_ms"),
)


def measures(turn_state: dict[str, Any]) -> dict[str, list[float]]:
    """What one judged scene adds to the metrics; nothing where it could not be tried (`valid`)."""
    if not turn_state.get("valid", True):
        return {}
    found = {
        measure: [float(turn_state[field]), 1.0]
        for kind, field, measure in _FRACTIONS
        if turn_state["kind"] == kind.value and turn_state.get(field) is not None
    }
    if turn_state["kind"] == SceneKind.ECHO.value:
        found["echo_interrupted"] = [float(turn_state["interrupted"] > 0), 1.0]
    return found
