"""System messages and a session's instructions reach a model that follows them; of one that does not, the responses say
so. By the official client, with a model of anybody's: a Whisper encoder, a chat template, no monitor."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

pytest.importorskip("fastapi")
from running_server import Running, collect, pcm16, running, sound, wait
from tiny_chat import chat_assistant

from duologue.model.language_model.prompt import ChatPrompt

NOT_FOLLOWED = ["this model follows no instructions: it has learnt none"]
ASKED: list[Any] = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "What is two plus two?"}]


@pytest.fixture(scope="module")
def server() -> Iterator[Running]:
    with running(assistant=chat_assistant()) as found:
        yield found


@pytest.fixture(scope="module")
def nano() -> Iterator[Running]:
    with running() as found:
        yield found


@pytest.fixture
def begun(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The system prompts that conversations have begun with."""
    seen: list[str] = []
    usual = ChatPrompt.begin

    def begin(self: ChatPrompt, instructions: str, tools: Any) -> Any:
        seen.append(instructions)
        return usual(self, instructions, tools)

    monkeypatch.setattr(ChatPrompt, "begin", begin)
    return seen


def test_system_messages_are_the_system_prompt(server: Running, begun: list[str]) -> None:
    developer: Any = {"role": "developer", "content": "Be kind."}
    done = server.client().chat.completions.create(model="tiny", messages=[ASKED[0], developer, ASKED[1]], max_tokens=4)
    assert done.choices[0].message.content is not None and "Be brief.\n\nBe kind." in begun
    assert not (done.model_extra or {}).get("warnings")


@pytest.mark.parametrize("stream", [False, True])
def test_a_model_that_has_learnt_none_says_so(nano: Running, stream: bool) -> None:
    asked = nano.client().chat.completions.create(model="tiny", messages=ASKED, stream=stream)  # type: ignore[call-overload]
    found = [chunk.model_extra for chunk in asked] if stream else [asked.model_extra]
    assert all(each["warnings"] == NOT_FOLLOWED for each in found)
    plain = nano.client().chat.completions.create(model="tiny", messages=ASKED[1:])
    assert "warnings" not in (plain.model_extra or {})


def test_a_session_follows_its_instructions_and_answers_what_is_said(server: Running, begun: list[str]) -> None:
    with server.client().realtime.connect(model="tiny") as connection:
        connection.recv()
        connection.session.update(session={"type": "realtime", "instructions": "Be brief.", "max_output_tokens": 8})
        updated = collect(connection, "session.updated")[-1]
        assert updated.session.instructions == "Be brief." and "warnings" not in (updated.session.model_extra or {})
        pcm = sound((0.4, False), (1.0, True), (2.0, False))
        connection.input_audio_buffer.append(audio=pcm16(pcm))
        events = collect(connection, "response.done")
    assert "Be brief." in begun
    done = events[-1].response
    assert done.status in ("completed", "incomplete") and any("output_audio.delta" in event.type for event in events)
    wait(lambda: server.service.pool.slots == 0)


def test_a_session_says_where_instructions_have_no_effect(nano: Running) -> None:
    with nano.client().realtime.connect(model="tiny") as connection:
        connection.recv()
        connection.session.update(
            session={
                "type": "realtime", "instructions": "Be brief.", "output_modalities": ["text"],
                "audio": {"input": {"turn_detection": None}},
            }
        )  # fmt: skip
        assert collect(connection, "session.updated")[-1].session.model_extra["warnings"] == NOT_FOLLOWED
        item: Any = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "what is seven"}]}
        connection.conversation.item.create(item=item)
        connection.response.create()
        assert collect(connection, "response.done")[-1].response.model_extra["warnings"] == NOT_FOLLOWED
    wait(lambda: nano.service.pool.slots == 0)


def test_instructions_that_cannot_be_followed_end_no_session(server: Running) -> None:
    """What is too long is an error; the session goes on as it was."""
    with server.client().realtime.connect(model="tiny") as connection:
        connection.recv()
        connection.session.update(session={"type": "realtime", "instructions": "a b c " * 2600})
        assert "instructions and tools have" in connection.recv().error.message  # type: ignore[union-attr]
        connection.session.update(session={"type": "realtime", "max_output_tokens": 8})
        assert collect(connection, "session.updated")[-1].session.instructions == ""
        item: Any = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "Hello?"}]}
        connection.conversation.item.create(item=item)
        connection.response.create()
        assert collect(connection, "response.done")[-1].response.status in ("completed", "incomplete")
    wait(lambda: server.service.pool.slots == 0)
