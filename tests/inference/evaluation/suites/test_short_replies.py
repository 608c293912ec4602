"""A recording that is too short, or odd, for a metric is a row without that metric, wherever sound is measured."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import soundfile

from duologue.inference.evaluation.judges.speech import SpeechJudge
from duologue.inference.evaluation.metrics.quality import RATE, UNREFERENCED, referenced, unreferenced
from duologue.inference.evaluation.metrics.statistics import evaluate
from duologue.inference.evaluation.suites import codec as codec_suite
from duologue.model.errors import DuologueError


class Recogniser:
    name = "a recogniser"

    def __call__(self, waveform: np.ndarray) -> str:
        return "a word"


def sound(seconds: float) -> np.ndarray:
    t = np.arange(max(1, round(seconds * RATE))) / RATE
    return (0.3 * np.sin(2 * np.pi * 150 * t) + 0.05).astype(np.float32)


def with_one(value: float) -> np.ndarray:
    wave = sound(0.3)
    wave[5] = value
    return wave


ODD = {
    "no samples": np.zeros(0, np.float32),
    "ten samples": sound(10 / RATE),
    "20 ms": sound(0.02),
    "50 ms": sound(0.05),
    "100 ms": sound(0.1),
    "300 ms": sound(0.3),
    "silence": np.zeros(RATE, np.float32),
    "constant": np.full(3 * RATE // 10, 0.5, np.float32),
    "not a number": with_one(math.nan),
    "infinite": with_one(math.inf),
    "too loud": sound(0.3) * 9,
}


@pytest.fixture(scope="module")
def judge() -> SpeechJudge:
    pytest.importorskip("speechmos")
    return SpeechJudge(Recogniser(), None, None)


@pytest.mark.parametrize("what", ODD)
def test_any_reply_is_a_row(judge: SpeechJudge, what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    row = judge({"reply": "a word", "question": "what"}, ODD[what], like=sound(0.5))
    found = row["measures"]
    assert all(math.isfinite(amount) for amount, _ in found.values())
    json.dumps(row, allow_nan=False)
    assert ("plcmos" in found) == (what in ("100 ms", "300 ms", "constant", "too loud"))
    assert ("dnsmos" in found) == (what not in ("no samples", "silence", "not a number", "infinite"))
    if what in ("no samples", "silence", "not a number", "infinite"):
        assert judge.quality(ODD[what]) == {}
        monkeypatch.setattr(SpeechJudge, "quality", lambda self, wave: {})
        assert "similarity" not in judge({}, sound(0.3), like=ODD[what])["measures"]


def test_a_mean_is_over_the_rows_that_have_it(judge: SpeechJudge) -> None:
    rows = [judge({"reply": "a word"}, sound(seconds)) for seconds in (0.02, 0.3)]
    counts = {metric.key: evaluate(metric, rows).count for metric in UNREFERENCED}
    assert counts == {"dnsmos": 2, "dnsmos_signal": 2, "dnsmos_background": 2, "dnsmos_p808": 2, "plcmos": 1}
    assert evaluate(UNREFERENCED[-1], rows).value == pytest.approx(rows[1]["measures"]["plcmos"][0])


@pytest.mark.parametrize("what", ODD)
def test_any_pair_is_measured_or_refused_in_one_line(what: str) -> None:
    pytest.importorskip("pesq")
    wave = ODD[what]
    for decoded, reference in ((wave, wave), (wave, sound(len(wave) / RATE)), (sound(len(wave) / RATE), wave)):
        try:
            found = referenced(decoded, reference)
        except DuologueError as error:
            assert "\n" not in str(error) and what in ("no samples", "silence", "not a number", "infinite")
        else:
            assert all(math.isfinite(amount) for amount, _ in found.values())
            assert ("stoi" in found) <= (len(wave) > RATE // 10)


def test_a_codecs_short_pair_is_a_row_without_what_it_is_too_short_for(judge: SpeechJudge, tmp_path: Path) -> None:
    pytest.importorskip("pesq")
    for side in ("reference", "decoded"):
        (tmp_path / side).mkdir()
        for name, seconds in (("short", 0.02), ("long", 0.3)):
            soundfile.write(tmp_path / side / f"{name}.wav", sound(seconds), RATE)
    report = codec_suite.run(data=tmp_path, out=tmp_path / "figures", quiet=True)
    assert report["broken"] == []
    counts = {metric["id"]: metric["count"] for metric in report["metrics"]}
    assert (counts["dnsmos"], counts["plcmos"], counts["pesq"], counts["mel_distance"]) == (2, 1, 1, 2)
    page = (tmp_path / "figures" / "summary.md").read_text()
    assert any("PLCMOS" in line and "| 1 |" in line for line in page.splitlines()), "the report says over how many"


def test_a_recording_that_is_not_finite_is_named() -> None:
    with pytest.raises(DuologueError, match="not finite"):
        unreferenced(ODD["not a number"])
