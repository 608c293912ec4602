"""The suite of voices: who is taken for whom, and nano's voices as they are read."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from tiny_assistant import tiny_assistant

pytest.importorskip("jiwer")

from duologue.inference.assistant.assistant import load
from duologue.inference.assistant.voices import Measured
from duologue.inference.evaluation.suites import voices
from duologue.model.errors import DuologueError


class Hearing:
    """A recogniser that hears every word but the last, and tells voices by their pitch."""

    def __init__(self, *_: object) -> None:
        pass

    def __call__(self, wave: np.ndarray) -> Any:
        turn = np.log2(Measured.of(wave, "it").pitch)
        return np.array([np.cos(6 * turn), np.sin(6 * turn)])


def test_nanos_voices_are_read_and_measured(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(voices, "SpeakerEncoder", Hearing)
    monkeypatch.setattr(voices, "find_recogniser", lambda name, language: lambda wave: "the capital of france is")
    text = tmp_path / "text"
    text.write_text("the capital of france is paris\n\ntwo plus three is five\n")
    how: dict[str, Any] = {"voices": "default,deep", "speeds": (1.25,), "quiet": True}
    found = voices.run(out=tmp_path / "out", model=load("nano"), data=text, **how)
    metrics = {each["id"]: each for each in found["metrics"]}
    assert metrics["told_apart"]["value"] == 1 and metrics["told_apart"]["count"] == 4
    assert metrics["wer_1"]["value"] == metrics["wer_1.25"]["value"] == pytest.approx(6 / 10)  # "2 + 3"
    assert 0 < metrics["pitch_1.25_p50"]["value"] < 0.05
    assert found["figures"]["hertz"]["deep"] / found["figures"]["hertz"]["default"] == pytest.approx(0.8, abs=0.04)
    assert set(found["parts"]) == {"default", "deep"} and "embeddings" not in found["rows"][0]


def test_a_clip_is_not_compared_with_itself() -> None:
    rows: list[dict[str, Any]] = [
        {"voice": voice, "embeddings": [vector], "measures": {}}
        for voice, vector in (("a", [1, 0, 0]), ("a", [0, 1, 0]), ("b", [0.5, 0.5, 0.7]), ("b", [0.5, 0.5, 0.8]))
    ]
    voices._tell_apart(rows)
    assert [row["measures"]["told_apart"][0] for row in rows] == [0, 0, 1, 1]


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"voices": "deep"}, "no voice 'deep'; this model has: default"),
        ({"speeds": (1.0,)}, "speaks at 0.8 to 1.25, and 1 is measured anyway"),
        ({"speeds": (2.0,)}, "speeds has 2"),
    ],
)
def test_what_cannot_be_measured_is_refused(tmp_path, settings, says) -> None:
    with pytest.raises(DuologueError, match=says):
        voices.run(out=tmp_path, model=tiny_assistant(), **settings)
    with pytest.raises(DuologueError, match="this model has none"):
        voices.run(out=tmp_path, model=tiny_assistant(speech=False))
