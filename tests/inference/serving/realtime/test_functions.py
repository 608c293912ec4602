"""Functions over Realtime, by the official client, with a model that was taught to call one; and what a model says that
has learnt none. Every event is one of the package's own types."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

pytest.importorskip("fastapi")
from openai.types.realtime import RealtimeServerEvent
from pydantic import TypeAdapter
from running_server import Running, collect, pcm16, running, sound, types, wait
from tiny_assistant import SAID
from tiny_chat import TOOL
from tool_caller import ARGUMENTS, GREETING, QUESTION, RESULT, TOLD, UNTOLD, tool_caller

WEATHER: dict[str, Any] = {"type": "function", **TOOL["function"]}
EVENTS: TypeAdapter[Any] = TypeAdapter(RealtimeServerEvent)
CALLED = [
    "response.created",
    "response.output_item.added",
    "conversation.item.added",
    "response.function_call_arguments.delta",
    "response.function_call_arguments.done",
    "response.output_item.done",
    "conversation.item.done",
    "response.done",
]


@pytest.fixture(scope="module")
def server() -> Iterator[Running]:
    with running(assistant=tool_caller()) as found:
        yield found


@pytest.fixture
def connection(server: Running) -> Iterator[Any]:
    with server.client().realtime.connect(model="tiny") as opened:
        opened.recv()
        yield opened
    wait(lambda: server.service.pool.slots == 0)


def declare(connection: Any, **session: Any) -> Any:
    connection.session.update(session={"type": "realtime", "tools": [WEATHER], **session})
    return collect(connection, "session.updated")[-1].session


def ask(connection: Any, text: str = QUESTION, **response: Any) -> list[Any]:
    item: Any = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": text}]}
    connection.conversation.item.create(item=item)
    collect(connection, "conversation.item.done")
    return respond(connection, **response)


def respond(connection: Any, **response: Any) -> list[Any]:
    connection.response.create(response=response)
    events = collect(connection, "response.done")
    for event in events:
        EVENTS.validate_python(event.model_dump(exclude_unset=True))
    return events


def told(connection: Any, call: Any) -> list[Any]:
    """What is said of a function's result."""
    item: Any = {"type": "function_call_output", "call_id": call.call_id, "output": RESULT}
    connection.conversation.item.create(item=item)
    added = collect(connection, "conversation.item.done")[-1].item
    assert (added.type, added.call_id, added.output) == ("function_call_output", call.call_id, RESULT)
    return respond(connection)


def test_a_call_and_its_result(server: Running, connection: Any) -> None:
    assert declare(connection).tools[0].name == "weather"
    events = ask(connection)
    assert types(events) == CALLED
    (call,) = events[-1].response.output
    assert (call.type, call.name, call.arguments, call.status) == ("function_call", "weather", ARGUMENTS, "completed")
    deltas = [event.delta for event in events if event.type == CALLED[3]]
    assert "".join(deltas) == ARGUMENTS and len(deltas) > 1, "streamed"
    done = next(event for event in events if event.type == CALLED[4])
    assert (done.name, done.arguments, done.call_id, done.item_id) == ("weather", ARGUMENTS, call.call_id, call.id)
    assert events[1].item.arguments == "" and events[1].item.status == "in_progress"
    answer = told(connection, call)[-1].response
    assert answer.output[0].content[0].transcript == TOLD and answer.status == "completed"
    (session,) = server.service.sessions
    assert session.items.past() == [(QUESTION, TOLD)]
    events = ask(connection, tool_choice="none", output_modalities=["text"])
    assert all(item.type == "message" for item in events[-1].response.output), "for this response, none"
    (call,) = respond(connection, instructions="", tool_choice={"type": "function", "name": "weather"},
                      max_output_tokens=30)[-1].response.output  # fmt: skip
    assert call.name == "weather"


def test_a_call_is_remembered_where_the_conversation_is_read_again(connection: Any) -> None:
    """Other instructions between call and result: the model reads all of it anew, the call too."""
    declare(connection)
    (call,) = ask(connection)[-1].response.output
    connection.session.update(session={"type": "realtime", "instructions": "Greet.", "max_output_tokens": 20})
    collect(connection, "session.updated")
    connection.session.update(session={"type": "realtime", "instructions": ""})
    collect(connection, "session.updated")
    assert told(connection, call)[-1].response.output[0].type == "message"


def test_a_spoken_question_calls_too(connection: Any) -> None:
    declare(connection, audio={"input": {"turn_detection": {"type": "server_vad"}}})
    connection.input_audio_buffer.append(audio=pcm16(sound((0.4, False), (1.0, True), (3.0, False))))
    events = collect(connection, "response.done")
    assert types(events, "conversation.item.input_audio_transcription.failed") == [
        "input_audio_buffer.speech_started",
        "input_audio_buffer.speech_stopped",
        "input_audio_buffer.committed",
        "conversation.item.added",
        "conversation.item.done",
        *CALLED,
    ]
    (call,) = events[-1].response.output
    assert (call.name, call.arguments) == ("weather", ARGUMENTS)
    events = told(connection, call)
    assert events[-1].response.output[0].content[0].transcript == TOLD
    assert any(event.type == "response.output_audio.delta" for event in events)


def test_outside_the_conversation(connection: Any) -> None:
    """With tools of its own; without, it has none."""
    item: Any = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": QUESTION}]}
    outside: Any = {"conversation": "none", "input": [item], "output_modalities": ["text"]}
    events = respond(connection, **outside, tools=[WEATHER])
    assert types(events) == [kind for kind in CALLED if not kind.startswith("conversation")]
    (call,) = events[-1].response.output
    assert call.arguments == ARGUMENTS
    assert respond(connection, **outside)[-1].response.output[0].content[0].text == UNTOLD
    made: Any = {"type": "function_call", "name": "weather", "call_id": "c", "arguments": ARGUMENTS}
    result: Any = {"type": "function_call_output", "call_id": "c", "output": RESULT}
    outside["input"] = [item, made, result]
    assert respond(connection, **outside, tools=[WEATHER])[-1].response.output[0].content[0].text == TOLD


def test_the_assistant_speaks_first(connection: Any) -> None:
    """With instructions, without any, and asked with an input of its own; then the conversation goes on."""
    for response in ({"instructions": "Greet."}, {}, {"input": []}):
        answer = respond(connection, **response)[-1].response
        assert answer.output[0].content[0].transcript == GREETING, response
        connection.conversation.item.delete(item_id=answer.output[0].id)
        collect(connection, "conversation.item.deleted")
    item: Any = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": QUESTION}]}
    answer = respond(connection, input=[item])[-1].response
    assert answer.output[0].content[0].transcript == UNTOLD and answer.conversation_id
    connection.conversation.item.retrieve(item_id=answer.output[0].id)
    assert collect(connection, "conversation.item.retrieved")[-1].item.content[0].transcript == UNTOLD


def test_a_result_belongs_to_a_call(connection: Any) -> None:
    item: Any = {"type": "function_call_output", "call_id": "none", "output": ""}
    connection.conversation.item.create(item=item)
    error = collect(connection, "error")[-1].error
    assert error.param == "item.call_id" and "'none'" in error.message
    connection.response.create(response={"tool_choice": "required"})
    assert collect(connection, "error")[-1].error.param == "response.tool_choice"


def test_a_model_that_has_learnt_no_calls_says_so_and_goes_on() -> None:
    with running() as found, found.client().realtime.connect(model="tiny") as connection:
        connection.recv()
        session = declare(connection, tool_choice="required")
        assert session.model_extra["warnings"] == ["this model calls no tools: it has learnt no way to"]
        done = ask(connection, "what is 3 plus 4")[-1].response
        assert done.output[0].content[0].transcript == SAID
        assert done.model_extra["warnings"] == ["this model calls no tools: it has learnt no way to"]
        greeted = respond(connection, instructions="Greet the user.")[-1].response
        assert greeted.status == "completed" and len(greeted.model_extra["warnings"]) == 2
