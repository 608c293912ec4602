"""/v1/audio/transcriptions, by the stock client: formats, times, and what is refused by name."""

from __future__ import annotations

import io
import json
import math

import httpx
import numpy as np
import openai
import pytest
import soundfile

pytest.importorskip("fastapi")
from openai.types.audio import TranscriptionVerbose
from running_server import running, sound, wait
from tiny_assistant import HEARD
from tiny_chat import brief
from tiny_words import RATE, tones, words_assistant

from duologue.inference.assistant.text_stream import timed_words
from duologue.model.adaptor.adaptor import HeardToken

PAUSE = np.zeros(2 * RATE, np.float32)


def wav(wave: np.ndarray) -> tuple[str, bytes]:
    file = io.BytesIO()
    soundfile.write(file, wave, RATE, format="WAV")
    return "question.wav", file.getvalue()


FIRST, SECOND = "the capital of France", "is the capital of France"
TWO = wav(np.concatenate([tones(FIRST, 1.0), PAUSE, tones(SECOND, 0.0, 1.0)]))  # a word lasts 0.24 s, a pause 0.08 s
BEGINS = [1.0, 1.32, 1.64, 1.96, 4.28, 4.6, 4.92, 5.24, 5.56]  # s, in it


@pytest.fixture(scope="module")
def hears():
    """Hears words by itself, with their times."""
    with running(assistant=brief(words_assistant())) as found:
        yield found


@pytest.fixture(scope="module")
def writes():
    """Its language model writes the transcript, and knows no times."""
    with running() as found:
        yield found


def test_words_and_segments_have_their_times_in_the_recording(hears) -> None:
    said = hears.client().audio.transcriptions.create(
        file=TWO, model="tiny", response_format="verbose_json", timestamp_granularities=["word", "segment"],
        language="en",
    )  # fmt: skip
    TranscriptionVerbose.model_validate(said.model_dump())
    assert (said.text, said.language) == (f"{FIRST} {SECOND}", "english")
    assert said.duration == pytest.approx(len(PAUSE) / RATE + 2 + 9 * 0.32, abs=0.01) == said.usage.seconds
    assert [word.word for word in said.words] == said.text.split()
    assert [word.start for word in said.words] == pytest.approx(BEGINS, abs=0.06)
    assert [word.end - word.start for word in said.words] == pytest.approx([0.24] * 9, abs=0.06)
    assert [segment.text for segment in said.segments] == [FIRST, SECOND]
    for segment, (first, last) in zip(said.segments, ((0, 3), (4, 8)), strict=True):
        assert BEGINS[first] - 0.5 <= segment.start <= BEGINS[first]
        assert BEGINS[last] + 0.24 <= segment.end <= BEGINS[last] + 0.8 and segment.end <= said.duration
        assert segment.avg_logprob == pytest.approx(math.log(0.9)) and 0 <= segment.no_speech_prob <= 0.7
        assert len(segment.tokens) == len(segment.text.split()) and segment.compression_ratio > 0
    assert [segment.id for segment in said.segments] == [0, 1]


@pytest.mark.parametrize(("asked", "given"), [([], {"segments"}), (["word"], {"words"}), (["segment"], {"segments"})])
def test_what_is_asked_for_is_given(hears, asked, given) -> None:
    fields = {"model": "tiny", "response_format": "verbose_json", "timestamp_granularities[]": asked}
    answer = httpx.post(f"{hears.url}/v1/audio/transcriptions", data=fields, files={"file": TWO}).json()
    assert {"segments", "words"} & set(answer) == given


@pytest.fixture(scope="module")
def vague():
    """Its " of" may be " is"."""
    with running(assistant=brief(words_assistant(vague=True))) as found:
        yield found


def test_words_that_are_likely_change_with_each_request(vague) -> None:
    def heard(**fields: object) -> str:
        files = {"file": wav(tones(FIRST, 0.5, 0.5))}
        answer = httpx.post(f"{vague.url}/v1/audio/transcriptions", data=fields, files=files, timeout=60)
        return answer.json().get("text") or answer.json()["error"]["message"]

    told = "the capital is France"
    assert [heard(), heard(**{"keywords[]": ["is"]}), heard(), heard(prompt="is"), heard(prompt=" ")] == [
        FIRST, told, FIRST, told, FIRST,
    ]  # fmt: skip
    assert heard(prompt="This is what Zoë said. And who Is he?") == told, "what cannot be spelt is left out of a prompt"
    assert heard(**{"keywords[]": ["Zoë"]}).startswith("the keyword 'Zoë' cannot be spelt")


def test_captions(hears) -> None:
    client = hears.client()
    text = client.audio.transcriptions.create(file=TWO, model="tiny", response_format="srt")
    assert text.startswith("1\n00:00:0") and f"\n{FIRST}\n\n2\n" in text and text.endswith(f"\n{SECOND}\n")
    text = client.audio.transcriptions.create(file=TWO, model="tiny", response_format="vtt")
    assert text.startswith("WEBVTT\n\n00:00:0") and f"\n{SECOND}\n" in text


def test_plain_and_streamed(hears) -> None:
    client, said = hears.client(), f"{FIRST} {SECOND}"
    answer = client.audio.transcriptions.create(file=TWO, model="tiny")
    assert answer.text == said and answer.usage.type == "duration" and answer.usage.seconds > 5
    assert client.audio.transcriptions.create(file=TWO, model="tiny", response_format="text").strip() == said
    events = list(client.audio.transcriptions.create(file=TWO, model="tiny", stream=True))
    assert [event.type for event in events[-2:]] == ["transcript.text.delta", "transcript.text.done"]
    assert len(events) > 2 and events[-1].text == said == "".join(event.delta for event in events[:-1])
    silent = client.audio.transcriptions.create(file=wav(PAUSE), model="tiny", response_format="verbose_json")
    assert silent.text == "" and silent.segments == [] and silent.duration == 2.0


def test_a_language_model_writes_it(writes) -> None:
    client, file = writes.client(), wav(sound((1.5, True)))
    said = client.audio.transcriptions.create(file=file, model="tiny", response_format="verbose_json", temperature=0)
    assert said.text == HEARD == said.segments[0].text and len(said.segments) == 1
    assert "avg_logprob" not in said.segments[0].model_dump(exclude_unset=True), "nobody knows how sure it is"
    warm = client.audio.transcriptions.create(file=file, model="tiny", response_format="verbose_json", temperature=1.0)
    assert warm.segments[0].temperature == 1.0
    with pytest.raises(openai.BadRequestError, match="when each word was said"):
        client.audio.transcriptions.create(
            file=file, model="tiny", response_format="verbose_json", timestamp_granularities=["word"]
        )


@pytest.mark.parametrize(
    ("fields", "param", "message"),
    [
        ({"response_format": "docx"}, "response_format", "docx"),
        ({"response_format": "srt", "stream": "true"}, "response_format", "stream"),
        ({"language": "de"}, "language", "english"),
        ({"language": "klingon"}, "language", "no code"),
        ({"prompt": "names: Aoife"}, "prompt", "cannot be prompted"),
        ({"temperature": "2"}, "temperature", "0 to 1"),
        ({"temperature": "nan"}, "temperature", "0 to 1"),
        ({"temperature": "warm"}, "temperature", "number"),
        ({"temperature": "0.5"}, "temperature", "not sampled"),
        ({"timestamp_granularities[]": "word"}, "timestamp_granularities", "verbose_json"),
        (
            {"timestamp_granularities[]": "letter", "response_format": "verbose_json"},
            "timestamp_granularities",
            "there are segment and word",
        ),
        ({"include[]": "logprobs"}, "include", "not served"),
        ({"chunking_strategy": '{"type": "server_vad"}'}, "chunking_strategy", "not served"),
        ({"colour": "red"}, "colour", "no field"),
    ],
)
def test_what_cannot_be_met_is_refused_by_name(hears, fields, param, message) -> None:
    answer = httpx.post(f"{hears.url}/v1/audio/transcriptions", data={"model": "tiny", **fields}, files={"file": TWO})
    error = answer.json()["error"]
    assert answer.status_code == 400 and error["param"] == param and message in error["message"], error


def test_an_unknown_model_and_no_recording(hears) -> None:
    client = hears.client()
    for ask in (
        lambda: client.audio.transcriptions.create(file=TWO, model="whisper-1"),
        lambda: client.audio.speech.create(input="the", model="tts-1", voice="alloy"),
        lambda: client.chat.completions.create(messages=[{"role": "user", "content": "the"}], model="gpt-4o"),
        lambda: client.models.retrieve("gpt-4o"),
    ):
        with pytest.raises(openai.NotFoundError) as refused:
            ask()
        assert refused.value.code == "model_not_found" and "'tiny'" in refused.value.message
    with pytest.raises(openai.BadRequestError, match="not a recording"):
        client.audio.transcriptions.create(file=("x.wav", b"what is this"), model="tiny")
    events = httpx.post(
        f"{hears.url}/v1/audio/transcriptions", data={"stream": "true"}, files={"file": ("x.wav", b"what is this")}
    ).text
    assert "not a recording" in json.loads(events.removeprefix("data: "))["error"]["message"]
    wait(lambda: hears.service.pool.slots == 0)


def test_tokens_make_words() -> None:
    """Pieces of a word are one; a character in two tokens too."""

    class Bytes:
        def decode(self, ids, **how) -> str:
            return bytes(ids).decode(errors="replace")

    text = " Café, is it"
    heard = [
        HeardToken(token=byte, start=at / 10, end=(at + 1) / 10, confidence=1.0)
        for at, byte in enumerate(text.encode())
    ]
    words = timed_words(Bytes(), heard)
    assert [word.text for word in words] == ["Café,", "is", "it"]
    assert [(word.start_s, word.end_s) for word in words] == [(0.1, 0.7), (0.8, 1.0), (1.1, 1.3)]
    assert timed_words(Bytes(), []) == []
