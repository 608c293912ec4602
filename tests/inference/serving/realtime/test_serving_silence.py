"""The service and silence: no words for it, whoever asks and however; and long speech is written down whole."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator
from typing import Any

import numpy as np
import openai
import pytest
import soundfile
from openai import OpenAI
from running_server import Running, running
from tiny_assistant import HEARD, SAID

RATE = 16_000


@pytest.fixture(scope="module")
def server() -> Iterator[Running]:
    with running() as found:
        yield found


def sound(*spans: tuple[float, bool]) -> np.ndarray:
    rng = np.random.default_rng(0)
    return np.concatenate([0.1 * loud * rng.standard_normal(round(s * RATE)) for s, loud in spans]).astype(np.float32)


def wav(wave: np.ndarray) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, wave, RATE, format="WAV")
    return file.getvalue()


def written(server: Running, wave: np.ndarray, **more: Any) -> Any:
    return server.client().audio.transcriptions.create(file=("q.wav", wav(wave)), model="tiny", **more)


def asked(server: Running, wave: np.ndarray, text: str = "") -> str | None:
    content: list[Any] = [
        {"type": "input_audio", "input_audio": {"data": base64.b64encode(wav(wave)).decode(), "format": "wav"}}
    ]
    content += [{"type": "text", "text": text}] if text else []
    messages: list[Any] = [{"role": "user", "content": content}]
    return server.client().chat.completions.create(model="tiny", messages=messages).choices[0].message.content


def test_silence_is_written_down_as_nothing(server: Running) -> None:
    assert written(server, sound((3.0, False))).text == ""
    assert written(server, sound((3.0, False)), response_format="text").strip() == ""
    events = list(written(server, sound((3.0, False)), stream=True))
    assert [event.type for event in events] == ["transcript.text.done"] and events[0].text == ""
    assert server.service.pool is not None and server.service.pool.slots == 0


def test_long_speech_is_written_down_in_parts_as_they_are_heard(server: Running) -> None:
    wave = sound(*[(2.0, True), (0.5, False)] * 4)
    assert written(server, wave).text == " ".join([HEARD] * 4)
    events = list(written(server, wave, stream=True))
    assert events[-1].text == " ".join([HEARD] * 4) == "".join(event.delta for event in events[:-1])


def test_a_long_question_is_answered_once(server: Running) -> None:
    assert asked(server, sound(*[(2.5, True), (0.5, False)] * 4)) == SAID
    assert asked(server, sound((12, False), (1.0, True), (12, False))) == SAID


def test_a_question_of_silence_is_refused(server: Running) -> None:
    with pytest.raises(openai.BadRequestError, match="no speech was heard"):
        asked(server, sound((3.0, False)))
    assert asked(server, sound((3.0, False)), "what is seven") == SAID
    assert server.service.pool is not None and server.service.pool.slots == 0


def _said(connection: Any, wave: np.ndarray | None) -> tuple[str, str, str]:
    """What a client without turn detection gets: status, transcript, answer."""
    if wave is not None:
        pcm = np.repeat((32_767 * wave).astype("<i2"), 3)[::2]  # 24 kHz, near enough
        for start in range(0, len(pcm), 48_000):
            connection.input_audio_buffer.append(audio=base64.b64encode(pcm[start : start + 48_000].tobytes()).decode())
        connection.input_audio_buffer.commit()
        connection.response.create()
    heard = answer = ""
    for event in connection:
        assert event.type != "error", event
        if event.type == "conversation.item.input_audio_transcription.completed":
            heard = event.transcript
        elif event.type == "response.output_audio_transcript.delta":
            answer += event.delta
        elif event.type == "response.done":
            return event.response.status, heard, answer
    raise AssertionError("no response")


def client(server: Running) -> OpenAI:
    return server.client()


def test_a_commit_of_silence_gets_a_response_without_words(server: Running) -> None:
    with client(server).realtime.connect(model="tiny") as connection:
        detection: Any = {"turn_detection": None, "transcription": {"model": "local"}}
        connection.session.update(session={"type": "realtime", "audio": {"input": detection}})
        assert _said(connection, sound((3.0, False))) == ("completed", "", "")
        assert _said(connection, sound((9.0, False), (1.0, True), (9.0, False))) == ("completed", HEARD, SAID)
        assert _said(connection, sound((1.0, False))) == ("completed", "", "")


def test_a_silent_line_is_not_told_of_sounds(server: Running) -> None:
    """It is the model that would speak, and it has heard nothing."""
    with client(server).realtime.connect(model="tiny") as connection:
        detection: Any = {"turn_detection": {"type": "server_vad", "idle_timeout_ms": 5_000}}
        connection.session.update(session={"type": "realtime", "audio": {"input": detection}})
        quiet = base64.b64encode(bytes(2 * 24_000 * 6)).decode()
        connection.input_audio_buffer.append(audio=quiet)
        assert _said(connection, None) == ("completed", "", "")
