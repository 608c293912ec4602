"""`duologue bench streaming`: what is counted is certain, what is timed is there; ours and the reference's agree."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from duologue.inference.bench.schedules import ScheduleCost, TimedSpeechDecoder, sizes_of, with_width
from duologue.inference.bench.streaming import arithmetic, measure, run
from duologue.model.errors import DuologueError


@pytest.mark.parametrize("width", [256, 1024])
def test_a_reply_of_100_tokens_takes_a_25th_of_the_arithmetic(width: int) -> None:
    """At LLaMA-Omni's 25 frames a token, full attention; timed on a machine at rest by the command itself."""
    config = with_width(sizes_of("nano"), width).unit_decoder
    assert config.upsample == 25
    counts = arithmetic(config, 100)
    assert counts["ratio"] > 25
    assert 2.0 < counts["ours"] / arithmetic(config, 50)["ours"] < 2.6, "ours must grow almost linearly"


@pytest.mark.slow
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("width", [256, 1024])
def test_a_reply_of_100_tokens_takes_a_25th_of_the_time(width: int) -> None:
    """The same, timed, both schedules in one run: python -m pytest tests/inference/test_bench_streaming.py -m slow"""
    found = measure(with_width(sizes_of("nano"), width), 100, torch.device("cpu"), torch.float32, ScheduleCost())
    grows = {name: row["exponent"] for name, row in found["schedules"].items()}
    assert found["ratio"] >= 25, found["ratio"]
    assert grows["ours, no attention to the past"] < 1.15 and grows["ours"] < 1.5 and grows["reference"] > 1.75, grows


def test_both_schedules_decode_the_same_frames() -> None:
    sizes = with_width(sizes_of("nano"), 64)
    torch.manual_seed(0)
    speech = TimedSpeechDecoder(sizes, ScheduleCost()).eval()
    hidden = torch.randn(1, 6, 64)
    with torch.no_grad():
        state = speech.unit_decoder.init_state()
        steps = [speech.unit_decoder.step(hidden[:, t : t + 1], state, hidden[:, t : t + 1]) for t in range(6)]
        whole = speech.unit_decoder(hidden, hidden)
        assert (torch.cat(steps, dim=1) - whole).abs().max() < 1e-5
        units = speech.set_units(6, hidden.device)
        assert speech.vocoder.predict_durations(units).tolist() == [[2] * 48]
    ours, reference = speech.ours(hidden), speech.reference(hidden)
    assert len(ours.spent["unit_decoder"]) == len(reference.spent["vocoder"]) == 6
    assert ours.first_audio_token is not None and reference.first_audio_token == 5  # 40 units of 8 a token


def test_measure_says_what_each_schedule_costs() -> None:
    found = measure(with_width(sizes_of("nano"), 64), 16, torch.device("cpu"), torch.float32, ScheduleCost())
    assert set(found["schedules"]) == {"ours", "ours, band of 20", "ours, no attention to the past", "reference"}
    for row in found["schedules"].values():
        assert row["unit_decoder_s"] > 0 and row["vocoder_s"] > 0 and len(row["token_ms"]) == 16
    assert all(
        0 < fraction < 10
        for stage in found["reached"].values()
        for fraction in (stage["arithmetic"], stage["bandwidth"])
    )
    assert found["flops"]["ratio"] > 5


def test_the_command_writes_table_and_plot(tmp_path: Path) -> None:
    lines: list[str] = []
    run(widths=(64,), tokens=8, out=tmp_path, say=lines.append)
    report = json.loads((tmp_path / "report.json").read_text())
    page = (tmp_path / "report.html").read_text()
    assert report["widths"][0]["width"] == 64 and report["llm"]["prefill_ms"] > 0
    assert any("times ours" in line for line in lines) and page.count('class="label"') == 4 and "http" not in page


def test_what_it_refuses() -> None:
    for preset, widths, device, dtype, message in (
        ("micro", (), "cpu", "float32", r"no preset 'micro'; it must be nano or llama-omni-8b"),
        ("nano", (250,), "cpu", "float32", r"width 250 must be a multiple of the 64 channels of a head"),
        ("nano", (), "tpu9", "float32", r"device 'tpu9' cannot be used"),
        ("nano", (), "meta", "float32", r"device 'meta' cannot be used"),
        ("nano", (), "cpu", "int4", r"dtype is 'int4'; it must be float32"),
    ):
        with pytest.raises(DuologueError, match=message):
            run(preset=preset, widths=widths, tokens=8, device=device, dtype=dtype, out=None, say=print)


@pytest.mark.gpu
def test_llama_omni_on_a_gpu(tmp_path: Path) -> None:
    run(preset="llama-omni-8b", tokens=32, device="cuda", dtype="bfloat16", out=tmp_path, say=print)
    found = json.loads((tmp_path / "report.json").read_text())
    assert found["widths"][0]["ratio"] > 1 and found["llm"]["prefill_ms"] > 0
