"""What a system did in a scene, judged from what it said: outputs made by hand, loudness in silero's place."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_assistant import SAID, Loudness, tiny_assistant
from tiny_chat import brief, chat_assistant

from duologue.data_prep.audio import read_audio, write_wav
from duologue.data_prep.nano.dialogues import is_whole_question
from duologue.data_prep.speech.engine import SAMPLE_RATE
from duologue.data_prep.speech.voices import find_voices
from duologue.inference.evaluation.inputs.material import Material
from duologue.inference.evaluation.inputs.scenes import Scene, SceneKind
from duologue.inference.evaluation.inputs.scenes import render as render_of
from duologue.inference.evaluation.judges.scenes import judge, recalls, speech_segments
from duologue.inference.evaluation.suites import duplex as duplex_suite
from duologue.inference.evaluation.suites.duplex import (
    lateness,
    play,
    session_without,
    summarise,
    write_scene,
)
from duologue.inference.session.events import Event, EventKind, write_events
from duologue.inference.session.state import SessionConfig
from duologue.model.errors import DuologueError
from duologue.model.language_model.prompt import ChatPrompt

VOICES = find_voices("espeak:en-us+f5")
MATERIAL = Material("nano")


def render(kind: SceneKind, index: int, seed: int, voices: object = VOICES) -> Scene:
    return render_of(kind, index, seed, voices, MATERIAL)


def said(scene: Scene, folder: Path, *spans: tuple[int, int], hears: str = "one two three four five") -> dict[str, Any]:
    """What is judged of a system that spoke in these spans (ms), by a recogniser that always hears the same."""
    wave = np.zeros(len(scene.pcm), np.float32)
    rng = np.random.default_rng(0)
    for start, end in spans:
        wave[start * 16 : end * 16] = 0.1 * rng.standard_normal((end - start) * 16)
    write_scene(scene, folder)
    write_wav(folder / "output.wav", wave, SAMPLE_RATE)
    return judge(scene, folder, Loudness(), lambda pcm: hears)  # type: ignore[arg-type]


def test_segments_are_joined_over_short_gaps(tmp_path: Path) -> None:
    wave = np.zeros(5 * SAMPLE_RATE, np.float32)
    for start, end in ((1000, 1500), (1700, 2000), (3000, 3400)):
        wave[start * 16 : end * 16] = 0.1
    found = speech_segments(wave, Loudness())
    assert np.abs(np.subtract(found, [(1000, 2000), (3000, 3400)])).max() <= 32


def test_a_question(tmp_path: Path) -> None:
    scene = render(SceneKind.QUESTION, 0, 0, VOICES)
    end = scene.spans[0].end_ms
    row = said(scene, tmp_path, (end + 600, end + 2_600), hears=scene.turns[0].answer)
    assert row["taken"] and row["right"] and abs(row["response_ms"] - 600) <= 32
    assert not said(scene, tmp_path, (end + 600, end + 2_600))["right"]
    row = said(scene, tmp_path, (end + 600, end + 900), hears="uh huh")
    assert not row["taken"], "three words within a second are no take-over"
    row = said(scene, tmp_path)
    assert not row["taken"] and row["response_ms"] is None
    for at, taken in ((end - 80, False), (end + 560, True)):
        write_events(tmp_path / "events.jsonl", [Event(EventKind.ANSWER_AUDIBLE, at)])
        assert said(scene, tmp_path, (end + 600, end + 900), hears="")["taken"] == taken, "a short answer is one"


def test_a_pause(tmp_path: Path) -> None:
    scene = render(SceneKind.PAUSE, 0, 0, VOICES)
    first, second = scene.spans
    assert said(scene, tmp_path, (first.end_ms + 100, second.end_ms + 2_000))["early"]
    assert not said(scene, tmp_path, (second.end_ms + 100, second.end_ms + 2_000))["early"]


@pytest.mark.parametrize("kind", [SceneKind.NOISE, SceneKind.TALKER, SceneKind.STATEMENT])
def test_what_is_to_be_ignored(kind: SceneKind, tmp_path: Path) -> None:
    scene = render(kind, 0, 0, VOICES)
    assert said(scene, tmp_path, (4_000, 5_500))["answered"] and not said(scene, tmp_path)["answered"]
    assert not said(scene, tmp_path, (4_000, 4_300), hears="uh huh")["answered"]
    write_events(tmp_path / "events.jsonl", [Event(EventKind.ANSWER_AUDIBLE, 3_960)])
    assert said(scene, tmp_path, (4_000, 4_300), hears="uh huh")["answered"], "a short answer is one too many"


def test_over_the_answer(tmp_path: Path) -> None:
    cough, stop, other = (render(k, 0, 0, VOICES) for k in (SceneKind.COUGH, SceneKind.STOP, SceneKind.INTERRUPTION))
    end, onset, over = cough.spans[0].end_ms, cough.spans[1].start_ms, cough.spans[1].end_ms
    assert not said(cough, tmp_path, (end + 500, over + 3_000))["given_up"]
    assert not said(cough, tmp_path, (end + 500, onset + 100), (over + 300, over + 2_000))["given_up"], "it resumed"
    assert said(cough, tmp_path, (end + 500, onset + 100))["given_up"]
    assert not said(cough, tmp_path, (end + 500, onset + 100), hears=cough.turns[0].answer)["given_up"], "it was over"
    assert said(cough, tmp_path, (end + 200, onset - 400)) == said(cough, tmp_path, (end + 200, onset - 400)) | {
        "valid": False
    }
    end, onset, over = stop.spans[0].end_ms, stop.spans[1].start_ms, stop.spans[1].end_ms
    row = said(stop, tmp_path, (end + 500, onset + 320))
    assert row["obeyed"] and abs(row["stop_ms"] - 320) <= 32
    assert not said(stop, tmp_path, (end + 500, over + 3_000))["obeyed"]
    end, onset, over = other.spans[0].end_ms, other.spans[1].start_ms, other.spans[1].end_ms
    row = said(other, tmp_path, (end + 500, onset + 250), (over + 700, over + 2_500), hears=other.turns[1].answer)
    assert row["taken"] and row["right"] and abs(row["response_ms"] - 700) <= 32 and abs(row["stop_ms"] - 250) <= 32


def test_what_is_remembered_is_what_was_heard(tmp_path: Path) -> None:
    scene = render(SceneKind.RECALL, 0, 0, VOICES)
    assert scene.turns[1].slot == scene.turns[0].answer
    end, onset, over = scene.spans[0].end_ms, scene.spans[1].start_ms, scene.spans[1].end_ms
    spans = (end + 500, onset + 250), (over + 700, over + 2_500)
    row = said(scene, tmp_path, *spans, hears="the capital of")
    assert row["consistent"] and row["heard"] == row["again"] == "the capital of"
    # Our own sessions say themselves how far the answer was heard.
    heard = Event(EventKind.INTERRUPTED, onset + 320, "the capital")
    for again, consistent in (("the capital", True), ("the capital of spain", False), ("madrid", False), ("", False)):
        write_events(tmp_path / "events.jsonl", [heard, Event(EventKind.ANSWER_TEXT, over + 600, again)])
        row = judge(scene, tmp_path, Loudness(), lambda pcm: "")  # type: ignore[arg-type]
        assert row["consistent"] is consistent, again
    assert recalls("a b", "a b c d", True) and not recalls("a", "a b c", True) and not recalls("a d", "a b c d", True)
    assert recalls("a x", "a b", False) and not recalls("x y", "a b", False) and not recalls("a b c d", "a b", False)


def test_a_pause_never_follows_what_is_a_question_already() -> None:
    for index in range(12):
        first = render(SceneKind.PAUSE, index, 3, VOICES).spans[0]
        assert not is_whole_question(first.text), first
    for whole in ("what comes after twenty", "repeat after me dog", "hello", "what is six plus seven"):
        assert is_whole_question(whole)
    for part in ("what comes after", "what is six plus", "what is the capital", "if today is monday"):
        assert not is_whole_question(part)


def test_the_questions_of_a_scene_stand_by_themselves() -> None:
    for kind in (SceneKind.QUESTION, SceneKind.INTERRUPTION):
        for index in range(0, 40):
            for which in range(2):
                key = index * 2 + which
                assert MATERIAL.question(5, key, long=kind is SceneKind.INTERRUPTION).dialogue.before is None


def test_a_tick_that_takes_too_long_makes_the_next_ones_late() -> None:
    assert lateness([10, 100, 50, 10], 80) == [10, 100, 70, 10]


def test_a_session_can_do_without_some_of_its_parts() -> None:
    config = session_without(SessionConfig(), ["speculation", "monitor", "words", "echo"])
    assert config.duplex.speculate_ms == 0 and not config.monitor and not config.word_monitor and config.echo == 1.0
    assert session_without(SessionConfig(), [""]) == SessionConfig()
    with pytest.raises(DuologueError, match="without 'ears'; it can without speculation, monitor, words, echo"):
        session_without(SessionConfig(), ["ears"])


def test_an_echo_reaches_the_microphone(tmp_path: Path) -> None:
    """What the loudspeaker says is heard again, later and fainter: louder echoes are answered by a naive session."""
    scene = render(SceneKind.ECHO, 0, 0, VOICES)
    write_scene(scene, tmp_path)
    heard: list[np.ndarray] = []

    class Listening(Loudness):
        def step(self, x: Any, state: Any) -> Any:
            heard.append(x[0].numpy().copy())
            return super().step(x, state)

    play(tiny_assistant(), scene, tmp_path, SessionConfig(echo=1.0), Listening())  # nothing is taken out
    microphone, loudspeaker = np.concatenate(heard), read_audio(tmp_path / "output.wav")
    assert scene.echo is not None
    delay = scene.echo.delay_ms * 16 + 1_280  # and the frame in which it is played
    wanted = np.zeros(len(scene.pcm))
    size = 2 * len(loudspeaker)
    back = np.fft.irfft(np.fft.rfft(loudspeaker, size) * np.fft.rfft(scene.echo.response(), size))
    wanted[delay:] = back[: len(scene.pcm) - delay]
    wanted = np.clip(scene.pcm + wanted, -1, 1)
    assert np.abs(wanted - scene.pcm).max() > 0.01 and np.abs(microphone[: len(wanted)] - wanted).max() < 1e-3


def test_the_suite_goes_on_where_it_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("duologue.checkpoints.importers.silero_vad.load_vad", Loudness)
    monkeypatch.setattr(duplex_suite, "find_recogniser", lambda *_: lambda pcm: SAID)
    kinds = ("question", "pause", "noise", "stop", "recall", "echo")
    settings = {"model": tiny_assistant(), "voices": "espeak:en-us+f5", "quiet": True, "kinds": kinds}
    report = duplex_suite.run(out=tmp_path / "a", scenes=1, **settings)
    assert report["figures"]["valid"]["question"] == 1 and report["figures"]["question_taken"] == 1.0
    assert report["figures"]["endpoint_ms"]["p50"] is not None and report["figures"]["tick_ms"]["p99"] > 0
    page = (tmp_path / "a" / "report.html").read_text()
    assert page.count('<div class="dialogue">') == len(report["rows"]) and "http" not in page and "<script" not in page
    assert page.count("<audio") == 2 * len(report["rows"]) and "question taken" in page
    lines = (tmp_path / "a" / "judged.jsonl").read_text().splitlines()
    (tmp_path / "a" / "judged.jsonl").write_text("\n".join(lines[:4]) + "\n" + lines[4][:20])
    again = duplex_suite.run(out=tmp_path / "a", scenes=1, **settings)
    assert again["rows"] == report["rows"] and json.loads((tmp_path / "a" / "report.json").read_text())["rows"]
    assert report["settings"]["model"] == {"name": None, "sha256": None}
    with pytest.raises(DuologueError, match="a holds figures of another without"):
        duplex_suite.run(out=tmp_path / "a", scenes=1, without=("monitor",), **settings)
    # Another system's outputs: judged without playing anything; one that is missing is named, and in no figure.
    foreign = tmp_path / "b"
    assert duplex_suite.run(out=foreign, scenes=1, export=True, **settings) == {"scenes": len(report["rows"]) - 1}
    for scene in sorted(foreign.iterdir()):
        (scene / "output.wav").write_bytes((tmp_path / "a" / scene.name / "output.wav").read_bytes())
    next(foreign.glob("noise-*/output.wav")).unlink()
    judged = duplex_suite.run(outputs=foreign, out=tmp_path / "c", model="nobody", quiet=True)
    assert judged["figures"]["question_taken"] == 1.0 and judged["figures"]["endpoint_ms"]["p50"] is None
    assert judged["figures"]["valid"]["noise"] == 0
    (broken,) = judged["broken"]
    assert broken["id"].startswith("noise-") and re.search(r"there is no .*output\.wav: play", broken["reason"])
    assert {entry["id"] for entry in judged["metrics"]} >= {"question_taken", "pause_taken_early"}
    with pytest.raises(DuologueError, match="holds no scenes"):
        duplex_suite.run(outputs=tmp_path, out=tmp_path / "d", quiet=True)
    with pytest.raises(DuologueError, match="no preset 'hasty'"):
        duplex_suite.run(out=tmp_path / "e", preset="hasty", **settings)


def test_only_some_kinds_of_scenes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("duologue.checkpoints.importers.silero_vad.load_vad", Loudness)
    monkeypatch.setattr(duplex_suite, "find_recogniser", lambda *_: lambda pcm: SAID)
    settings = {"model": tiny_assistant(), "voices": "espeak:en-us+f5", "quiet": True, "scenes": 1}
    report = duplex_suite.run(out=tmp_path / "a", kinds=("echo", "echo_interruption"), **settings)
    assert [row["kind"] for row in report["rows"]] == ["echo", "echo_interruption"] and not report["broken"]
    assert "echo_interrupted" in {entry["id"] for entry in report["metrics"]}
    with pytest.raises(DuologueError, match="no scenes of kind 'ecko'; the kinds are question, pause, "):
        duplex_suite.run(out=tmp_path / "b", kinds=("ecko",), **settings)


@pytest.mark.parametrize("kind", ["spoken", "joined"])
def test_questions_of_ones_own(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every kind of scene is measured; without slots no answer is called right; notes are in the report. A joined model
    of whole clips is measured as well, and reads the system prompt."""
    monkeypatch.setattr("duologue.checkpoints.importers.silero_vad.load_vad", Loudness)
    monkeypatch.setattr(duplex_suite, "find_recogniser", lambda *_: lambda pcm: SAID)
    model = tiny_assistant() if kind == "spoken" else brief(chat_assistant())
    system: list[str] = []
    begin = ChatPrompt.begin
    monkeypatch.setattr(ChatPrompt, "begin", lambda self, text, tools: system.append(text) or begin(self, text, tools))
    entry = {"system": "Be brief.", "turns": [{"text": "who is there", "reply": "me"}]}
    (tmp_path / "own.jsonl").write_text(json.dumps(entry) + "\n")
    report = duplex_suite.run(
        model=model, out=tmp_path / "a", data=tmp_path / "own.jsonl", voices="espeak:en-us+f5", scenes=1, quiet=True
    )
    assert not report["broken"] and {row["kind"] for row in report["rows"]} == {kind.value for kind in SceneKind}
    names = {metric["id"] for metric in report["metrics"]}
    assert "question_taken" in names and not {name for name in names if name.endswith("_right")}
    assert report["settings"]["data"].endswith("own.jsonl")
    assert "no answer has 6 words to be talked over" in (tmp_path / "a/report.html").read_text()
    assert kind == "spoken" or "Be brief." in system


def test_figures_of_nothing_are_none() -> None:
    found = summarise([])
    assert found["question_taken"] is None and found["stop_ms"]["p50"] is None and found["tick_ms"]["p99"] is None
