"""/v1/chat/completions, by the stock client: text and sound, stops, several answers, usage, and what is refused."""

from __future__ import annotations

import base64
import io
import json

import httpx
import numpy as np
import openai
import pytest
import soundfile

pytest.importorskip("fastapi")
from hypothesis import given
from hypothesis import strategies as st
from openai.types.chat.completion_create_params import CompletionCreateParamsStreaming
from running_server import ENGINE, running, sound, wait
from tiny_assistant import HEARD, SAID, tiny_assistant
from tiny_chat import TOOL
from tiny_qwen2_audio import tiny_qwen2_audio
from tool_caller import ARGUMENTS, QUESTION, RESULT, TOLD, UNTOLD, tool_caller

from duologue.inference.assistant.loading import load
from duologue.inference.assistant.one_shot import OneShotRequest
from duologue.inference.serving.app import ServeConfig
from duologue.inference.serving.http.access import AccessConfig
from duologue.inference.serving.protocol.errors import RequestError
from duologue.inference.serving.rest.chat.choices import StopText
from duologue.inference.serving.rest.chat.kept_replies import SECONDS, KeptReplies
from duologue.inference.serving.rest.chat.params import FIELDS

ASKED = [{"role": "user", "content": "what is two plus two"}]
ALOUD = {"modalities": ["text", "audio"], "audio": {"voice": "alloy", "format": "wav"}}
KEYS = ("a-key-of-the-first", "a-key-of-the-second")


def wav(wave: np.ndarray) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, wave, 16_000, format="WAV")
    return file.getvalue()


def heard(seconds: float = 1.0) -> dict:
    data = base64.b64encode(wav(sound((seconds, True)))).decode()
    return {"type": "input_audio", "input_audio": {"data": data, "format": "wav"}}


SOUND = heard(0.1)
CALLED = {"id": "one", "type": "function", "function": {"name": "weather", "arguments": "{}"}}


@pytest.fixture(scope="module")
def server():
    with running() as found:
        yield found


def ask(server, messages=ASKED, key: str = "no-key", **how):
    return server.client(key).chat.completions.create(model="tiny", messages=messages, **how)


def seconds(audio) -> float:
    wave, rate = soundfile.read(io.BytesIO(base64.b64decode(audio.data)))
    return len(wave) / rate


def test_chat(server) -> None:
    client = server.client()
    heard = {
        "type": "input_audio",
        "input_audio": {"data": base64.b64encode(wav(sound((1.0, True)))).decode(), "format": "wav"},
    }
    asked = [
        {"role": "system", "content": "be brief"},
        {"role": "user", "content": "what is two plus two"},
        {"role": "assistant", "content": "it makes nine"},
        {"role": "user", "content": [heard]},
    ]
    answer = client.chat.completions.create(model="tiny", messages=asked)
    assert answer.choices[0].message.content == SAID and answer.choices[0].finish_reason == "stop"
    short = client.chat.completions.create(model="tiny", messages=asked[1:2], max_completion_tokens=2)
    assert short.choices[0].message.content == " ".join(SAID.split()[:2]) and short.choices[0].finish_reason == "length"
    how = {"modalities": ["text", "audio"], "audio": {"voice": "alloy", "format": "wav"}}
    spoken = client.chat.completions.create(model="tiny", messages=asked, **how).choices[0].message
    wave, rate = soundfile.read(io.BytesIO(base64.b64decode(spoken.audio.data)))
    assert spoken.audio.transcript == SAID and len(wave) / rate > 1
    how["audio"]["format"] = "pcm16"
    text, sound_ = "", b""
    for chunk in client.chat.completions.create(model="tiny", messages=asked, stream=True, **how):
        delta = chunk.choices[0].delta.audio
        text += (delta and delta.transcript) or ""
        sound_ += base64.b64decode((delta and delta.data) or "")
    assert text == SAID and abs(len(sound_) / 2 / 24_000 - len(wave) / rate) < 0.1
    streamed = client.chat.completions.create(model="tiny", messages=asked[1:2], stream=True)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in streamed) == SAID


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ([], None),
        ({}, "messages"),
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "tool"}]}, "messages.0.tool_call_id"),
        ({"messages": [3]}, "messages.0.role"),
        ({"messages": [{"role": "user", "content": 3}]}, "messages.0.content"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "messages.0.content"),
        ({"messages": [{"role": "user", "content": "two"}], "tools": [TOOL]}, "tools"),
        ({"messages": [{"role": "user", "content": "two"}], "n": 9}, "n"),
        ({"messages": [{"role": "user", "content": "two"}], "temperature": "hot"}, "temperature"),
        ({"messages": [{"role": "user", "content": "two"}], "temperature": -1}, "temperature"),
        ({"messages": [{"role": "user", "content": "two"}], "max_tokens": 0}, "max_tokens"),
        ({"messages": [{"role": "user", "content": "two"}], "modalities": ["audio"]}, "audio.format"),
        ({"messages": [{"role": "assistant", "content": "two"}]}, "messages"),
        ({"messages": [{"role": "user", "content": "  "}]}, None),
        ({"messages": ASKED, "n": 1.5}, "n"),
        ({"messages": ASKED, "seed": "one"}, "seed"),
        ({"messages": ASKED, "top_p": 0}, "top_p"),
        ({"messages": ASKED, "stop": ["a", "b", "c", "d", "e"]}, "stop"),
        ({"messages": ASKED, "stop": ""}, "stop"),
        ({"messages": ASKED, "stop": {"a": 1}}, "stop"),
        ({"messages": ASKED, "stream_options": {"include_usage": True}}, "stream_options"),
        ({"messages": ASKED, "logprobs": True}, "logprobs"),
        ({"messages": ASKED, "frequency_penalty": 0.5}, "frequency_penalty"),
        ({"messages": ASKED, "response_format": {"type": "json_object"}}, "response_format"),
        ({"messages": ASKED, "colour": "red"}, "colour"),
        ({"messages": ASKED, **ALOUD, "audio": {"format": "wav", "speed": 2}}, "audio.speed"),
        ({"messages": ASKED, **ALOUD, "audio": {"format": "wav", "ssml": "yes"}}, "audio.ssml"),
        ({"messages": [{"role": "assistant", "audio": {"id": "audio_none"}}, *ASKED]}, "messages.0.audio.id"),
        ({"messages": [{"role": "assistant", "audio": {}}, *ASKED]}, "messages.0.audio"),
        ({"messages": [{"role": "assistant", "tool_calls": [{}]}, *ASKED]}, "messages.0.tool_calls.0"),
        ({"messages": [{"role": "assistant", "tool_calls": [CALLED]}, *ASKED]}, "tools"),
        ({"messages": ASKED, "tools": [{}]}, "tools.0.function"),
        ({"messages": ASKED, "tools": [{"type": "custom"}]}, "tools.0.type"),
        ({"messages": ASKED, "tools": 3}, "tools"),
        ({"messages": ASKED, "tool_choice": "required"}, "tool_choice"),
        (
            {"messages": ASKED, "tools": [TOOL], "tool_choice": {"type": "function", "function": {"name": "x"}}},
            "tool_choice",
        ),
        ({"messages": ASKED, "functions": [{}]}, "functions"),
        ({"messages": [{"role": "system", "content": [SOUND]}, *ASKED]}, "messages.0.content"),
    ],
)
def test_bad_completions_are_one_clear_error(server, body, param) -> None:
    answer = httpx.post(f"{server.url}/v1/chat/completions", content=json.dumps(body))
    error = answer.json()["error"]
    assert answer.status_code == 400 and error["message"] and (param is None or error["param"] == param), error
    wait(lambda: server.service.pool.slots == 0)


def test_every_field_of_the_api_is_known() -> None:
    assert FIELDS.served | FIELDS.neutral | set(FIELDS.refused) == set(CompletionCreateParamsStreaming.__annotations__)


# What it took.


def test_replies_in_ssml(server, monkeypatch) -> None:
    """The model is told; and as its reply has no tags, it is the same reply."""
    told, instruct = [], OneShotRequest.instruct
    monkeypatch.setattr(OneShotRequest, "instruct", lambda *args: (told.append(args[-1]), instruct(*args))[1])
    ours = {**ALOUD, "audio": {"format": "wav", "ssml": True}}
    assert ask(server, **ours).choices[0].message.audio.transcript == SAID
    assert told == [True]
    plain = {**ALOUD, "audio": {"format": "wav", "ssml": None}}
    assert ask(server, **plain, stop="nothing of it").choices[0].message.audio.transcript == SAID
    with pytest.raises(openai.BadRequestError, match="in SSML has no stop"):
        ask(server, **ours, stop="two")


def test_usage(server) -> None:
    words, said = len(ASKED[0]["content"].split()), len(SAID.split())
    usage = ask(server).usage
    assert (usage.prompt_tokens, usage.completion_tokens, usage.total_tokens) == (words, said, words + said)
    past = [*ASKED, {"role": "assistant", "content": "it makes nine"}, {"role": "user", "content": [heard(1.0)]}]
    usage = ask(server, past, **ALOUD).usage
    assert usage.prompt_tokens_details.audio_tokens == 13 and usage.prompt_tokens == words + 3 + 13
    spoken = usage.completion_tokens_details.audio_tokens
    assert spoken > 10 and usage.completion_tokens == said + spoken, "the transcript is no part of the answer"


def test_usage_ends_a_stream_that_asks_for_it(server) -> None:
    chunks = list(ask(server, stream=True, stream_options={"include_usage": True}))
    assert [chunk.usage for chunk in chunks[:-1]] == [None] * (len(chunks) - 1) and chunks[-1].choices == []
    assert chunks[-1].usage == ask(server).usage
    assert all("usage" not in chunk.model_fields_set for chunk in ask(server, stream=True))


def test_tokens_are_counted_without_what_was_heard(server) -> None:
    for how in ({}, ALOUD):
        answer = ask(server, [{"role": "user", "content": [heard()]}], max_completion_tokens=2, **how).choices[0]
        text = answer.message.content if not how else answer.message.audio.transcript
        assert text == "it makes" and answer.finish_reason == "length"


# Stops.


@given(st.text(st.sampled_from("ab"), max_size=12), st.lists(st.text(st.sampled_from("ab"), min_size=1, max_size=4),
       min_size=1, max_size=3), st.data())  # fmt: skip
def test_a_stop_ends_the_text_wherever_it_is_cut(text: str, stops: list[str], data) -> None:
    at, out, stop = 0, "", StopText(stops)
    ends = [place for each in stops if (place := text.find(each)) >= 0]
    wanted = text[: min(ends)] if ends else text
    while at < len(text) and not stop.reached:
        size = data.draw(st.integers(1, 4))
        out += stop.push(text[at : at + size])
        at += size
        assert wanted.startswith(out), "nothing is given out that must be taken back"
    out += "" if stop.reached else stop.push("", last=True)
    assert out == wanted and stop.reached == bool(ends)


@pytest.mark.parametrize(
    ("stop", "said"),
    [
        ("number", "it makes the"), (["nine", "es the"], "it mak"), ("it", ""), ("seven", SAID),
        (["the number n"], "it makes"),
    ],
)  # fmt: skip
def test_an_answer_ends_before_a_stop(server, stop, said: str) -> None:
    whole = ask(server, stop=stop).choices[0]
    assert whole.message.content == said and whole.finish_reason == "stop"
    streamed = list(ask(server, stop=stop, stream=True))
    assert "".join(chunk.choices[0].delta.content or "" for chunk in streamed).strip() == said
    assert streamed[-1].choices[0].finish_reason == "stop"
    wait(lambda: server.service.pool.slots == 0)


def test_speech_ends_before_a_stop(server) -> None:
    everything = ask(server, **ALOUD).choices[0].message.audio
    for stop, said in (("number", "it makes the"), ("mber", "it makes the nu"), ("seven", SAID), ("it", "")):
        part = ask(server, stop=stop, **ALOUD).choices[0]
        assert part.message.audio.transcript == said and part.finish_reason == "stop"
        length = seconds(part.message.audio)
        if said == SAID:
            assert length == seconds(everything)
        else:
            assert length <= len(said.split()) / len(SAID.split()) * seconds(everything) + 0.1
    pcm16 = {**ALOUD, "audio": {"voice": "alloy", "format": "pcm16"}}
    deltas = [chunk.choices[0].delta.audio for chunk in ask(server, stop="number", stream=True, **pcm16)]
    assert "".join((delta and delta.transcript) or "" for delta in deltas).strip() == "it makes the"
    assert ask(server, stop="number", max_tokens=2, **ALOUD).choices[0].finish_reason == "length"


# Several answers.


def test_several_answers() -> None:
    """Each is sampled anew; with the same seed they are the same again."""
    with running(assistant=tiny_assistant(scripted=False)) as found:
        how = {"n": 3, "temperature": 1.0, "max_tokens": 8}
        first, again = (ask(found, seed=7, **how) for _ in range(2))
        texts = [choice.message.content for choice in first.choices]
        assert [choice.index for choice in first.choices] == [0, 1, 2] and len(set(texts)) == 3
        assert texts == [choice.message.content for choice in again.choices]
        assert {choice.message.content for choice in ask(found, seed=8, **how).choices} != set(texts)
        assert [ask(found, seed=7 + at, **{**how, "n": 1}).choices[0].message.content for at in range(3)] == texts
        assert ask(found, **how) != ask(found, **how), "without a seed"
        streamed = ["", "", ""]
        for chunk in ask(found, seed=7, stream=True, **how):
            streamed[chunk.choices[0].index] += chunk.choices[0].delta.content or ""
        assert [text.strip() for text in streamed] == texts
        wait(lambda: found.service.pool.slots == 0)


# Sound before, and several recordings.


def test_a_spoken_reply_is_recalled_by_its_id() -> None:
    config = ServeConfig(model="tiny", pool=ENGINE, access=AccessConfig(keys=KEYS))
    with running(config) as found:
        spoken = ask(found, key=KEYS[0], **ALOUD).choices[0].message.audio
        past = [*ASKED, {"role": "assistant", "audio": {"id": spoken.id}}, *ASKED]
        by_id = ask(found, past, key=KEYS[0]).usage
        in_words = ask(found, [*ASKED, {"role": "assistant", "content": SAID}, *ASKED], key=KEYS[0]).usage
        assert by_id == in_words and by_id.prompt_tokens == 15
        with pytest.raises(openai.BadRequestError, match="is kept") as refused:
            ask(found, past, key=KEYS[1])
        assert refused.value.code == "audio_not_found"
        pcm16 = {**ALOUD, "audio": {"voice": "alloy", "format": "pcm16"}}
        deltas = [chunk.choices[0].delta.audio for chunk in ask(found, key=KEYS[0], stream=True, **pcm16)]
        last = [delta for delta in deltas if delta][-1]
        assert last.expires_at > 0 and last.data is None
        past[1]["audio"]["id"] = last.id
        assert ask(found, past, key=KEYS[0]).usage == in_words


def test_replies_are_kept_for_a_while() -> None:
    now = 100.0
    kept = KeptReplies(lambda: now)
    assert kept.keep(0, "a", "one") == 100 + SECONDS
    now = 200.0
    for at in range(5000):
        kept.keep(0, f"b{at}", "two")
    assert len(kept._kept) <= 4096 and kept.recall(0, "b4999", "there") == "two"
    now += SECONDS
    for key, id_ in ((0, "a"), (0, "b4999"), (1, "b4999")):
        with pytest.raises(RequestError, match="there"):
            kept.recall(key, id_, "there")
    kept.keep(0, "c", "three")
    assert len(kept._kept) == 1


def test_an_earlier_recording_is_written_down(server) -> None:
    past = [{"role": "user", "content": [{"type": "text", "text": "minus two"}, heard(), heard()]},
            {"role": "assistant", "content": "it makes nine"}, *ASKED]  # fmt: skip
    usage = ask(server, past).usage
    written = 2 + 2 * len(HEARD.split()) + 3 + len(ASKED[0]["content"].split())
    assert usage.prompt_tokens - usage.prompt_tokens_details.audio_tokens == written
    assert usage.prompt_tokens_details.audio_tokens == 25


def test_several_recordings_are_one_question(server) -> None:
    answer = ask(server, [{"role": "user", "content": [heard(), heard(), {"type": "text", "text": "minus two"}]}])
    assert answer.choices[0].message.content == SAID and answer.usage.prompt_tokens_details.audio_tokens == 25
    two = [{"role": "user", "content": [heard()]}, {"role": "user", "content": [heard(), heard()]}]
    assert ask(server, two).usage.prompt_tokens_details.audio_tokens == 38


def test_a_model_of_sounds_hears_several_recordings_in_one_turn(tmp_path, monkeypatch) -> None:
    assistant = load(str(tiny_qwen2_audio(tmp_path / "qwen2-audio")))
    heard_of, end = [], type(assistant.model).end_turn

    def spied(self, state) -> None:
        heard_of.append([sum(map(len, clip)) / 16_000 for clip in state.clips])
        end(self, state)

    monkeypatch.setattr(type(assistant.model), "end_turn", spied)
    with running(assistant=assistant) as found:
        content = [heard(1.0), {"type": "text", "text": "which is louder?"}, heard(2.0)]
        ask(found, [{"role": "user", "content": content}], max_tokens=3)
    ((first, second),) = heard_of[-1:]
    assert 0.9 < first < 1.9 < second < 2.9, heard_of


# Functions.


@pytest.fixture(scope="module")
def caller():
    with running(assistant=tool_caller()) as found:
        yield found


WEATHER = [{"role": "user", "content": QUESTION}]


def test_a_function_is_called_and_its_result_told(caller) -> None:
    first = ask(caller, WEATHER, tools=[TOOL])
    (call,) = first.choices[0].message.tool_calls
    assert first.choices[0].finish_reason == "tool_calls" and first.choices[0].message.content is None
    assert call.type == "function" and call.function.name == "weather"
    assert json.loads(call.function.arguments) == json.loads(ARGUMENTS)
    assert first.usage.completion_tokens > 5, "calls are tokens too"
    result = {"role": "tool", "tool_call_id": call.id, "content": RESULT}
    told = ask(caller, [*WEATHER, first.choices[0].message.model_dump(), result], tools=[TOOL]).choices[0]
    assert told.message.content == TOLD and told.finish_reason == "stop" and told.message.tool_calls is None
    wait(lambda: caller.service.pool.slots == 0)


def test_a_spoken_question_calls_a_function(caller) -> None:
    """Asked aloud, it is called and told, though this model writes nothing down: the recording is heard again."""
    spoken = [{"role": "user", "content": [heard(1.0)]}]
    message = ask(caller, spoken, tools=[TOOL]).choices[0].message
    (call,) = message.tool_calls
    assert call.function.name == "weather" and json.loads(call.function.arguments) == json.loads(ARGUMENTS)
    answered = [message.model_dump(), {"role": "tool", "tool_call_id": call.id, "content": RESULT}]
    told = ask(caller, [*spoken, *answered], tools=[TOOL])
    assert told.choices[0].message.content == TOLD and told.usage.prompt_tokens_details.audio_tokens > 0
    said = {"role": "assistant", "content": TOLD}
    twice = ask(caller, [*spoken, *answered, said, *spoken, *answered], tools=[TOOL]).usage.prompt_tokens_details
    assert twice.audio_tokens > 1.8 * told.usage.prompt_tokens_details.audio_tokens, "each is heard where it stands"
    with pytest.raises(openai.BadRequestError, match="give earlier audio as text"):
        ask(caller, [*spoken, said, *WEATHER], tools=[TOOL])
    assert ask(caller, [*WEATHER, *answered], tools=[TOOL]).choices[0].message.content == TOLD


def test_a_call_is_streamed(caller) -> None:
    chunks = list(ask(caller, WEATHER, tools=[TOOL], stream=True))
    deltas = [call for chunk in chunks for call in chunk.choices[0].delta.tool_calls or []]
    assert deltas[0].id and deltas[0].type == "function" and deltas[0].function.name == "weather"
    assert len(deltas) > 1 and all(delta.id is None and delta.function.name is None for delta in deltas[1:])
    arguments = "".join(delta.function.arguments for delta in deltas)
    assert json.loads(arguments) == json.loads(ARGUMENTS) and {delta.index for delta in deltas} == {0}
    assert chunks[-1].choices[0].finish_reason == "tool_calls"
    assert not any(chunk.choices[0].delta.content for chunk in chunks), "nothing of a call is said"


def test_tool_choice(caller) -> None:
    assert ask(caller, WEATHER).choices[0].message.content == UNTOLD
    none = ask(caller, WEATHER, tools=[TOOL], tool_choice="none").choices[0]
    assert none.message.tool_calls is None and none.finish_reason != "tool_calls"
    other = {"type": "function", "function": {"name": "clock", "strict": True}}
    by_name = {"type": "function", "function": {"name": "clock"}}
    forced = ask(caller, WEATHER, tools=[TOOL, other], tool_choice=by_name, max_tokens=40)
    assert forced.choices[0].message.tool_calls[0].function.name == "clock"
    assert forced.model_extra["warnings"] == ["tools: strict has no effect: arguments are not held to the schema"]
    required = ask(caller, [{"role": "user", "content": "hello"}], tools=[TOOL], tool_choice="required", max_tokens=40)
    assert required.choices[0].message.tool_calls
    one = ask(caller, WEATHER, tools=[TOOL], parallel_tool_calls=False).choices[0]
    assert len(one.message.tool_calls) == 1 and one.finish_reason == "tool_calls"


def test_a_call_is_not_spoken(caller) -> None:
    for how in ({}, {"stop": "never"}):
        message = ask(caller, WEATHER, tools=[TOOL], **ALOUD, **how).choices[0].message
        assert message.tool_calls[0].function.name == "weather" and message.audio is None
