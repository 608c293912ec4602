"""Full-Duplex-Bench's formulas on cases counted by hand, with their corners; its folders, from end to end."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from chat_server import serving
from tiny_assistant import Loudness, tiny_assistant

from duologue.checkpoints.recognisers.recogniser import TimedWord
from duologue.data_prep.audio import read_audio, write_wav
from duologue.inference.evaluation.judges.endpoint import JudgeConfig
from duologue.inference.evaluation.metrics import full_duplex_bench as measure
from duologue.inference.evaluation.suites import full_duplex_bench
from duologue.model.errors import DuologueError


def said(*times: tuple[float, float]) -> list[TimedWord]:
    return [TimedWord(f"w{at}", *span) for at, span in enumerate(times)]


@pytest.mark.parametrize(
    ("words", "taken"),
    [
        (said(), False),  # nobody speaks
        (said((2.0, 2.2)), False),
        (said((2.0, 2.3), (2.4, 2.6), (2.7, 2.99)), False),  # three words in less than a second
        (said((2.0, 2.2), (2.2, 2.4), (2.4, 2.6), (2.6, 2.8)), True),  # four words
        (said((2.0, 3.0)), True),  # one word of a second
        (said((2.0, 2.1), (2.9, 3.0)), True),  # two words, a second from end to end
    ],
)
def test_take_over(words: list[TimedWord], taken: bool) -> None:
    assert measure.taken_over(words) is taken


def test_latency() -> None:
    words = said((2.5, 3.0), (3.0, 4.0))
    assert measure.latency(words, 2.0) == pytest.approx(0.5)
    assert measure.latency(words, 3.0) == 0.0, "it began before the user had finished"
    assert measure.latency(said((2.5, 2.7)), 2.0) is None, "no take-over, no latency"
    assert [word.text for word in measure.after(words, 2.8)] == ["w1"]


def test_back_channels() -> None:
    assert measure.back_channels([], []) == ([], False)
    assert measure.back_channels([(1.0, 1.4)], said((1.0, 1.3))) == ([(1.0, 1.4)], False)
    assert measure.back_channels([(1.0, 1.9)], said((1.0, 1.2), (1.2, 1.5), (1.5, 1.8)))[1], "three words are too many"
    assert measure.back_channels([(1.0, 2.1)], said((1.0, 1.2)))[1], "a second is too long"
    found, taken = measure.back_channels([(1.0, 1.4), (3.0, 6.5), (8.0, 8.2)], said((1.0, 1.3)))
    assert taken and found == [(1.0, 1.4)], "what is longer than three seconds ends it"
    assert measure.back_channels([(1.0, 3.9)], [])[1] and measure.back_channels([(1.0, 4.0)], [])[0] == [(1.0, 4.0)]
    assert measure.frequency([(1.0, 1.4), (3.0, 3.2)], 8.0) == 0.25 and measure.frequency([], 8.0) == 0.0


def test_timing_of_back_channels() -> None:
    """Distance to people: 1 without any, 0 where they agree, sqrt(ln 2) where they share nothing."""
    times = measure.back_channel_times([(0.5, 0.7)], 2.0)
    assert len(times) == 11 and times.sum() == pytest.approx(1.0) and times[2:4].sum() == pytest.approx(1.0)
    assert measure.divergence([], 2.0, [0.5, 0.5]) == 1.0
    assert measure.divergence([(0.5, 0.7)], 2.0, times.tolist()) == pytest.approx(0.0, abs=1e-6)
    elsewhere = measure.back_channel_times([(1.5, 1.7)], 2.0)
    assert measure.divergence([(0.5, 0.7)], 2.0, elsewhere.tolist()) == pytest.approx(math.sqrt(math.log(2)), abs=1e-4)


def test_overlaps() -> None:
    user = (3.0, 5.0)
    assert measure.stop_latency([(1.0, 3.4), (6.0, 8.0)], user) == pytest.approx(0.4)
    assert measure.stop_latency([(1.0, 9.0)], user) == pytest.approx(2.0), "it never stopped: all of the user's speech"
    assert measure.stop_latency([(1.0, 2.5)], user) is None, "it was not speaking"
    assert measure.response_latency([(1.0, 3.4), (5.6, 8.0)], user) == pytest.approx(0.6)
    assert measure.response_latency([(1.0, 9.0)], user) is None and measure.response_latency([], user) is None


Span = tuple[float, float]


def a_dialogue(folder: Path, words: list[TimedWord] | None, event: tuple[str, Any] | None, *spans: Span) -> None:
    """One folder of the benchmark: loud in the output at these spans (s), of 8 s."""
    folder.mkdir(parents=True)
    wave = np.zeros(8 * 16_000, np.float32)
    for start, end in spans:
        wave[int(start * 16_000) : int(end * 16_000)] = 0.1
    write_wav(folder / "input.wav", np.zeros(8 * 16_000), 16_000)
    write_wav(folder / "output.wav", wave, 16_000)
    if words is not None:
        chunks = [{"text": word.text, "timestamp": [word.start_s, word.end_s]} for word in words]
        (folder / "output.json").write_text(json.dumps({"text": "", "chunks": chunks}))
    if event is not None:
        (folder / event[0]).write_text(json.dumps(event[1]))


def values(report: dict[str, Any]) -> dict[str, float]:
    return {entry["id"]: entry["value"] for entry in report["metrics"]}


def test_folders_of_another_system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("duologue.checkpoints.importers.silero_vad.load_vad", Loudness)
    monkeypatch.setattr(full_duplex_bench, "loaded", lambda model: pytest.fail("no model of ours is needed"))
    root = tmp_path / "fdb"
    long = said((4.5, 5.0), (5.0, 5.6), (5.6, 6.2))
    a_dialogue(root / "turn/1", long, ("turn_taking.json", [{"timestamp": [4.0, 4.1]}]), (4.5, 6.2))
    a_dialogue(root / "turn/2", said(), ("turn_taking.json", [{"timestamp": [4.0, 4.1]}]))
    a_dialogue(root / "pause/1", said((3.0, 3.2)), ("pause.json", [{"timestamp": [2.0, 3.0]}]), (3.0, 3.2))
    event = [{"context": "a", "interrupt": "b", "timestamp": [2.0, 4.0]}]
    early = said((1.0, 1.5), (1.5, 2.2), *((word.start_s, word.end_s) for word in long))
    a_dialogue(root / "interruption/1", early, ("interrupt.json", event), (1.0, 2.2), (4.5, 6.2))
    clean = {"context_text": "a", "current_turn_text": "b", "timestamps": [2.0, 4.0]}
    a_dialogue(root / "v15/1", said(), ("metadata.json", clean), (1.0, 2.5), (5.0, 6.0))
    a_dialogue(root / "back/1", said((1.0, 1.3)), None, (1.0, 1.4))
    (root / "icc_gt_distribution.json").write_text(json.dumps({"1": [0.5, 0.5]}))
    a_dialogue(root / "broken/1", None, ("turn_taking.json", [{"timestamp": "soon"}]))
    (root / "broken/2").mkdir()
    (root / "broken/2/input.wav").write_bytes((root / "back/1/input.wav").read_bytes())
    report = full_duplex_bench.run(outputs=root, out=tmp_path / "out", quiet=True)
    found = values(report)
    assert found["turn_tor"] == 0.5 and found["turn_latency"] == pytest.approx(0.5)
    assert found["pause_tor"] == 0.0 and found["interruption_tor"] == 1.0
    assert found["interruption_latency"] == pytest.approx(0.5), "words before the interruption are none of the answer"
    assert found["stop_latency"] == pytest.approx(0.5, abs=0.04)
    assert found["response_latency"] == pytest.approx(1.0, abs=0.04)
    assert found["backchannel_tor"] == 0.0 and found["backchannel_frequency"] == pytest.approx(1 / 8)
    assert 0 < found["backchannel_jsd"] < 1
    assert {entry["id"] for entry in report["broken"]} == {"broken/1", "broken/2"}
    assert "no timestamp" in report["broken"][0]["reason"] and "there is no" in report["broken"][1]["reason"]
    assert "broken/2" in (tmp_path / "out/summary.md").read_text()
    assert report["settings"]["model"] is None
    with pytest.raises(DuologueError, match="holds no folder"):
        full_duplex_bench.run(outputs=tmp_path / "nothing", out=tmp_path / "x", quiet=True)


def test_words_are_recognised_where_they_are_missing_and_ours_can_be_played(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Recogniser:
        name = "by hand"

        def words(self, wave: np.ndarray) -> list[TimedWord]:
            loud = np.flatnonzero(np.abs(wave) > 0.01) / 16_000
            return said((float(loud[0]), float(loud[-1]))) if len(loud) else []

    monkeypatch.setattr("duologue.checkpoints.importers.silero_vad.load_vad", Loudness)
    monkeypatch.setattr(full_duplex_bench, "find_recogniser", lambda *_: Recogniser())
    root = tmp_path / "fdb"
    a_dialogue(root / "1", None, ("turn_taking.json", [{"timestamp": [4.0, 4.1]}]), (5.0, 6.5))
    report = full_duplex_bench.run(outputs=root, out=tmp_path / "theirs", quiet=True)
    assert values(report)["turn_latency"] == pytest.approx(1.0, abs=0.01)
    assert json.loads((root / "1/output.json").read_text())["chunks"][0]["text"] == "w0"
    write_wav(root / "1/input.wav", 0.1 * np.random.default_rng(0).standard_normal(8_000), 16_000)
    report = full_duplex_bench.run(data=root, out=tmp_path / "ours", model=tiny_assistant(), quiet=True)
    assert len(read_audio(tmp_path / "ours/1/output.wav")) == 8_000 and not report["broken"]
    assert (root / "1/output.json").is_file(), "what the other system said is left alone"


def test_overlaps_are_judged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """v1.5's categories by a judge over HTTP, one that knows them by the words; what is right differs by scenario."""
    monkeypatch.setattr("duologue.checkpoints.importers.silero_vad.load_vad", Loudness)
    root, asked = tmp_path / "fdb", []
    words = {"answer": "respond", "go": "resume", "pardon": "uncertain", "tralala": "unknown"}

    def judge(messages: list[dict[str, str]]) -> str:
        asked.append(messages[-1]["content"])
        said = next(line for line in asked[-1].splitlines() if line.startswith("From then on")).split()[-1]
        return f"The behaviour: {words[said].upper()}." if said != "tralala" or len(asked) % 2 else "hm"

    for scenario, said_then in (
        ("user_interruption", ("answer", "go", "answer", None)),
        ("user_backchannel", ("go", "pardon")),
        ("talking_to_other", ("answer",)),
        ("background_speech", ("tralala",)),
        ("v15", ("go",)),
    ):
        for at, word in enumerate(said_then):
            spoken = [TimedWord("early", 1.0, 1.5), *([TimedWord(word, 4.5, 6.0)] if word else [])]
            event = {"context_text": "tea", "current_turn_text": "and milk", "timestamps": [2.0, 4.0]}
            a_dialogue(root / scenario / str(at), spoken, ("metadata.json", event), (1.0, 1.5), (4.5, 6.0))
    with serving(judge) as server:
        config = JudgeConfig(url=server.url, model="mock")
        report = full_duplex_bench.run(outputs=root, out=tmp_path / "out", judge=config, quiet=True)
    found = values(report)
    assert not report["broken"]
    assert [found[f"overlap_{name}"] for name in ("respond", "resume", "uncertain", "unknown")] == pytest.approx(
        [3 / 9, 3 / 9, 1 / 9, 2 / 9]
    )
    assert found["overlap_right"] == pytest.approx(3 / 8), "two of the interruptions and one back-channel"
    assert all("tea" in text and "and milk" in text and "had said: early" in text for text in asked)
    tasks = {row["task"] for row in report["rows"]}
    assert {"overlap: user interruption", "overlap: speech in the background", "overlap"} <= tasks
    rows = {row["id"]: row for row in report["rows"]}
    assert rows["user_interruption/3"]["behaviour"] == "unknown", "it said nothing more, and nobody was asked"
