"""A recording that the page asks about: read by the service, and answered over its protocol as the page does."""

from __future__ import annotations

import io

import httpx
import numpy as np
import pytest
import soundfile

pytest.importorskip("fastapi")
from running_server import ENGINE, collect, running, sound
from tiny_assistant import HEARD, SAID, Loudness, tiny_assistant

from duologue.data_prep.audio import MAX_SECONDS
from duologue.demo.page.page import create_page
from duologue.demo.page.question import RATE, pcm16_of, sound_of
from duologue.inference.serving.app import ServeConfig
from duologue.model.errors import DuologueError


@pytest.fixture(scope="module")
def server():
    config = ServeConfig(model="tiny", pool=ENGINE)
    with running(app=create_page(config, tiny_assistant(), Loudness())) as found:
        yield found


def wav(wave: np.ndarray, rate: int = 16_000) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, wave, rate, format="WAV")
    return file.getvalue()


def test_a_recording_goes_there_comes_back_as_samples_and_is_asked_about(server) -> None:
    import base64

    answer = httpx.post(f"{server.url}/page/recording", content=wav(sound((1.0, True))))
    assert answer.status_code == 200 and len(answer.content) == 2 * RATE
    assert np.abs(np.frombuffer(answer.content, "<i2")).max() > 1_000
    said = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": HEARD}]}
    reply = {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": SAID}]}
    content = [
        {"type": "input_audio", "audio": base64.b64encode(answer.content).decode()},
        {"type": "input_text", "text": "how many beeps were there"},
    ]
    with server.client().realtime.connect(model="x") as connection:
        for item in (said, reply, {"type": "message", "role": "user", "content": content}):
            connection.conversation.item.create(item=item)
        connection.response.create()
        done = collect(connection, "response.done")[-1]
    assert done.response.output[0].content[0].transcript == SAID


def test_what_cannot_be_asked_about_is_said(server) -> None:
    for recording, expected in (
        (b"what is this", "not a recording"),
        (b"", "empty"),
        (wav(np.zeros(round((MAX_SECONDS + 1) * 8_000), np.float32), 8_000), "at most 600 s"),
    ):
        with pytest.raises(DuologueError, match=expected):
            sound_of(recording)
        answer = httpx.post(f"{server.url}/page/recording", content=recording)
        assert answer.status_code == 400 and expected in answer.json()["error"]["message"]


def test_what_a_browser_records_is_read(server) -> None:
    """WebM with Opus and M4A with AAC, as MediaRecorder and phones make them."""
    av = pytest.importorskip("av")
    wave = 0.3 * np.sin(2 * np.pi * 440 * np.arange(48_000) / 48_000).astype(np.float32)
    for kind, codec in (("webm", "libopus"), ("ipod", "aac")):
        file = io.BytesIO()
        with av.open(file, "w", format=kind) as container:
            stream = container.add_stream(codec, rate=48_000, layout="mono")
            frame = av.AudioFrame.from_ndarray(wave[None], format="fltp", layout="mono")
            frame.sample_rate = 48_000
            fifo = av.AudioFifo()
            fifo.write(frame)
            for part in [*fifo.read_many(stream.codec_context.frame_size or 960), None]:
                container.mux(stream.encode(part))
        answer = httpx.post(f"{server.url}/page/recording", content=file.getvalue())
        assert answer.status_code == 200, answer.text
        assert len(answer.content) / 2 / RATE == pytest.approx(1, abs=0.1)


def test_samples_are_those_of_the_sound() -> None:
    wave = 0.5 * np.sin(np.arange(16_000) / 10).astype(np.float32)
    pcm = np.frombuffer(pcm16_of(wav(wave)), "<i2")
    assert len(pcm) == RATE and abs(np.abs(pcm).max() / 32_767 - 0.5) < 0.01
