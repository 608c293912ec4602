"""One question of the page to the service, over its protocol: with the page, without the browser."""

from __future__ import annotations

import asyncio
import io

import numpy as np
import pytest
import soundfile

pytest.importorskip("fastapi")
from running_server import ENGINE, running, sound
from tiny_assistant import HEARD, SAID

from duologue.demo.question import RATE, Answered, ask
from duologue.inference.engine import EngineConfig
from duologue.inference.serving.app import ServeConfig
from duologue.model.errors import DuologueError


@pytest.fixture(scope="module")
def server():
    with running(ServeConfig(model="tiny", engine=ENGINE)) as found:
        yield found


def wav(wave: np.ndarray) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, wave, 16_000, format="WAV")
    return file.getvalue()


def asked(url: str, recording: bytes | None, text: str = "", past: list[tuple[str, str]] | None = None) -> Answered:
    """All of an answer, its sound joined."""

    async def run() -> Answered:
        pieces, found = [], Answered()
        async for found in ask(url, recording, text, past or []):
            pieces.append(found.sound)
        found.sound = b"".join(pieces)
        return found

    return asyncio.run(run())


def test_a_recording_a_text_and_a_text_about_a_recording(server) -> None:
    recording = wav(sound((1.0, True)))
    heard = asked(server.url, recording)
    assert (heard.heard, heard.said, heard.heard_s) == (HEARD, SAID, 1.0)
    assert len(heard.sound) / 2 / RATE == pytest.approx(heard.said_s) and heard.said_s > 1
    assert heard.first_ms is not None and np.abs(np.frombuffer(heard.sound, "<i2")).max() > 30
    written = asked(server.url, None, "What is 3 plus 4?", [(HEARD, SAID), ("", "")])
    assert (written.heard, written.said, written.heard_s) == ("", SAID, 0.0)
    about = asked(server.url, recording, "how many beeps were there", [(HEARD, SAID)])
    assert (about.heard, about.said) == (f"{HEARD} how many beeps were there", SAID)


def test_what_cannot_be_asked_is_said(server) -> None:
    for recording, text, told in (
        (b"what is this", "", "not a recording"),
        (wav(np.zeros(61 * 16_000, np.float32)), "", "at most 60 s"),
        (None, "  ", "at least one text or sound"),
    ):
        with pytest.raises(DuologueError, match=told):
            asked(server.url, recording, text)


def test_a_full_service_says_so() -> None:
    config = ServeConfig(model="tiny", engine=EngineConfig(sessions=1, late_ms=1e9))
    with (
        running(config) as found,
        found.client().realtime.connect(model="x"),
        pytest.raises(DuologueError, match="are taken"),
    ):
        asked(found.url, None, "what is two")
