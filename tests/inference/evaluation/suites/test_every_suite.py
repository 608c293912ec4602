"""Every suite for systems that have nothing in common, tiny and random: an audio language model of transformers and a
cascade; models of Duologue's own parts are in test_own_models.py. Nothing fails, and nothing is "not measured"."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from any_model import tiny_llm
from tiny_assistant import Loudness
from tiny_qwen2_audio import tiny_qwen2_audio

pytest.importorskip("jiwer")

from duologue.data_prep.audio import write_wav
from duologue.inference.assistant import loading
from duologue.inference.assistant.assistant import Assistant
from duologue.inference.assistant.cascade import Cascade
from duologue.inference.evaluation.inputs.scenes import SceneKind
from duologue.inference.evaluation.judges import speech as speech_judge
from duologue.inference.evaluation.suites import (
    asr,
    audio_analysis,
    duplex,
    full_duplex_bench,
    latency,
    s2s,
    voicebench,
)
from duologue.model.audio_llm.audio_llm import AudioLLM

VOICE = "espeak:en-us"
QUESTIONS: list[dict[str, Any]] = [
    {"system": "Be brief.", "turns": [{"text": "Who's there?", "reply": "It's me."}, {"text": "Who?", "reply": "Me!"}]},
    {"turns": [{"text": "What is two plus two?", "reply": "It is four.", "slot": "four"}]},
    {"turns": [{"text": "Name a colour."}]},
    {"turns": [{"text": "It is late.", "respond": False}]},
]


@pytest.fixture(scope="module", params=["audio_llm", "cascade"])
def system(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Assistant:
    folder = tmp_path_factory.mktemp(request.param)
    if request.param == "audio_llm":
        found = loading.load(str(tiny_qwen2_audio(folder)))
        assert isinstance(found.model, AudioLLM)
        found._vad, found.model.ends = Loudness(), {*found.model.ends, *range(6, 262, 4)}
        return found
    tiny_llm(folder, template="chatml", max_position_embeddings=2048)
    (folder / "cascade.json").write_text(json.dumps({"cascade": {"llm": "llama", "voice": VOICE}}))
    found = loading.load(str(folder))
    assert isinstance(found.model, Cascade)
    found._vad, found.model.recogniser = Loudness(), Told()  # pocketsphinx takes long over noise
    found.model.prompt.ends = frozenset({found.model.layout.eos, *range(0, 400, 6)})
    return found


@pytest.fixture
def questions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A question set; and nothing slow: no recogniser of replies, no networks that judge sound."""
    monkeypatch.setattr("duologue.checkpoints.importers.silero_vad.load_vad", Loudness)
    for suite in (s2s, duplex, full_duplex_bench):
        monkeypatch.setattr(suite, "find_recogniser", lambda *_: Told())
    monkeypatch.setattr(speech_judge, "unreferenced", lambda wave: {"dnsmos": [1.0, 1.0]})
    monkeypatch.setattr(speech_judge.SpeechJudge, "speaker", None)
    path = tmp_path / "mine.jsonl"
    path.write_text("".join(json.dumps(entry) + "\n" for entry in QUESTIONS))
    return path


class Told:
    """A recogniser that hears one word."""

    name = "told"

    def __call__(self, waveform: np.ndarray) -> str:
        return "hello"

    def words(self, waveform: np.ndarray) -> list[Any]:
        return []


def ids(report: dict[str, Any]) -> set[str]:
    assert not report["broken"], report["broken"]
    return {metric["id"] for metric in report["metrics"]}


def test_questions(system: Assistant, questions: Path, tmp_path: Path) -> None:
    report = s2s.run(model=system, data=questions, out=tmp_path / "out", voices=VOICE, quiet=True)
    found = ids(report)
    assert {"right", "decode_text_s", "decode_speech_s"} <= found
    assert ("compute_delay_ms_p50" in found) == system.model.speaks
    assert ("transcript_wer" in found) == system.model.transcribes
    assert [row["question"] for row in report["rows"]] == [
        "Who's there?", "Who?", "What is two plus two?", "Name a colour."
    ]  # fmt: skip


def test_scenes(system: Assistant, questions: Path, tmp_path: Path) -> None:
    report = duplex.run(model=system, data=questions, out=tmp_path / "out", voices=VOICE, scenes=1, quiet=True)
    assert "question_taken" in ids(report) and len(report["rows"]) == len(SceneKind)
    names = {row["kind"]: row["name"] for row in report["rows"]}
    said = json.loads((tmp_path / "out" / names["statement"] / "scene.json").read_text())
    assert [span["text"] for span in said["spans"]] == ["It is late."], "the set's own"
    assert report["figures"]["session"]


def test_delays(system: Assistant, questions: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("LENGTHS_S", (1, 2)), ("TOKENS", (2, 4)), ("_REPEATS", 1), ("_ROOM_S", 4.0)):
        monkeypatch.setattr(latency, name, value)
    report = latency.run(model=system, data=questions, out=tmp_path / "out", voices=VOICE, questions=1, quiet=True)
    found = ids(report)
    assert {"late", "endpoint_ms_p50"} <= found and ("total_ms_p50" in found) == system.model.speaks
    assert len(report["figures"]["growth"]["question_delay"]) == 2
    assert "The session: " in (tmp_path / "out/report.html").read_text()


def test_transcripts(system: Assistant, questions: Path, tmp_path: Path) -> None:
    report = asr.run(model=system, data=questions, out=tmp_path / "out", voices=VOICE, limit=1, quiet=True)
    assert ids(report) == {"wer", "cer"}


def test_benchmarks(system: Assistant, questions: Path, tmp_path: Path) -> None:
    clips = tmp_path / "clips"
    clips.mkdir()
    write_wav(clips / "a.wav", 0.1 * np.random.default_rng(0).standard_normal(8_000), 16_000)
    (clips / "manifest.jsonl").write_text('{"audio": "a.wav", "label": "noise"}\n')
    for written in (True, False):
        out = tmp_path / f"sounds_{written}"
        assert ids(audio_analysis.run(model=system, data=clips, out=out, voices=VOICE, written=written, quiet=True))
    lines = [{"prompt": "p", "reference": "x", "audio": "a.wav"}, {"prompt": "p", "reference": "A", "audio": "a.wav"}]
    for name, line in zip(("sd-qa", "mmsu"), lines, strict=True):
        (clips / f"{name}.jsonl").write_text(json.dumps(line) + "\n")
    (clips / "manifest.jsonl").unlink()
    assert "choice" in ids(voicebench.run(model=system, data=clips, out=tmp_path / "voicebench", quiet=True))
    turn = tmp_path / "fdb/turn/1"
    turn.mkdir(parents=True)
    (turn / "input.wav").write_bytes((clips / "a.wav").read_bytes())
    (turn / "turn_taking.json").write_text('[{"timestamp": [0.4, 0.5]}]')
    report = full_duplex_bench.run(model=system, data=tmp_path / "fdb", out=tmp_path / "played", quiet=True)
    assert "turn_tor" in ids(report)
