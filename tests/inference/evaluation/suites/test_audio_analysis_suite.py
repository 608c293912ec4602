"""Labelled clips and multiple choice, each by the rule of its form."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from tiny_assistant import tiny_assistant

from duologue.data_prep.audio import write_wav
from duologue.inference.evaluation.suites import audio_analysis as suite
from duologue.inference.front_end import speech_segments
from duologue.inference.front_end.speech_segments import Recording
from duologue.model.errors import DuologueError


@pytest.mark.parametrize(
    ("reply", "letter"),
    [("A", "A"), ("B. a dog", "B"), ("The answer is C.", "C"), ("The answer is C", None), ("d", None), ("", None)],
)
def test_air_bench_letters(reply: str, letter: str | None) -> None:
    assert suite.air_bench_letter(reply) == letter


def test_mmau_matches() -> None:
    choices = ["a small dog", "a cat", "a big dog"]
    assert suite.mmau_matches("It is a small dog.", "a small dog", choices)
    assert not suite.mmau_matches("It is a dog.", "a small dog", choices), "a word is missing"
    assert not suite.mmau_matches("a small dog or a cat", "a small dog", choices), "another choice is named too"
    assert not suite.mmau_matches("", "a cat", choices)


def run(tmp_path: Path, name: str, text: str, **options: object) -> dict:
    (tmp_path / name).write_text(text)
    return suite.run(data=tmp_path / name, out=tmp_path / "out", quiet=True, **options)


def test_air_bench(tmp_path: Path) -> None:
    entry = {"path": "1.wav", "question": "what?", "choice_a": "dog", "choice_b": "cat", "answer_gt": "cat",
             "task_name": "Sound", "dataset_name": "X"}  # fmt: skip
    entries = [{**entry, "uniq_id": at, "response": reply} for at, reply in enumerate(["B. cat", "A.", "hm", None])]
    entries.append({**entry, "uniq_id": 9, "response": "A", "answer_gt": "cow"})
    report = run(tmp_path, "Foundation_meta.json", json.dumps(entries))
    assert report["metrics"][0]["value"] == pytest.approx(1 / 3) and report["metrics"][0]["count"] == 3
    assert {each["id"] for each in report["broken"]} == {"3", "9"}
    assert "none of its choices" in report["broken"][1]["reason"]


def test_mmau_and_another_systems_file(tmp_path: Path) -> None:
    entries = [{"id": "x", "audio_id": "1.wav", "question": "q", "choices": ["dog", "cat"], "answer": "cat", "task": t}
               | {"id": t} for t in ("sound", "music")]  # fmt: skip
    (tmp_path / "said.jsonl").write_text('{"id": "sound", "response": "a cat"}\n{"id": "music", "response": "a dog"}\n')
    report = run(tmp_path, "mmau.json", json.dumps(entries), outputs=tmp_path / "said.jsonl")
    assert {name: part[0]["value"] for name, part in report["parts"].items()} == {"sound": 1.0, "music": 0.0}
    assert report["figures"]["mean_over_categories"] == 0.5


def test_all_of_a_clip_is_heard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However soft it is beside the question, of which the detector would hear nothing else."""
    heard: list[int] = []

    def whole(model: object, waveforms: list[np.ndarray]) -> Recording:
        heard.extend(map(len, waveforms))
        return Recording(1.0, waveforms)

    monkeypatch.setattr(speech_segments, "whole", whole)
    monkeypatch.setattr(suite, "require", lambda engine: None)
    monkeypatch.setattr(suite, "synthesise", lambda text, voice: np.full(8_000, 9_000, np.int16))
    write_wav(tmp_path / "a.wav", 1e-3 * np.random.default_rng(0).standard_normal(16_000), 16_000)
    run(tmp_path, "manifest.jsonl", '{"audio": "a.wav", "set": "esc", "label": "dog"}\n', model=tiny_assistant())
    assert heard == [16_000 + 8_000 + 8_000], "the clip, a pause, the question"


def test_labels(tmp_path: Path) -> None:
    lines = [{"audio": "a.wav", "set": "esc", "label": "dog bark", "response": "that is a dog bark"},
             {"audio": "b.wav", "set": "esc", "label": "rain", "response": "a train"}, {"audio": "c.wav"}]  # fmt: skip
    report = run(tmp_path, "manifest.jsonl", "".join(json.dumps(line) + "\n" for line in lines))
    assert report["metrics"][0]["value"] == 0.5 and report["metrics"][0]["count"] == 2
    for text, reason in (("{}", "expected a list"), ("[{}]", "neither a label nor choices"), ("no", "is not JSON")):
        with pytest.raises(DuologueError, match=reason):
            run(tmp_path, "bad.json", text)
    with pytest.raises(DuologueError, match="there is no"):
        suite.run(data=tmp_path / "no", out=tmp_path / "x", quiet=True)
