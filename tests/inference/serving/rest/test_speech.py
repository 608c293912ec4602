"""/v1/audio/speech, by the stock client: any ordinary text, every format, sent while it is made."""

from __future__ import annotations

import base64
import json
import re
import time
from typing import Any

import httpx
import numpy as np
import openai
import pytest

pytest.importorskip("fastapi")
import torch
from hypothesis import given
from hypothesis import strategies as st
from running_server import running, wait
from tiny_assistant import SAID, tiny_assistant
from tiny_chat import chat_assistant

from duologue.data_prep.audio import read_audio
from duologue.inference.assistant.text_stream import said_ids
from duologue.inference.serving.rest.sound_files import FORMATS, SoundStream, sound_file
from duologue.inference.serving.rest.speech import sentences
from duologue.model.errors import DuologueError
from duologue.model.speech_decoder.voices import Speaker

RATE = 16_000
FILES = [each for each in FORMATS if each != "pcm"]


@pytest.fixture(scope="module")
def server():
    with running() as found:
        yield found


def say(server, text: str = SAID, **how) -> bytes:
    return server.client().audio.speech.create(model="tiny", voice="alloy", input=text, **how).content


def seconds(sound: bytes) -> float:
    wave = read_audio(sound, RATE)
    assert np.abs(wave).max() > 0.001
    return len(wave) / RATE


def test_every_format_has_the_same_sound(server) -> None:
    pcm = say(server, response_format="pcm")
    length = len(pcm) / 2 / 24_000
    assert length > 1
    for format_ in FILES:
        assert seconds(say(server, response_format=format_)) == pytest.approx(length, abs=0.12)
    assert seconds(say(server)) == pytest.approx(length, abs=0.12), "mp3, if nothing else is said"
    wait(lambda: server.service.pool.slots == 0)


@pytest.mark.parametrize("format_", FORMATS)
def test_it_is_sent_while_it_is_made(format_: str) -> None:
    """Whatever comes out is there no more than 0.3 s of sound later; a stream is as the whole file is."""
    wave = (0.3 * np.sin(2 * np.pi * 440 * np.arange(3 * RATE) / RATE)).astype(np.float32)
    stream, size = SoundStream(format_, RATE), RATE // 10
    pieces = [stream.push(wave[at : at + size], last=at + size >= len(wave)) for at in range(0, len(wave), size)]
    assert sum(map(bool, pieces[:5])) >= 2 and all(any(pieces[at : at + 3]) for at in range(3, 27))
    if format_ != "pcm":
        for sound in (b"".join(pieces), sound_file(wave, RATE, format_)):
            heard = read_audio(sound, RATE)
            assert len(heard) / RATE == pytest.approx(3.0, abs=0.08)
            spectrum = np.abs(np.fft.rfft(heard[RATE : 2 * RATE]))
            assert spectrum.argmax() == 440 and np.abs(heard).max() == pytest.approx(0.3, abs=0.06)
        assert len(read_audio(sound_file(wave[:0], RATE, format_), RATE)) > 0


def test_events(server) -> None:
    body = {"model": "tiny", "voice": "alloy", "input": SAID, "stream_format": "sse", "response_format": "wav"}
    with httpx.stream("POST", f"{server.url}/v1/audio/speech", json=body, timeout=60) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        events = [json.loads(line.removeprefix("data: ")) for line in answer.iter_lines() if line]
    assert len(events) > 2 and {event["type"] for event in events[:-1]} == {"speech.audio.delta"}
    sound = b"".join(base64.b64decode(event["audio"]) for event in events[:-1])
    assert sound[:4] == b"RIFF" and seconds(sound) > 1
    usage = events[-1]["usage"]
    assert events[-1]["type"] == "speech.audio.done" and usage["input_tokens"] == len(SAID.split())
    assert usage["output_tokens"] == pytest.approx(seconds(sound) / 0.08, abs=1.1)
    assert usage["total_tokens"] == usage["input_tokens"] + usage["output_tokens"]


def test_several_sentences_are_said_one_after_the_other(server) -> None:
    one = len(say(server, response_format="pcm"))
    text = f"{SAID.capitalize()} and it makes the number nine.\n" * 3
    three = len(say(server, text, response_format="pcm"))
    assert three > 5 * one
    wait(lambda: server.service.pool.slots == 0)


def test_speed(server) -> None:
    lengths = [len(say(server, response_format="pcm", speed=speed)) / 48_000 for speed in (0.8, 1.0, 1.25)]
    assert lengths[0] > 1.1 * lengths[1] and lengths[2] <= lengths[1]
    for speed in (0.25, 2.0):
        with pytest.raises(openai.BadRequestError, match=r"0\.8 to 1\.25"):
            say(server, speed=speed)


def test_ssml(server) -> None:
    words = SAID.split()
    marked = " ".join([*words[:2], '<break time="1s"/>', *words[2:]])
    ours = {"response_format": "pcm", "extra_body": {"ssml": True}}
    assert len(say(server, marked, **ours)) - len(say(server, **ours)) == 48_000  # bytes: a second at 24 kHz
    with pytest.raises(openai.BadRequestError, match="'<mark/>' is not rendered"):
        say(server, "the <mark/> end", extra_body={"ssml": True})


def test_voices() -> None:
    assistant = tiny_assistant()
    vocoder = assistant.model.speech.vocoder
    vocoder.speakers = torch.nn.Embedding(2, vocoder.config.embedding_dim)
    two = assistant.speaking_in({"one": Speaker(row=0), "two": Speaker(row=1)})
    body, aloud = {"model": "tiny", "input": SAID, "response_format": "pcm"}, ["text", "audio"]
    asked = {"model": "tiny", "modalities": aloud, "messages": [{"role": "user", "content": SAID}]}
    with running(assistant=two) as found:

        def said(voice: Any) -> httpx.Response:
            return httpx.post(f"{found.url}/v1/audio/speech", json=body | {"voice": voice})

        def answered(voice: Any) -> httpx.Response:
            sound = {"audio": {"format": "wav", "voice": voice}}
            return httpx.post(f"{found.url}/v1/chat/completions", json=asked | sound)

        for speak in (said, answered):
            usual, other, stock, loud = (speak(name) for name in ("one", "two", "alloy", "loud"))
            sounds: list[Any] = [
                each.content if speak is said else each.json()["choices"] for each in (usual, other, stock)
            ]
            for choices in sounds if speak is answered else ():
                choices[0]["message"]["audio"] |= {"id": "", "expires_at": 0}
            assert usual.is_success and other.is_success and sounds[0] == sounds[2] != sounds[1]
            assert loud.status_code == 400 and "'loud'; this model has: one, two" in loud.json()["error"]["message"]
        assert loud.json()["error"]["param"] == "audio.voice"


def test_the_first_sound_does_not_wait_for_the_last(server) -> None:
    body = {"model": "tiny", "voice": "alloy", "input": f"{SAID}. " * 40, "response_format": "pcm"}
    began, first = time.monotonic(), None
    with httpx.stream("POST", f"{server.url}/v1/audio/speech", json=body, timeout=60) as answer:
        for _ in answer.iter_bytes():
            first = first or time.monotonic() - began
    assert first is not None and first < 0.4 * (time.monotonic() - began)


def test_ordinary_text_in_a_closed_vocabulary(server) -> None:
    """Numbers, capitals and marks are read aloud; words that it does not have are named."""
    assistant = tiny_assistant()
    layout, tokenizer = assistant.model.layout, assistant.tokenizer

    def said(text: str) -> str:
        return tokenizer.decode(said_ids(tokenizer, layout, text))

    assert said("It makes 42!") == "it makes forty two"
    assert said("What is 1,250 plus 7?") == "what is one thousand two hundred fifty plus seven"
    assert said("F-B-I, III. Monday") == "f b i three monday"
    with pytest.raises(DuologueError, match="'dollars'") as refused:
        said("It makes $5.50, Café.")
    assert "'cafe'" in str(refused.value) and "'cents'" in str(refused.value) and "5" not in str(refused.value)
    with pytest.raises(openai.BadRequestError, match="'xylophone'") as error:
        say(server, "it is a xylophone")
    assert error.value.param == "input"
    for text in ("$5", "7%"):
        with pytest.raises(DuologueError, match=r"dollars|percent"):
            said(text)
    for text in ("...", "  ", "🙂"):
        with pytest.raises(openai.BadRequestError, match="no words"):
            say(server, text)


def test_a_model_of_any_words_has_the_text_as_it_is_written() -> None:
    with running(assistant=chat_assistant()) as found:
        assert len(say(found, "Café, it's $5.50 — is it?", response_format="pcm")) >= 0


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"input": ""}, "input"),
        ({"input": "the " * 2000}, "input"),
        ({"response_format": "docx"}, "response_format"),
        ({"stream_format": "carrier pigeon"}, "stream_format"),
        ({"speed": "fast"}, "speed"),
        ({"speed": 9}, "speed"),
        ({"speed": True}, "speed"),
        ({"voice": "loud"}, "voice"),
        ({"voice": ["alloy"]}, "voice"),
        ({"instructions": "whisper"}, "instructions"),
        ({"pitch": 3}, "pitch"),
        ({"ssml": "yes"}, "ssml"),
    ],
)
def test_what_cannot_be_met_is_refused_by_name(server, fields, param) -> None:
    body = {"model": "tiny", "voice": "alloy", "input": SAID, **fields}
    answer = httpx.post(f"{server.url}/v1/audio/speech", json=body)
    assert answer.status_code == 400 and answer.json()["error"]["param"] == param, answer.text


@given(st.text(st.sampled_from("abc .!?\n。é—"), min_size=1, max_size=900))
def test_sentences_are_the_text(text: str) -> None:
    pieces = list(sentences(text))
    assert all(0 < len(piece) <= 240 for piece in pieces)
    said = re.sub("[^abcé]", "", "".join(pieces))
    assert said == re.sub("[^abcé]", "", text) and bool(said) == bool(pieces)


def test_sentences_end_where_a_reader_pauses() -> None:
    text = "It is one. It is quite a long sentence, this one is. Dr. No said so! " + "and so on " * 60
    pieces = list(sentences(text))
    assert pieces[0] == "It is one. It is quite a long sentence, this one is."
    assert pieces[1].startswith("Dr. No said so! and so on") and all(len(piece) <= 240 for piece in pieces)
    assert not any(piece.endswith("an") for piece in pieces)
