"""Delays of a session in real time, of which the parts add up; a reply that goes on; what is refused before it runs."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
from tiny_assistant import Loudness, tiny_assistant

from duologue.inference.evaluation import main
from duologue.inference.evaluation.main import Request
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
    ("request_", "reason"),
    [
        ({"suite": "s3s"}, "unknown suite 's3s'"),
        ({"suite": "codec", "data": Path("x"), "voices": "dev"}, "codec has no use for --voices"),
        ({"suite": "codec"}, "codec needs --data"),
        ({"suite": "s2s", "model": "nano", "outputs": Path("x")}, "and not both"),
        ({"suite": "s2s", "judge": "http://x/v1"}, "a judge needs both"),
        ({"suite": "compare", "reports": (Path("a"),)}, "two reports or more"),
        ({"suite": "latency", "profile": "long"}, "unknown profile 'long'"),
    ],
)
def test_what_is_refused(request_: dict, reason: str, tmp_path: Path) -> None:
    with pytest.raises(DuologueError, match=reason):
        main.run(Request(output=tmp_path, **request_))
