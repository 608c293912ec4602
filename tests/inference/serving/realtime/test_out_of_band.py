"""Responses outside the conversation, and what a client may say of one response, by the official client."""

from __future__ import annotations

import asyncio
import base64
from typing import Any

import numpy as np
import pytest

pytest.importorskip("fastapi")
from running_server import collect, pcm16, running, sound, types, wait
from tiny_assistant import SAID, tiny_assistant

from duologue.inference.assistant.one_shot import OneShotRequest
from duologue.inference.serving.app import ServeConfig
from duologue.inference.serving.protocol.formats import AudioFormat, decode
from duologue.inference.serving.requests.out_of_band import OutOfBand, Question
from duologue.inference.serving.workers.pool import WorkerPoolConfig
from duologue.model.speech_lm import Sampling

OUTSIDE = [
    "response.created",
    "response.output_item.added",
    "response.content_part.added",
    "response.output_text.delta",
    "response.output_text.done",
    "response.content_part.done",
    "response.output_item.done",
    "response.done",
]
MANUAL = {"type": "realtime", "audio": {"input": {"turn_detection": None}}}


@pytest.fixture(scope="module")
def server():
    with running() as found:
        yield found


@pytest.fixture
def connection(server):
    with server.client().realtime.connect(model="tiny") as opened:
        opened.recv()
        yield opened
    wait(lambda: server.service.pool.slots == 0)


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What is told to a model that answers outside the conversation."""
    seen: list[Any] = []
    for name in ("recall", "read", "hear", "about"):
        usual = getattr(OneShotRequest, name)

        def spy(self: OneShotRequest, *args: Any, name: str = name, usual: Any = usual) -> Any:
            seen.append((name, *(len(arg) if isinstance(arg, np.ndarray) else arg for arg in args)))
            return usual(self, *args)

        monkeypatch.setattr(OneShotRequest, name, spy)
    return seen


def message(role: str, text: str, **more: str) -> dict[str, Any]:
    kind = "output_text" if role == "assistant" else "input_text"
    return {"type": "message", "role": role, "content": [{"type": kind, "text": text}], **more}


def create(connection, *items: dict[str, Any]) -> None:
    for item in items:
        connection.conversation.item.create(item=item)
        collect(connection, "conversation.item.done")


def test_it_answers_the_conversation_and_leaves_nothing_in_it(server, connection, told) -> None:
    create(
        connection, message("user", "what is two plus two"), message("assistant", "it makes nine"),
        message("user", "what is 3 plus 4", id="last"),
    )  # fmt: skip
    connection.response.create(
        response={"conversation": "none", "output_modalities": ["text"], "metadata": {"topic": "sums"}}
    )
    events = collect(connection, "response.done")
    assert types(events) == OUTSIDE
    assert events[0].response.conversation_id is None
    done = events[-1].response
    assert done.status == "completed" and done.metadata == {"topic": "sums"}
    assert done.output[0].content[0].text == SAID == "".join(e.delta for e in events if e.type.endswith("text.delta"))
    assert told == [("recall", "what is two plus two", "it makes nine"), ("read", "what is 3 plus 4")]
    used = done.usage
    assert (used.input_tokens, used.output_tokens, used.total_tokens) == (8 + 5, 5, 18)
    assert used.input_token_details.cached_tokens == 8 and used.output_token_details.audio_tokens == 0
    (session,) = server.service.sessions
    assert [item.id for item in session.items][-1] == "last"
    connection.response.create()  # the question still waits
    assert collect(connection, "response.done")[-1].response.conversation_id is not None


def test_an_input_of_its_own_takes_the_conversations_place(connection, told) -> None:
    create(connection, message("user", "what is two plus two", id="first"), message("assistant", "it makes nine"))
    said = {"type": "message", "role": "assistant", "content": [{"type": "output_audio", "transcript": "good"}]}
    heard = {
        "type": "message", "role": "user", "content": [
            {"type": "input_audio", "audio": pcm16(sound((0.8, True)))},
            {"type": "input_text", "text": "how many beeps were there"},
        ],
    }  # fmt: skip
    connection.response.create(
        response={
            "conversation": "none",
            "input": [{"type": "item_reference", "id": "first"}, said, heard],
            "instructions": "be brief",
            "audio": {"output": {"format": {"type": "audio/pcmu"}}},
        }
    )
    events = collect(connection, "response.done")
    assert told[0] == ("recall", "what is two plus two", "good") and told[-1] == ("about", "how many beeps were there")
    heard_s = sum(what[1] for what in told[1:-1] if what[0] == "hear") / 16_000
    assert 0.8 <= heard_s <= 0.8 + 2 * 0.4, "and a little silence at its ends"
    done = events[-1].response
    assert done.audio.output.format.type == "audio/pcmu" and done.output[0].content[0].transcript == SAID
    sounds = [base64.b64decode(event.delta) for event in events if event.type == "response.output_audio.delta"]
    spoken = decode(b"".join(sounds), AudioFormat.MU_LAW)
    assert 1 < len(spoken) / 8_000 < 8 and np.abs(spoken).max() > 0.001
    assert done.usage.input_token_details.audio_tokens == 10
    connection.response.create(response={"conversation": "none", "input": []})
    assert collect(connection, "response.done")[-1].response.status == "completed"  # it speaks first
    connection.response.create(
        event_id="which", response={"conversation": "none", "input": [{"type": "item_reference", "id": "no such"}]}
    )
    error = collect(connection, "error")[-1].error
    assert error.code == "item_not_found" and error.event_id == "which"
    connection.response.create(event_id="empty", response={"conversation": "none", "input": [message("user", " ")]})
    assert collect(connection, "error")[-1].error.event_id == "empty"


def test_several_at_once_beside_the_conversations_own(connection) -> None:
    connection.session.update(session=MANUAL)
    connection.input_audio_buffer.append(audio=pcm16(sound((1.0, True))))
    connection.input_audio_buffer.commit()
    connection.response.create()
    question = {"conversation": "none", "input": [message("user", "what is 3 plus 4")]}
    for n in range(3):
        connection.response.create(response={**question, "metadata": {"n": str(n)}})
    done = [event.response for event in collect(connection, "response.done", 4) if event.type == "response.done"]
    assert [response.status for response in done] == ["completed"] * 4
    assert {(response.metadata or {}).get("n") for response in done} == {None, "0", "1", "2"}
    assert all(response.output[0].content[0].transcript == SAID for response in done)


def test_one_is_cancelled_by_its_id(connection) -> None:
    connection.response.create(response={"conversation": "none", "input": [message("user", "what is 3 plus 4")]})
    created = collect(connection, "response.created")[-1].response
    connection.response.cancel(response_id=created.id)
    done = collect(connection, "response.done")[-1].response
    assert done.id == created.id and done.status_details.reason == "client_cancelled"
    connection.response.cancel(response_id=created.id)
    assert collect(connection, "error")[-1].error.code == "response_cancel_not_active"


def test_one_that_is_cancelled_before_it_begins_gives_its_slot_back(server) -> None:
    """As when a client asks and hangs up at once."""

    async def at_once() -> None:
        question = Question([], "what is two plus two", np.zeros(0, np.float32))
        aside = OutOfBand(server.service.questioner(), 16_000, question, Sampling(), None, None)
        assert server.service.pool.slots == 1
        aside.task.cancel()
        await asyncio.wait([aside.task])
        await asyncio.sleep(0)

    asyncio.run_coroutine_threadsafe(at_once(), server.service.pool._loop).result(30)
    assert server.service.pool.slots == 0


def test_a_limit_is_the_refused_responses_alone(connection) -> None:
    """What could not be answered leaves no trace in what is."""
    create(connection, message("user", " "))
    connection.response.create(response={"max_output_tokens": 2})
    assert "no words" in collect(connection, "error")[-1].error.message
    create(connection, message("user", "what is 3 plus 4"))
    connection.response.create()
    done = collect(connection, "response.done")[-1].response
    assert done.status == "completed" and done.output[0].content[0].transcript == SAID


def test_as_many_tokens_as_it_may_have(connection) -> None:
    question = {"conversation": "none", "input": [message("user", "what is 3 plus 4")]}
    connection.response.create(response={**question, "max_output_tokens": 2})
    done = collect(connection, "response.done")[-1].response
    assert done.status == "incomplete" and done.status_details.reason == "max_output_tokens"
    assert done.max_output_tokens == 2 and done.output[0].content[0].transcript == " ".join(SAID.split()[:2])


def test_where_there_is_no_slot_that_is_said() -> None:
    config = ServeConfig(model="tiny", pool=WorkerPoolConfig(sessions=1, late_ms=1e9))
    with running(config) as found, found.client().realtime.connect(model="tiny") as connection:
        create(connection, message("user", "what is 3 plus 4"))
        connection.response.create(response={"conversation": "none"}, event_id="outside")
        error = collect(connection, "error")[-1].error
        assert error.code == "server_overloaded" and error.type == "server_error" and error.event_id == "outside"
        connection.response.create()
        assert collect(connection, "response.done")[-1].response.status == "completed"


def test_a_response_has_a_format_of_its_own(connection) -> None:
    create(connection, message("user", "what is 3 plus 4"))
    connection.response.create(response={"audio": {"output": {"format": {"type": "audio/pcma"}}}})
    events = collect(connection, "response.done")
    sounds = [base64.b64decode(event.delta) for event in events if event.type == "response.output_audio.delta"]
    assert 1 < len(b"".join(sounds)) / 8_000 < 8
    assert events[-1].response.audio.output.format.type == "audio/pcma"


def test_a_refused_response_leaves_the_turn_to_be_answered(connection) -> None:
    connection.session.update(session=MANUAL)
    connection.input_audio_buffer.append(audio=pcm16(sound((1.0, True))))
    connection.input_audio_buffer.commit()
    connection.response.create(response={"max_output_tokens": 0})
    assert collect(connection, "error")[-1].error.param == "response.max_output_tokens"
    connection.response.create()
    assert collect(connection, "response.done")[-1].response.output[0].content[0].transcript == SAID


def test_usage_counts_words_and_frames(connection) -> None:
    connection.session.update(session=MANUAL)
    create(connection, message("user", "what is 3 plus 4"))
    connection.response.create(response={"output_modalities": ["text"]})
    used = collect(connection, "response.done")[-1].response.usage
    assert used.model_dump(exclude_none=True) == {
        "total_tokens": 10, "input_tokens": 5, "output_tokens": 5,
        "input_token_details": {
            "text_tokens": 5, "audio_tokens": 0, "image_tokens": 0, "cached_tokens": 0,
            "cached_tokens_details": {"text_tokens": 0, "audio_tokens": 0, "image_tokens": 0},
        },
        "output_token_details": {"text_tokens": 5, "audio_tokens": 0},
    }  # fmt: skip
    connection.input_audio_buffer.append(audio=pcm16(sound((1.0, True))))
    connection.input_audio_buffer.commit()
    connection.response.create()
    events = collect(connection, "response.done")
    used, asked = events[-1].response.usage, used
    samples = sum(len(base64.b64decode(e.delta)) // 2 for e in events if e.type == "response.output_audio.delta")
    assert used.input_token_details.cached_tokens == asked.total_tokens == used.input_token_details.text_tokens
    assert used.input_token_details.audio_tokens == 13  # 1 s, the last frame filled up
    assert abs(used.output_token_details.audio_tokens - samples / 24_000 / 0.08) <= 1
    assert used.total_tokens == used.input_tokens + used.output_tokens


def test_a_model_that_writes_nothing_down_says_so() -> None:
    assistant = tiny_assistant(scripted=False)
    for marker in ("transcript", "reply"):  # as LLaMA-Omni's layout
        object.__setattr__(assistant.model.config.layout, marker, None)
    with running(assistant=assistant) as found, found.client().realtime.connect(model="tiny") as connection:
        audio = {"input": {"turn_detection": None, "transcription": {"model": "tiny"}}}
        connection.session.update(session={"type": "realtime", "audio": audio})
        connection.input_audio_buffer.append(audio=pcm16(sound((0.5, True))))
        connection.input_audio_buffer.commit()
        connection.response.create(response={"max_output_tokens": 2})
        failed = [event for event in collect(connection, "response.done") if "transcription" in event.type]
        assert [event.type for event in failed] == ["conversation.item.input_audio_transcription.failed"]
        assert "does not write down" in failed[0].error.message
