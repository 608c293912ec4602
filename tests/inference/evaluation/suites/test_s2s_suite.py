"""The evaluator: figures from rows, resuming, settings, and a tiny model measured from end to end."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from chat_server import Messages, serving
from tiny_assistant import HEARD, SAID, tiny_assistant
from tiny_chat import brief, chat_assistant

pytest.importorskip("jiwer")

from duologue.data_prep.datasets.question_sets import question_set
from duologue.inference.assistant.assistant import Assistant
from duologue.inference.evaluation.judges import speech as speech_judge
from duologue.inference.evaluation.judges.endpoint import JudgeConfig
from duologue.inference.evaluation.judges.slots import is_right
from duologue.inference.evaluation.metrics.s2s import summarise
from duologue.inference.evaluation.suites import s2s as s2s_suite
from duologue.inference.evaluation.suites.s2s import run
from duologue.model.errors import DuologueError


def a_row(**changes: object) -> dict:
    timings = {"compute_delay_ms": 100.0, "first_word_ms": 10.0, "real_time_factor": 0.1}
    row = {
        "voice": "flite:awb", "category": "arithmetic", "question": "two plus two", "transcript": "two plus two",
        "reply": "two plus two is four", "right": True, "heard": "two plus two is four", "right_by_ear": True,
        "synthesiser_heard": "two plus two is for", "timings": timings, "peak_rss_mib": 500.0, "failed": None,
    }  # fmt: skip
    return row | changes


def test_figures_from_rows() -> None:
    slow = {"compute_delay_ms": 300.0, "first_word_ms": 30.0, "real_time_factor": 0.3}
    rows = [
        a_row(),
        a_row(
            voice="flite:slt", right=False, right_by_ear=False, transcript="two plus", timings=slow, peak_rss_mib=600.0
        ),
        a_row(voice="flite:slt", category="spelling", heard="two plus is four"),
        a_row(category="spelling", failed="no voice"),
    ]
    found = summarise(rows)
    assert found["overall"]["questions"] == 3 and found["failed"] == 1
    assert found["overall"]["right"] == pytest.approx(2 / 3)
    assert found["overall"]["transcript_wer"] == pytest.approx(1 / 9)
    assert found["by_voice"]["flite:awb"] == {
        "questions": 1, "right": 1.0, "right_by_ear": 1.0, "transcript_wer": 0.0, "transcript_exact": 1.0
    }  # fmt: skip
    assert found["by_category"]["arithmetic"]["right"] == 0.5
    assert found["by_voice_and_category"]["flite:slt"]["spelling"]["questions"] == 1
    assert "spelling" not in found["by_voice_and_category"]["flite:awb"]
    assert found["reply_speech"]["wer"] == pytest.approx(1 / 15)
    assert found["reply_speech"]["synthesiser_wer"] == pytest.approx(3 / 15)
    assert found["compute_delay_ms"]["p50"] == 100 and found["compute_delay_ms"]["max"] == 300
    assert found["peak_rss_mib"] == 600


def test_figures_of_a_model_without_a_voice() -> None:
    silent = {"compute_delay_ms": None, "first_word_ms": 10.0, "real_time_factor": 0.1}
    found = summarise([a_row(heard=None, synthesiser_heard=None, right_by_ear=False, timings=silent)])
    assert found["reply_speech"]["wer"] is None and found["compute_delay_ms"]["p50"] is None
    assert summarise([])["overall"]["right"] is None


def test_unknown_names(tmp_path: Path) -> None:
    for wrong in ({"profile": "long"}, {"voices": "nobody"}):
        with pytest.raises(DuologueError, match="unknown"):
            run(model="nano", out=tmp_path, **wrong)


def test_questions_are_held_out_and_distinct() -> None:
    dialogues = list(question_set("nano").distinct(0, 300, "test"))
    assert len({(dialogue.before, dialogue.question) for dialogue in dialogues}) == 300
    assert len({dialogue.category for dialogue in dialogues}) >= 8
    assert dialogues[:50] == list(question_set("nano").distinct(0, 50, "test"))


@pytest.fixture(scope="module")
def assistant() -> Assistant:
    return tiny_assistant()


class QuickRecogniser:
    """Hears the first half of what the tiny model says, whatever it is given (the real one is slow on babble)."""

    name = "a quick recogniser"

    def __call__(self, waveform: np.ndarray) -> str:
        assert waveform.dtype == np.float32 and len(waveform) > 1_000
        return "it makes"


def quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the real recogniser and the networks that judge sound (test_quality.py has them)."""
    monkeypatch.setattr(s2s_suite, "find_recogniser", lambda *_: QuickRecogniser())
    monkeypatch.setattr(speech_judge, "unreferenced", lambda wave: {"dnsmos": [float(np.abs(wave).mean()), 1.0]})
    monkeypatch.setattr(speech_judge.SpeechJudge, "speaker", None)


def test_a_run_its_files_and_its_resumption(
    assistant: Assistant, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    quickly(monkeypatch)
    settings = {"model": assistant, "out": tmp_path, "voices": "espeak:en,espeak:en-us+f5", "questions": 4, "seed": 5}
    report = run(quiet=True, **settings)
    assert report == json.loads((tmp_path / "report.json").read_text())
    rows = report["rows"]
    assert [row["voice"] for row in rows] == ["espeak:en", "espeak:en-us+f5"] * 2
    assert all(row["transcript"] == HEARD and row["reply"] == SAID for row in rows)
    assert all((tmp_path / "replies" / f"{at:04d}.wav").stat().st_size > 1_000 for at in range(4))
    assert report["figures"]["overall"]["questions"] == 4
    assert report["figures"]["reply_speech"]["wer"] == pytest.approx(3 / 5)
    assert report["figures"]["compute_delay_ms"]["p50"] > 0 and report["figures"]["peak_rss_mib"] > 100
    assert report["environment"]["versions"]["torch"] and report["environment"]["cores"] >= 1
    found = {entry["id"]: entry for entry in report["metrics"]}
    assert found["reply_wer"]["value"] == pytest.approx(3 / 5) and found["reply_wer"]["count"] == 4
    assert found["dnsmos"]["value"] > 0 and not report["broken"]
    assert found["decode_text_s"]["value"] > 0 and found["decode_speech_s"]["value"] > 0
    page = (tmp_path / "report.html").read_text()
    assert "http" not in page and "<script" not in page and "Chunk size" in page and "<audio" in page
    assert "LLaMA-Omni" in (tmp_path / "summary.md").read_text()

    # broken off in the middle of the third row: two rows stay, two are asked again
    path = tmp_path / "asked.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[:2]) + lines[2][:40])
    (tmp_path / "judged.jsonl").unlink()
    asked: list[int] = []
    original = s2s_suite._ask
    monkeypatch.setattr(s2s_suite, "_ask", lambda *given: asked.append(given[2]) or original(*given))
    again = run(quiet=True, **settings)
    assert asked == [2, 3] and path.read_text().splitlines(keepends=True)[:2] == lines[:2]
    assert again["figures"]["overall"] == report["figures"]["overall"]

    with pytest.raises(DuologueError, match="figures of another seed: choose another folder"):
        run(quiet=True, **(settings | {"seed": 6}))


def test_questions_of_ones_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A joined model that writes no transcripts: only what has a slot can be right; a judge reads what was said before;
    what cannot be told is in no figure."""
    quickly(monkeypatch)
    entries = [
        {"turns": [{"text": "name a colour", "reply": "red is one"}, {"text": "and another", "reply": "blue"}]},
        {"turns": [{"text": "what is two plus two", "reply": "it is four", "slot": "four"}]},
    ]
    (tmp_path / "mine.jsonl").write_text("".join(json.dumps(entry) + "\n" for entry in entries))
    read: list[str] = []

    def grade(messages: Messages) -> str:
        read.append(messages[-1]["content"])
        return "content=4 style=2"

    with serving(grade) as server:
        report = run(
            model=brief(chat_assistant()), data=tmp_path / "mine.jsonl", out=tmp_path / "out", voices="espeak:en-us",
            judge=JudgeConfig(url=server.url, model="toy"), quiet=True,
        )  # fmt: skip
    assert [row["question"] for row in report["rows"]] == ["name a colour", "and another", "what is two plus two"]
    assert [row["right"] for row in report["rows"]] == [None, None, False]
    found = {entry["id"]: entry for entry in report["metrics"]}
    assert found["right"]["count"] == 1 and found["content_text"]["value"] == 4 and "transcript_wer" not in found
    assert report["figures"]["overall"]["transcript_wer"] is None and report["figures"]["overall"]["right"] == 0
    second = report["rows"][1]
    ((asked, answered),) = second["past"]
    assert asked == "name a colour" and answered == second["said_before"]
    assert any(f"User: {asked}\nAssistant: {answered}\nUser: and another" in text for text in read)
    assert report["settings"]["split"] == "all" and report["settings"]["questions"] == 3
    page = (tmp_path / "out/report.html").read_text()
    assert "Instructions, in text and in speech" in page and "By category" not in page


def test_right_in_any_script() -> None:
    assert is_right("法国的首都是巴黎。", "它是巴黎", "巴黎") and not is_right("法国的首都是柏林", "它是巴黎", "巴黎")
    assert is_right("Die Hauptstadt heißt Köln.", "Es ist Köln", "Köln")
    assert is_right("он в Москве", "в Москве", "москве")


def test_one_of_several_answers_will_do() -> None:
    for reply, right in (("It is Bern.", True), ("In Zurich, I think.", True), ("It is Bernard.", False)):
        assert is_right(reply, "", "Bern|Zurich") is right


def test_a_voice_that_fails_is_recorded(assistant: Assistant, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original = s2s_suite.synthesise

    def fails(text: str, voice: s2s_suite.Voice) -> object:
        if voice.name == "en-us":
            raise s2s_suite.SynthesisError("it lost its voice")
        return original(text, voice)

    monkeypatch.setattr(s2s_suite, "synthesise", fails)
    quickly(monkeypatch)
    report = run(model=assistant, out=tmp_path, voices="espeak:en-us,espeak:en-us+f5", questions=2, quiet=True)
    assert report["figures"]["failed"] == 1 and report["rows"][0]["failed"] == "it lost its voice"
    assert report["broken"] == [{"id": "0000", "reason": "it lost its voice"}]
    assert "1 inputs could not be measured" in (tmp_path / "report.html").read_text()
    assert report["figures"]["overall"]["questions"] == 1


@pytest.mark.slow
@pytest.mark.programs
def test_by_pocketsphinx_and_printed(assistant: Assistant, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("pocketsphinx")
    report = run(model=assistant, out=tmp_path, voices="espeak:en-us", questions=1)
    speech = report["figures"]["reply_speech"]
    assert speech["replies"] == 1 and speech["wer"] is not None
    if shutil.which("flite"):
        assert speech["synthesiser_wer"] < 0.5, "the recogniser understands the synthesiser"
    else:
        assert speech["synthesiser_wer"] is speech["difference"] is None
    printed = " ".join(capsys.readouterr().out.split())
    assert "Compute delay" in printed and "Answered right, by" in printed
    assert "report.html" in printed.replace(" ", ""), "a long path goes on in the next line"
    assert {"dnsmos", "plcmos"} <= {entry["id"] for entry in report["metrics"]}
