"""Delays of a session in real time, of which the parts add up; a reply that goes on; what is refused before it runs."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
from pathlib import Path

import numpy as np
import pytest
from tiny_assistant import Loudness, tiny_assistant

from duologue.checkpoints.settings import read_settings, settings_of
from duologue.inference.evaluation import main
from duologue.inference.evaluation.metrics.chunk_sizes import latency
from duologue.inference.evaluation.suites.latency import play_in_real_time, reply_costs
from duologue.inference.session.session import Session
from duologue.inference.session.state import SessionConfig
from duologue.model.errors import DuologueError


def test_parts_add_up() -> None:
    wave = 0.1 * np.random.default_rng(0).standard_normal(12_800).astype(np.float32)
    row = play_in_real_time(Session(tiny_assistant(), SessionConfig(), Loudness()), wave)
    assert row["answered"]
    parts = {name: value / weight for name, (value, weight) in row["measures"].items()}
    assert parts["endpoint_ms"] + parts["compute_ms"] == pytest.approx(parts["total_ms"])
    assert parts["total_ms"] >= parts["endpoint_ms"] > 0 and 0 <= parts["late"] <= 1
    assert parts["total_ms"] > 200, "it waits, in real time, before it is sure that the user has finished"


def test_a_long_reply() -> None:
    costs = reply_costs(tiny_assistant(), 40)
    assert len(costs) == 40 and all(b > a > 0 for a, b in itertools.pairwise(costs))


def test_chunk_sizes() -> None:
    timeline = [[10.0, 1, 0], [30.0, 1, 6], [50.0, 1, 9], [90.0, 0, 3]]
    assert latency(timeline, 5) == (30.0, 2) and latency(timeline, 10) == (50.0, 3)
    assert latency(timeline, 18) == (90.0, 3) and latency(timeline, None) == (90.0, 3)
    assert latency(timeline, 80) == (90.0, 3), "a reply that is shorter than a chunk"
    assert latency([[10.0, 1, 0]], 10) is None, "no speech"


def test_without_a_voice_it_says_the_same() -> None:
    assistant = tiny_assistant()
    mute = type(assistant)(assistant.model.without_voice(), assistant.tokenizer)
    wave = np.zeros(8_000, np.float32)
    reply = mute.ask((16_000, wave))
    assert reply.text == assistant.ask((16_000, wave)).text and not len(reply.waveform) and not reply.units
    assert assistant.model.unit_decoder is not None, "the model itself keeps its voice"


@pytest.mark.parametrize(
    ("suite", "words", "options", "reason"),
    [
        ("s3s", [], {}, r"unknown suite 's3s' \(did you mean s2s\?\)"),
        (
            "codec",
            ["voices=dev"],
            {"data": Path("x")},
            "key 'voices' for suite codec; there are: language, limit, recogniser, seed",
        ),
        ("codec", [], {}, "codec needs --data"),
        ("latency", [], {"outputs": Path("x")}, "latency has no use for --outputs"),
        ("s2s", [], {"model": "nano", "outputs": Path("x")}, "and not both"),
        ("s2s", ["judge.url=http://x/v1"], {}, r"suite s2s needs judge\.model=…"),
        ("s2s", ["questions=0"], {}, "questions is 0; it must be at least 1"),
        ("asr", [], {"outputs": Path("x"), "data": Path("y")}, "there is no y"),  # beam is 0, as it usually is
        ("compare", ["a", "seed=1"], {}, "two reports or more"),
        ("s2s", ["a"], {}, "'a', given to suite s2s, must be KEY=VALUE"),
        ("s2s", ["--profile", "card"], {}, "'--profile', given to suite s2s, must be KEY=VALUE, profile=…"),
        ("latency", ["profile=long"], {}, "unknown profile 'long'"),
    ],
)
def test_what_is_refused(suite: str, words: list[str], options: dict, reason: str, tmp_path: Path) -> None:
    with pytest.raises(DuologueError, match=reason):
        main.run(suite, words, tmp_path, **options)


def test_questions_may_lie_beside_the_figures(tmp_path: Path) -> None:
    """A question set's file is no benchmark, in whose folder nothing may be written."""
    (tmp_path / "mine.jsonl").write_text('{"turns": [{"text": "Who?", "reply": "Me."}]}')
    words = ["export=true", "kinds=talker", "scenes=1", "voices=espeak:en-us"]
    main.run("duplex", words, tmp_path / "figures", data=tmp_path / "mine.jsonl")
    (scene,) = (tmp_path / "figures").glob("talker-*/scene.json")
    assert "[far talker] Who?" in scene.read_text()
    (tmp_path / "fdb/1").mkdir(parents=True)
    (tmp_path / "fdb/1/input.wav").write_bytes((scene.parent / "input.wav").read_bytes())
    with pytest.raises(DuologueError, match="would become a part of the scenes"):
        main.run("duplex", [], tmp_path / "fdb/figures", data=tmp_path / "fdb")


@pytest.mark.parametrize("suite", main.SUITES.first_lines())
def test_every_setting_of_a_suite_can_be_given(suite: str) -> None:
    """Its keyword arguments have types that KEY=VALUE can be read as; a run starts with none of them given."""
    settings = settings_of(main.SUITES.module(suite).run, (*main.OPTIONS, "out", "quiet"))
    assert read_settings(settings, ["seed=3"], "it").seed == 3  # type: ignore[attr-defined]
    for field in dataclasses.fields(settings):
        with contextlib.suppress(DuologueError):
            read_settings(settings, [f"{field.name}=1"], "it")
