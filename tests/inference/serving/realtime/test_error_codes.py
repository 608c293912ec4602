"""Errors that clients expect and go by: they know them by code, and one of them by its first words."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

pytest.importorskip("fastapi")
from running_server import collect, running

MESSAGE = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "two"}], "id": "taken"}
RESULT = {"type": "function_call_output", "call_id": "none", "output": ""}
NOWHERE = {"item_id": "nowhere"}


@pytest.fixture(scope="module")
def connection() -> Iterator[Any]:
    with running() as server, server.client().realtime.connect(model="tiny") as opened:
        opened.conversation.item.create(item=MESSAGE)
        collect(opened, "conversation.item.done")
        yield opened


@pytest.mark.parametrize(
    ("kind", "fields", "code"),
    [
        ("conversation.item.retrieve", NOWHERE, "item_retrieve_invalid_item_id"),  # pipecat waits for it
        ("conversation.item.delete", NOWHERE, "item_delete_invalid_item_id"),
        ("conversation.item.truncate", {**NOWHERE, "content_index": 0, "audio_end_ms": 0},
         "item_truncate_invalid_item_id"),
        ("conversation.item.create", {"item": MESSAGE}, "item_create_duplicate_item_id"),  # to livekit, as good as made
        ("conversation.item.create", {"item": RESULT}, "invalid_tool_call_id"),  # openai-agents
        ("response.cancel", {}, "response_cancel_not_active"),  # pipecat goes on
        ("input_audio_buffer.commit", {}, "input_audio_buffer_commit_empty"),  # livekit goes on
    ],
)  # fmt: skip
def test_its_code_is_the_apis(connection: Any, kind: str, fields: dict[str, Any], code: str) -> None:
    connection.send({"type": kind, "event_id": "mine", **fields})
    error = collect(connection, "error")[-1].error
    assert (error.code, error.event_id, error.type) == (code, "mine", "invalid_request_error")


def test_a_cancellation_too_late_is_known_by_its_first_words(connection: Any) -> None:
    """livekit sends one with every interruption, and takes any other message for a fault."""
    connection.response.cancel()
    assert collect(connection, "error")[-1].error.message.startswith("Cancellation failed")
