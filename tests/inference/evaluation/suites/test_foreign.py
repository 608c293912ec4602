"""Replies of another system judged from its files; and a worse system is found worse by the right measure alone.

The slow test does it with nano's own replies, pocketsphinx, DNSMOS and PLCMOS, as a user would:
    python -m pytest tests/inference/evaluation/test_foreign.py -m slow
"""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from duologue.checkpoints.files import write_json_lines
from duologue.data_prep.audio import read_audio, write_wav
from duologue.inference.assistant import assistant as assistants
from duologue.inference.evaluation.inputs import foreign
from duologue.inference.evaluation.judges import speech as speech_judge
from duologue.inference.evaluation.suites import compare
from duologue.model.errors import DuologueError

COUNT = 14
NAMES = ("tom", "ann", "sam", "eve")


@dataclass
class LoudRecogniser:
    """Understands a reply whose quietest part is quiet: one with noise in it, never."""

    name: str = "by hand"

    def __call__(self, wave: np.ndarray) -> str:
        assert wave.dtype == np.float32
        number = round(float(np.abs(wave).max() * 100))
        return f"the number is {number}" if np.abs(wave[:800]).max() < 1e-3 else "the member"


def quality(wave: np.ndarray) -> dict[str, list[float]]:
    return {"dnsmos": [5.0 - min(4.0, 100 * float(np.abs(wave[:800]).mean())), 1.0]}


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(foreign, "find_recogniser", lambda *_: LoudRecogniser())
    monkeypatch.setattr(speech_judge, "unreferenced", quality)


def replies(folder: Path) -> list[dict[str, Any]]:
    """A system that is right, each reply as loud as its number."""
    folder.mkdir()
    entries = []
    for at in range(COUNT):
        number = 10 + at
        wave = np.concatenate([np.zeros(1_600, np.float32), np.full(4_000, number / 100, np.float32)])
        write_wav(folder / f"{at}.wav", wave, 16_000)
        question, reply = f"what number is {NAMES[at % 4]}", f"the number is {number}"
        texts = {"question": question, "transcript": question, "reply": reply, "answer": reply, "slot": str(number)}
        entries.append({"id": str(at), **texts, "compute_delay_ms": 100.0 + at})
    write_json_lines(folder / foreign.MANIFEST, entries)
    return entries


def worse(base: Path, folder: Path, how: str) -> Path:
    """A copy of a system with one fault: noise on its speech, transcripts of the next question, or late answers."""
    shutil.copytree(base, folder)
    path = folder / foreign.MANIFEST
    entries = [json.loads(line) for line in path.read_text().splitlines()]
    if how == "noise":
        rng = np.random.default_rng(0)
        for entry in entries:
            wave = read_audio(folder / f"{entry['id']}.wav")
            noise = 0.3 * np.sqrt(np.mean(wave**2)) * rng.standard_normal(len(wave))
            write_wav(folder / f"{entry['id']}.wav", wave + noise, 16_000)
    elif how == "shift":
        heard = [entry["transcript"] for entry in entries]
        for entry, other in zip(entries, [*heard[1:], heard[0]], strict=True):
            entry["transcript"] = other
    else:
        for entry in entries:
            entry["compute_delay_ms"] += 500
    write_json_lines(path, entries)
    return folder


def found_worse(a: Path, b: Path, out: Path) -> set[str]:
    (pair,) = compare.run([a, b], out, quiet=True)["pairs"]
    assert not [each for each in pair["differences"] if each["verdict"] in ("better", "differs")]
    return {each["metric"] for each in pair["differences"] if each["verdict"] == "worse"}


DELAY = {"compute_delay_ms_p50", "compute_delay_ms_p95"}
HEARD = {"reply_wer", "reply_cer", "right_by_ear", "dnsmos"}


@pytest.mark.usefixtures("quick")
def test_a_worse_system_is_worse_by_the_right_measure_and_no_more(tmp_path: Path) -> None:
    replies(tmp_path / "base")
    foreign.run(outputs=tmp_path / "base", out=tmp_path / "report-base", quiet=True)
    for how, wanted in (("noise", HEARD), ("shift", {"transcript_wer"}), ("delay", DELAY)):
        outputs = worse(tmp_path / "base", tmp_path / how, how)
        foreign.run(outputs=outputs, out=tmp_path / f"report-{how}", quiet=True)
        worst = found_worse(tmp_path / "report-base", tmp_path / f"report-{how}", tmp_path / f"compared-{how}")
        assert worst == wanted, how
    page = (tmp_path / "compared-noise/report.html").read_text()
    assert "worse" in page and "http" not in page and "<script" not in page
    with pytest.raises(DuologueError, match="two reports or more"):
        compare.run([tmp_path / "report-base"], tmp_path / "x", quiet=True)
    with pytest.raises(DuologueError, match=r"there is no .*nowhere"):
        compare.run([tmp_path / "report-base", tmp_path / "nowhere"], tmp_path / "x", quiet=True)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_a_worse_nano(root: Path, tmp_path: Path) -> None:
    if not (root / "checkpoints/nano/config.json").is_file():
        pytest.skip("the bundled model, checkpoints/nano, is not in this copy")
    from duologue.inference.evaluation.suites import s2s as s2s_suite

    base = tmp_path / "base"
    s2s_suite.run(out=base, export=True, voices="dev", questions=COUNT)
    entries = [json.loads(line) for line in (base / foreign.MANIFEST).read_text().splitlines()]
    nano = assistants.load("nano")
    nano.warm_up()
    for entry in entries:
        reply = nano.ask(base / f"{entry['id']}.question.wav")
        write_wav(base / f"{entry['id']}.wav", reply.waveform, reply.sample_rate)
        entry |= {
            "transcript": reply.transcript,
            "reply": reply.text,
            "compute_delay_ms": reply.timings.compute_delay_ms,
        }
    write_json_lines(base / foreign.MANIFEST, entries)
    foreign.run(outputs=base, out=tmp_path / "report-base", quiet=True)
    may = {"noise": {"reply_wer", "reply_cer", "right_by_ear", "dnsmos", "dnsmos_signal", "dnsmos_background",
                     "dnsmos_p808", "plcmos"}, "shift": {"transcript_wer"}, "delay": DELAY}  # fmt: skip
    must = {"noise": {"dnsmos", "dnsmos_background"}, "shift": {"transcript_wer"}, "delay": DELAY}
    for how in may:
        foreign.run(outputs=worse(base, tmp_path / how, how), out=tmp_path / f"report-{how}", quiet=True)
        worst = found_worse(tmp_path / "report-base", tmp_path / f"report-{how}", tmp_path / f"compared-{how}")
        assert must[how] <= worst <= may[how], how


@pytest.mark.usefixtures("quick")
def test_what_cannot_be_read_is_named_and_in_no_figure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(assistants, "load", lambda *_: pytest.fail("a model of ours was loaded"))
    replies(tmp_path / "base")
    (tmp_path / "base/3.wav").write_text("not a recording")
    (tmp_path / "base/5.wav").unlink()
    report = foreign.run(outputs=tmp_path / "base", out=tmp_path / "out", quiet=True)
    assert [entry["id"] for entry in report["broken"]] == ["3", "5"]
    right = next(entry for entry in report["metrics"] if entry["id"] == "right")
    assert right["value"] == 1.0 and right["count"] == COUNT - 2
    for name in ("report.html", "summary.md"):
        text = (tmp_path / "out" / name).read_text()
        assert "2 inputs could not be measured" in text and "3.wav is not a recording" in text
    # It goes on where it stopped, and refuses the figures of something else.
    lines = (tmp_path / "out/judged.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "out/judged.jsonl").write_text("".join(lines[:6]) + lines[6][:15])
    assert foreign.run(outputs=tmp_path / "base", out=tmp_path / "out", quiet=True)["rows"] == report["rows"]
    with pytest.raises(DuologueError, match="figures of another seed"):
        foreign.run(outputs=tmp_path / "base", out=tmp_path / "out", seed=1, quiet=True)


@pytest.mark.usefixtures("quick")
def test_a_folder_of_wavs_and_texts(tmp_path: Path) -> None:
    replies(tmp_path / "base")
    (tmp_path / "base" / foreign.MANIFEST).unlink()
    (tmp_path / "base/0.txt").write_text("the number is 10\n")
    report = foreign.run(outputs=tmp_path / "base", out=tmp_path / "out", quiet=True)
    found = {entry["id"]: entry for entry in report["metrics"]}
    assert found["reply_wer"]["count"] == 1 and found["reply_wer"]["value"] == 0.0
    assert found["dnsmos"]["count"] == COUNT and "right" not in found and "transcript_wer" not in found
    with pytest.raises(DuologueError, match="there is no folder"):
        foreign.run(outputs=tmp_path / "no", out=tmp_path / "x", quiet=True)
