"""Stock clients, unmodified, in real time: three turns with an interruption, and a function with a greeting before it.

`make test-clients`, or CLIENTS="pipecat livekit" for some. What the clients saw is told by their scripts (scripts/),
and what the service saw by its own figures: an error that it told a client is a fault of one of the two.
"""

from __future__ import annotations

import json
import os
import subprocess
import wave
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("fastapi")
import soxr
from client_environments import Client, Unavailable, chosen
from running_server import ENGINE, Running, running, sound, wait
from tiny_assistant import HEARD, SAID
from tool_caller import ARGUMENTS, GREETING, TOLD, tool_caller

from duologue.inference.serving.app import ServeConfig
from duologue.inference.serving.http.access import AccessConfig

NAMES = os.environ.get("CLIENTS", "")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(2400),
    pytest.mark.skipif(not NAMES, reason="it installs packages: make test-clients"),
]
clients = pytest.mark.parametrize("client", chosen(NAMES), ids=lambda client: client.name)
# Where agents_webrtc.py's page comes from, which nobody serves.
FROM_PAGES = ServeConfig(model="tiny", pool=ENGINE, access=AccessConfig(origins=("http://localhost:8001",)))
LATE = "response_cancel_not_active"  # a client that cancels what has just ended is told so, and goes on


@pytest.fixture(scope="module")
def speaker() -> Iterator[Running]:
    with running(FROM_PAGES, speed=1.0) as found:
        yield found


@pytest.fixture(scope="module")
def caller() -> Iterator[Running]:
    with running(FROM_PAGES, assistant=tool_caller(patient=True), speed=1.0) as found:
        yield found


def run(client: Client, server: Running, task: str, folder: Path) -> dict[str, Any]:
    """What the client saw."""
    question = folder / "question.wav"
    with wave.open(str(question), "wb") as file:
        file.setparams((1, 2, client.rate, 0, "NONE", ""))
        pcm = soxr.resample(sound((1.0, True)), 16_000, client.rate)
        file.writeframes((pcm * 32_767).astype("<i2").tobytes())
    try:
        command = client.command(f"{server.url}/v1", str(question), task)
    except Unavailable as error:
        pytest.fail(str(error), pytrace=False)
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    seen: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    assert seen["errors"] == [], seen
    wait(lambda: server.service.pool.slots == 0)
    return seen


class Figures:
    """What the service has counted since."""

    def __init__(self, server: Running) -> None:
        self._registry = server.service.metrics.registry
        self._before = self._now()

    def _now(self) -> dict[tuple[str, str], float]:
        return {
            (sample.name, next(iter(sample.labels.values()), "")): sample.value
            for family in self._registry.collect()
            for sample in family.samples
        }

    def __call__(self, name: str, label: str = "") -> float:
        return self._now().get((name, label), 0.0) - self._before.get((name, label), 0.0)

    def errors(self) -> set[str]:
        """Codes of the errors that it told."""
        return {label for (name, label) in self._now() if name == "duologue_errors_total" and self(name, label)}


@clients
def test_three_turns_and_an_interruption(client: Client, speaker: Running, tmp_path: Path) -> None:
    figures = Figures(speaker)
    seen = run(client, speaker, "turns", tmp_path)
    assert seen["heard"] == 3 * [HEARD], seen
    assert [text.strip() for text in seen["said"][1:]] == [SAID, SAID, ""], seen
    assert SAID.startswith(seen["said"][0].strip()), seen
    cut, *whole = seen["audio_s"][:3]
    assert 0.2 < cut < 2 < min(whole), seen
    assert figures("duologue_interruptions_total") == 1
    assert figures("duologue_responses_total", "completed") == 2 and figures.errors() <= {LATE}


@clients
def test_a_greeting_and_a_function(client: Client, caller: Running, tmp_path: Path) -> None:
    figures = Figures(caller)
    seen = run(client, caller, "functions", tmp_path)
    ((name, arguments),) = seen["calls"]
    assert name == "weather" and json.loads(arguments) == json.loads(ARGUMENTS), seen
    assert [text.strip() for text in seen["said"]] == [GREETING, TOLD, ""], seen
    assert max(seen["audio_s"]) > 0, seen  # the greeting is too short for a page to notice: 60 ms
    assert figures("duologue_responses_total", "completed") == 3 and figures.errors() <= {LATE}
