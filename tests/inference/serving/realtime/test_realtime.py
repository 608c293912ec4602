"""The Realtime protocol, spoken by the official client to a server over a socket."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("fastapi")
from openai import AsyncOpenAI
from running_server import collect, pcm16, running, samples, sound, types
from tiny_assistant import HEARD, SAID

from duologue.inference import serving
from duologue.inference.serving.protocol.errors import RequestError
from duologue.inference.serving.protocol.events import CLIENT, SERVER
from duologue.inference.serving.protocol.items import ITEMS, Item, Items
from duologue.inference.serving.realtime.realtime import RealtimeSession

ANSWER = [
    "response.created",
    "response.output_item.added",
    "conversation.item.added",
    "response.content_part.added",
]
ANSWERED = [
    "response.output_audio.done",
    "response.output_audio_transcript.done",
    "response.content_part.done",
    "response.output_item.done",
    "conversation.item.done",
    "response.done",
]
DELTAS = ("response.output_audio.delta", "response.output_audio_transcript.delta")
TRANSCRIPTION = "conversation.item.input_audio_transcription"
WRITES = {"type": "realtime", "audio": {"input": {"transcription": {"model": "tiny"}}}}


@pytest.fixture(scope="module")
def server():
    with running() as found:
        yield found


@pytest.fixture
def connection(server):
    with server.client().realtime.connect(model="gpt-realtime") as opened:
        created = opened.recv()
        assert created.type == "session.created" and created.session.model == "tiny"
        yield opened


def manual(connection, **session) -> None:
    audio = {"input": {"turn_detection": None, "transcription": {"model": "tiny"}}}
    connection.session.update(session={"type": "realtime", "audio": audio, **session})
    collect(connection, "session.updated")


def turn(connection, seconds: float = 1.0, seed: int = 0) -> None:
    """Append, commit and ask for an answer."""
    connection.input_audio_buffer.append(audio=pcm16(sound((seconds, True), seed=seed)))
    connection.input_audio_buffer.commit()
    connection.response.create()


def test_a_spoken_turn_has_the_documented_order(connection) -> None:
    connection.session.update(session=WRITES)
    collect(connection, "session.updated")
    connection.input_audio_buffer.append(audio=pcm16(sound((0.4, False), (1.0, True), (8.0, False))))
    events = collect(connection, "response.done")
    assert types(events, *DELTAS, f"{TRANSCRIPTION}.delta", f"{TRANSCRIPTION}.completed") == [
        "input_audio_buffer.speech_started",
        "input_audio_buffer.speech_stopped",
        "input_audio_buffer.committed",
        "conversation.item.added",
        "conversation.item.done",
        *ANSWER,
        *ANSWERED,
    ]
    by = {event.type: event for event in events}
    started, stopped = by["input_audio_buffer.speech_started"], by["input_audio_buffer.speech_stopped"]
    assert abs(started.audio_start_ms + 240 - 400) <= 64 and abs(stopped.audio_end_ms - 1400) <= 64
    assert started.item_id == stopped.item_id == by["input_audio_buffer.committed"].item_id
    assert by[f"{TRANSCRIPTION}.completed"].transcript == HEARD
    done = by["response.done"].response
    assert done.status == "completed" and done.output[0].content[0].transcript == SAID
    assert "".join(event.delta for event in events if event.type == DELTAS[1]) == SAID
    assert done.usage.total_tokens == done.usage.input_tokens + done.usage.output_tokens > 20
    spoken = np.concatenate([samples(event.delta) for event in events if event.type == DELTAS[0]])
    assert 1 < len(spoken) / 24_000 < 8 and np.abs(spoken).max() > 0.001


QUESTION = ((1.0, True), (0.8, False))
THREE_TURNS = ((0.4, False), *QUESTION, (7.0, False), *QUESTION, (0.8, False), *QUESTION, (7.0, False))


def check_three_turns(events) -> None:
    """The first answer is heard, the second is spoken over, the third is heard; what was cut is what was heard."""
    kinds = [event.type for event in events]
    done = [event.response for event in events if event.type == "response.done"]
    assert [response.status for response in done] == ["completed", "cancelled", "completed"]
    assert done[1].status_details.reason == "turn_detected"
    cut = done[1].output[0]
    heard = cut.content[0].transcript
    assert SAID.startswith(heard) and 0 < len(heard) < len(SAID)
    assert cut.status == "incomplete"
    truncated = next(event for event in events if event.type == "conversation.item.truncated")
    sent = sum(len(samples(e.delta)) for e in events if e.type == DELTAS[0] and e.item_id == cut.id)
    assert truncated.item_id == cut.id and abs(sent / 24 - truncated.audio_end_ms) <= 30
    second = [i for i, kind in enumerate(kinds) if kind == "response.done"][1]
    assert kinds.index("input_audio_buffer.speech_started", kinds.index("response.done")) < second
    begun = [i for i, kind in enumerate(kinds) if kind == "input_audio_buffer.speech_started"]
    assert len(begun) == 3 and begun[2] < second < kinds.index("conversation.item.truncated")


def test_three_turns_with_an_interruption(server, connection) -> None:
    connection.input_audio_buffer.append(audio=pcm16(sound(*THREE_TURNS)))
    events = collect(connection, "response.done", 3)
    check_three_turns(events)
    assert "duologue_interruptions_total 1.0" in server.service.metrics.text().decode()
    # Told that less was played than sent, the session knows of fewer words.
    last = next(event for event in reversed(events) if event.type == "response.done").response.output[0]
    sent = sum(len(samples(e.delta)) for e in events if e.type == DELTAS[0] and e.item_id == last.id) // 24
    connection.conversation.item.truncate(item_id=last.id, content_index=0, audio_end_ms=sent + 1)  # by its own clock
    assert collect(connection, "conversation.item.truncated")[-1].audio_end_ms == sent
    connection.conversation.item.truncate(item_id=last.id, content_index=0, audio_end_ms=300)
    collect(connection, "conversation.item.truncated")
    connection.conversation.item.retrieve(item_id=last.id)
    item = collect(connection, "conversation.item.retrieved")[-1].item
    assert SAID.startswith(item.content[0].transcript) and len(item.content[0].transcript) < len(SAID)
    assert abs(len(samples(item.content[0].audio)) / 24_000 - 0.3) < 0.01


def test_three_turns_with_the_async_client(server) -> None:
    async def talk() -> list:
        client = AsyncOpenAI(api_key="any", base_url=f"{server.url}/v1")
        async with client.realtime.connect(model="gpt-realtime") as connection:
            await connection.input_audio_buffer.append(audio=pcm16(sound(*THREE_TURNS)))
            seen = []
            async for event in connection:
                seen.append(event)
                if [each.type for each in seen].count(event.type) == 3 and event.type == "response.done":
                    await connection.conversation.item.retrieve(item_id=event.response.output[0].id)
                if event.type == "conversation.item.retrieved":
                    assert event.item.content[0].transcript == SAID
                    return seen
        raise AssertionError

    events = asyncio.run(talk())
    assert events[0].type == "session.created"
    check_three_turns(events)


def test_without_turn_detection_the_client_says_when(connection) -> None:
    manual(connection)
    for part in np.array_split(sound((0.4, False), (1.0, True), (0.6, False), (1.0, True)), 7):
        connection.input_audio_buffer.append(audio=pcm16(part))
    connection.input_audio_buffer.commit()
    assert types(collect(connection, f"{TRANSCRIPTION}.completed")) == [
        "input_audio_buffer.committed",
        "conversation.item.added",
        "conversation.item.done",
        f"{TRANSCRIPTION}.delta",
        f"{TRANSCRIPTION}.completed",
    ]
    connection.response.create()
    events = collect(connection, "response.done")
    assert types(events, *DELTAS) == [*ANSWER, *ANSWERED]
    assert events[-1].response.output[0].content[0].transcript == SAID
    # What is appended while it speaks waits; a cleared buffer is heard by nobody.
    turn(connection)
    collect(connection, DELTAS[0])
    connection.input_audio_buffer.append(audio=pcm16(sound((1.0, True))))
    connection.input_audio_buffer.clear()
    assert collect(connection, "response.done")[-1].response.status == "completed"
    connection.send({"type": "input_audio_buffer.commit", "event_id": "mine"})
    error = collect(connection, "error")[-1].error
    assert error.code == "input_audio_buffer_commit_empty" and error.event_id == "mine"


def test_what_is_not_committed_waits_for_a_response_to_something_else(connection) -> None:
    """As of a microphone that is open all the time."""
    manual(connection)
    connection.input_audio_buffer.append(audio=pcm16(sound((1.0, True))))
    content: Any = [{"type": "input_text", "text": "what is 3 plus 4"}]
    connection.conversation.item.create(item={"type": "message", "role": "user", "content": content})
    connection.response.create()
    connection.input_audio_buffer.append(audio=pcm16(sound((1.0, True), seed=1)))
    assert collect(connection, "response.done")[-1].response.status == "completed"
    connection.input_audio_buffer.commit()
    connection.response.create()
    events = collect(connection, "response.done")
    assert events[-1].response.status == "completed"
    (heard,) = (event for event in events if event.type == "input_audio_buffer.committed")
    connection.conversation.item.retrieve(item_id=heard.item_id)
    (part,) = collect(connection, "conversation.item.retrieved")[-1].item.content
    assert part.transcript == HEARD and abs(len(samples(part.audio)) / 24_000 - 2) < 0.1


def test_two_commits_before_an_answer_are_one_question(connection) -> None:
    manual(connection)
    for seed in (1, 2):
        connection.input_audio_buffer.append(audio=pcm16(sound((0.5, True), seed=seed)))
        connection.input_audio_buffer.commit()
    connection.response.create()
    events = collect(connection, "response.done")
    assert sum(event.type == "input_audio_buffer.committed" for event in events) == 2
    assert events[-1].response.output[0].content[0].transcript == SAID


def test_text_in_text_out(connection, server) -> None:
    connection.conversation.item.create(
        item={"type": "message", "role": "user", "content": [{"type": "input_text", "text": "what is 3 plus 4"}]}
    )
    connection.response.create(response={"output_modalities": ["text"], "metadata": {"a": "b"}})
    events = collect(connection, "response.done")
    assert types(events) == [
        "conversation.item.added",
        "conversation.item.done",
        *ANSWER,
        "response.output_text.delta",
        "response.output_text.done",
        *ANSWERED[2:],
    ]
    response = events[-1].response
    assert response.output[0].content[0].text == SAID and response.metadata == {"a": "b"}
    connection.conversation.item.create(
        item={"type": "message", "role": "user", "content": [{"type": "input_text", "text": "  "}]}
    )
    connection.response.create()
    assert "no words" in collect(connection, "error")[-1].error.message


def test_items_come_and_go_and_the_model_remembers_what_is_left(connection, server) -> None:
    def words(role: str, text: str, **more: str) -> dict:
        kind = "input_text" if role == "user" else "output_text"
        return {"type": "message", "role": role, "content": [{"type": kind, "text": text}], **more}

    (session,) = server.service.sessions
    line = session.conversation.port.slot.line
    connection.conversation.item.create(item=words("user", "what is two plus two", id="question"))
    connection.conversation.item.create(
        item=words("assistant", "it makes nine", id="answer"), previous_item_id="question"
    )
    connection.conversation.item.create(item=words("user", "seven", id="first"), previous_item_id="root")
    added = [event for event in collect(connection, "conversation.item.done", 3) if event.type.endswith("added")]
    assert [event.previous_item_id for event in added] == [None, "question", None]
    assert [item.id for item in session.items] == ["first", "question", "answer"]
    connection.conversation.item.delete(item_id="first")
    collect(connection, "conversation.item.deleted")
    connection.send({"type": "conversation.item.delete", "item_id": "first", "event_id": "again"})
    error = collect(connection, "error")[-1].error
    assert error.code == "item_delete_invalid_item_id" and error.event_id == "again"
    manual(connection)
    turn(connection)
    collect(connection, "response.done")
    assert line and session.items.past() == [("what is two plus two", "it makes nine"), (HEARD, SAID)]


def test_an_audio_item_is_a_question(connection) -> None:
    manual(connection)
    content = [{"type": "input_audio", "audio": pcm16(sound((1.0, True)))}]
    connection.conversation.item.create(item={"type": "message", "role": "user", "content": content})
    connection.response.create()
    events = collect(connection, "response.done")
    assert events[-1].response.output[0].content[0].transcript == SAID
    heard = next(event for event in events if event.type == f"{TRANSCRIPTION}.completed")
    assert heard.transcript == HEARD


def test_a_written_question_about_a_sound_is_its_last_words(connection) -> None:
    """The model reads it behind what it heard, and then answers; the next turn knows nothing of it."""
    manual(connection)
    content = [
        {"type": "input_audio", "audio": pcm16(sound((1.0, True)))},
        {"type": "input_text", "text": "how many beeps were there"},
    ]
    connection.conversation.item.create(item={"type": "message", "role": "user", "content": content, "id": "beeps"})
    connection.response.create()
    events = collect(connection, "response.done")
    assert events[-1].response.output[0].content[0].transcript == SAID
    heard = [event.transcript for event in events if event.type == f"{TRANSCRIPTION}.completed"]
    assert heard == [f"{HEARD} how many beeps were there"]
    connection.conversation.item.retrieve(item_id="beeps")
    sound_, text = collect(connection, "conversation.item.retrieved")[-1].item.content
    assert sound_.transcript == heard[0] and text.text == "how many beeps were there"
    turn(connection)
    events = collect(connection, "response.done")
    assert [event.transcript for event in events if event.type == f"{TRANSCRIPTION}.completed"] == [HEARD]


def test_cancel(connection) -> None:
    manual(connection)
    turn(connection)
    collect(connection, DELTAS[0], 5)
    connection.response.cancel()
    response = collect(connection, "response.done")[-1].response
    assert response.status == "cancelled" and response.status_details.reason == "client_cancelled"
    assert SAID.startswith(response.output[0].content[0].transcript)
    assert response.output[0].content[0].transcript != SAID
    connection.response.cancel()
    assert collect(connection, "error")[-1].error.code == "response_cancel_not_active"
    turn(connection)
    assert collect(connection, "response.done")[-1].response.status == "completed"


def test_an_answer_may_be_short(connection) -> None:
    connection.conversation.item.create(
        item={"type": "message", "role": "user", "content": [{"type": "input_text", "text": "what is 3 plus 4"}]}
    )
    connection.response.create(response={"max_output_tokens": 2})
    response = collect(connection, "response.done")[-1].response
    assert response.status == "incomplete" and response.status_details.reason == "max_output_tokens"
    assert response.output[0].content[0].transcript == " ".join(SAID.split()[:2])


@pytest.mark.parametrize("kind", ["audio/pcmu", "audio/pcma"])
def test_telephone_sound(connection, kind: str) -> None:
    import base64

    import soundfile  # noqa: F401
    import soxr

    from duologue.inference.serving.protocol.formats import AudioFormat, decode, encode

    law = AudioFormat(kind)
    form = {"format": {"type": kind}}
    connection.session.update(session={"type": "realtime", "audio": {"input": form, "output": form}})
    collect(connection, "session.updated")
    heard = encode(soxr.resample(sound((0.4, False), (1.0, True), (8.0, False)), 16_000, 8_000), law)
    connection.input_audio_buffer.append(audio=base64.b64encode(heard).decode())
    events = collect(connection, "response.done")
    spoken = np.concatenate([decode(base64.b64decode(e.delta), law) for e in events if e.type == DELTAS[0]])
    assert events[-1].response.output[0].content[0].transcript == SAID
    assert 1 < len(spoken) / 8_000 < 8 and np.abs(spoken).max() > 0.001


def test_server_vad_asks_only_when_told_and_can_be_deaf_to_interruptions(connection) -> None:
    detection = {"type": "server_vad", "silence_duration_ms": 400, "create_response": False}
    connection.session.update(session={"type": "realtime", "audio": {"input": {"turn_detection": detection}}})
    collect(connection, "session.updated")
    connection.input_audio_buffer.append(
        audio=pcm16(sound((0.4, False), (1.0, True), (1.0, False), (0.5, True), (1.0, False)))
    )
    collect(connection, "conversation.item.done", 2)  # two turns, and one question
    connection.response.create()
    assert collect(connection, "response.done")[-1].response.output[0].content[0].transcript == SAID
    detection = {"type": "server_vad", "create_response": True, "interrupt_response": False}
    connection.session.update(session={"type": "realtime", "audio": {"input": {"turn_detection": detection}}})
    collect(connection, "session.updated")
    connection.input_audio_buffer.append(
        audio=pcm16(sound((0.4, False), (1.0, True), (1.2, False), (1.0, True), (6, False)))
    )
    assert collect(connection, "response.done")[-1].response.status == "completed"


def test_a_silent_line_is_spoken_to(connection) -> None:
    detection = {"type": "server_vad", "idle_timeout_ms": 2_000}
    connection.session.update(session={"type": "realtime", "audio": {"input": {"turn_detection": detection}}})
    collect(connection, "session.updated")
    connection.input_audio_buffer.append(audio=pcm16(sound((3.0, False))))
    events = collect(connection, "response.done")
    triggered = next(event for event in events if event.type == "input_audio_buffer.timeout_triggered")
    assert abs(triggered.audio_end_ms - triggered.audio_start_ms - 2_000) <= 80
    assert types(events)[:4] == [
        "input_audio_buffer.timeout_triggered",
        "input_audio_buffer.committed",
        "conversation.item.added",
        "conversation.item.done",
    ]


WRONG = [
    ({"type": "nonsense"}, "type"),
    ({"type": "input_audio_buffer.append"}, "audio"),
    ({"type": "input_audio_buffer.append", "audio": 3}, "audio"),
    ({"type": "input_audio_buffer.append", "audio": "#"}, None),
    ({"type": "session.update"}, "session"),
    ({"type": "session.update", "session": {"audio": {"input": {"format": {"type": "audio/mp3"}}}}}, "session.audio"),
    ({"type": "session.update", "session": {"audio": {"input": {"turn_detection": {"type": "x"}}}}}, "session.audio"),
    ({"type": "session.update", "session": {"audio": {"input": {"turn_detection": {"threshold": 7}}}}}, "session"),
    ({"type": "session.update", "session": {"audio": 3}}, "session.audio"),
    ({"type": "session.update", "session": {"output_modalities": ["text", "audio"]}}, "session.output_modalities"),
    ({"type": "conversation.item.create", "item": {"type": "message", "role": "user", "content": []}}, "item"),
    ({"type": "conversation.item.truncate", "item_id": "x", "content_index": 0, "audio_end_ms": 1}, "item_id"),
    ({"type": "conversation.item.retrieve", "item_id": 7}, "item_id"),
    ({"type": "session.update", "session": {"tool_choice": "required"}}, "session.tool_choice"),
    ({"type": "session.update", "session": {"audio": {"output": {"speed": 1.6}}}}, "session.audio.output.speed"),
    ({"type": "session.update", "session": {"max_output_tokens": 5000}}, "session.max_output_tokens"),
    ({"type": "session.update", "session": {"instrutions": "be brief"}}, "session.instrutions"),
    ({"type": "session.update", "session": {"audio": {"inptu": {}}}}, "session.audio.inptu"),
    ({"type": "session.update", "session": {"audio": {"input": {"transcription": {"modle": "x"}}}}},
     "session.audio.input.transcription.modle"),
    ({"type": "session.update", "session": {"type": "other"}}, "session.type"),
    ({"type": "session.update", "session": {"tool_choice": {"type": "function", "name": "f"}}}, "session.tool_choice"),
    ({"type": "session.update", "session": {"tools": [{"type": "function"}]}}, "session.tools.0.name"),
    ({"type": "session.update", "session": {"input_audio_format": "mp3"}}, "session.audio.input.format"),
    ({"type": "conversation.item.create", "item": {"type": "message", "role": "user",
      "content": [{"type": "input_image", "image_url": "data:,"}]}}, "item.content"),
    ({"type": "conversation.item.create", "item": {"type": "function_call_output", "call_id": "c", "output": ""}},
     "item.call_id"),
    ({"type": "response.create", "response": {"conversation": "another"}}, "response.conversation"),
    ({"type": "response.create", "response": {"tool_choice": "required"}}, "response.tool_choice"),
    ({"type": "response.create", "response": {"output_modalities": ["text", "audio"]}}, "response.output_modalities"),
    ({"type": "response.create", "response": {"max_output_tokens": 0}}, "response.max_output_tokens"),
    ({"type": "response.create", "response": {"audio": {"output": {"format": {"type": "mp3"}}}}}, "response.audio"),
    ({"type": "input_audio_buffer.commit"}, None),
    ({"type": "output_audio_buffer.clear"}, "type"),
]  # fmt: skip


# What the protocol's server events are that this server has no cause to send.
NOT_SENT = {
    "conversation.created", "conversation.item.created",  # of the API's beta; .added and .done have taken their place
    "conversation.item.input_audio_transcription.segment",  # who speaks when: of diarising models
    "input_audio_buffer.dtmf_event_received",  # of telephone calls
    "rate_limits.updated",  # no limit here counts tokens
    "mcp_list_tools.completed", "mcp_list_tools.failed", "mcp_list_tools.in_progress",
    "response.mcp_call.completed", "response.mcp_call.failed", "response.mcp_call.in_progress",
    "response.mcp_call_arguments.delta", "response.mcp_call_arguments.done",
}  # fmt: skip


def test_the_whole_protocol_is_accounted_for() -> None:
    """A newer package may bring events: each client event has a handler, each server event is sent or listed above."""
    assert set(RealtimeSession._HANDLERS) == set(CLIENT)
    source = "".join(path.read_text() for path in Path(serving.__file__).parent.rglob("*.py"))
    source = source.replace("{_EVENT}", TRANSCRIPTION)
    assert {kind for kind in SERVER if f'"{kind}"' not in source} == NOT_SENT


def test_what_is_wrong_is_said_and_changes_nothing(connection) -> None:
    for i, (event, param) in enumerate(WRONG):
        connection.send({**event, "event_id": f"wrong-{i}"})
        error = collect(connection, "error")[-1].error
        assert error.event_id == f"wrong-{i}" and error.message and error.type == "invalid_request_error", event
        assert param is None or (error.param or "").startswith(param), (event, error)
    for text in ("", "{", "[]", "3", '{"type": 5}', json.dumps("x" * 100)):
        connection._connection.send(text)
        assert collect(connection, "error")[-1].error.code in ("invalid_json", "missing_required_parameter"), text
    connection._connection.send(b"\x00\x01")
    assert collect(connection, "error")[-1].error.code == "invalid_json"
    connection.input_audio_buffer.append(audio=pcm16(sound((0.4, False), (1.0, True), (8.0, False))))
    assert collect(connection, "response.done")[-1].response.status == "completed"


def test_an_update_loses_nothing_of_what_is_served(connection) -> None:
    """What an agent of pipecat or OpenAI's sends: fields that are served, some that are not, and one misspelt."""
    audio = {"input": {"noise_reduction": {"type": "near_field"}, "transcription": {"model": "tiny"}}}
    session = {
        "type": "realtime", "tools": [{"type": "function", "name": "f"}], "truncation": "disabled", "audio": audio,
        "include": ["item.input_audio_transcription.logprobs"], "max_output_tokens": 7, "instrutions": "x",
    }  # fmt: skip
    connection.send({"type": "session.update", "session": session, "event_id": "mine"})
    events = collect(connection, "error")
    assert [event.type for event in events] == ["session.updated", "error"]
    updated, error = events[0].session, events[1].error
    assert updated.max_output_tokens == 7 and updated.audio.input.noise_reduction.type == "near_field"
    assert updated.audio.input.transcription.model == "tiny" and updated.truncation == "auto"
    assert [said.split(":")[0] for said in updated.model_extra["warnings"]] == [
        "this model calls no tools", "session.truncation", "session.include",
    ]  # fmt: skip
    assert (error.param, error.code, error.event_id) == ("session.instrutions", "unknown_parameter", "mine")


def test_a_conversation_of_any_length_keeps_its_last_items() -> None:
    """A quarter of an hour of short questions has as many: whoever goes on talking is not cut off."""
    items = Items()
    for number in range(ITEMS + 30):
        before = items.add(Item(role="user", text=str(number), id=f"item_{number}"))
        assert before == (f"item_{number - 1}" if number else None)
    assert [item.text for item in items] == [str(number) for number in range(30, ITEMS + 30)]
    with pytest.raises(RequestError, match="there is no item 'item_29'"):
        items.find("item_29")
