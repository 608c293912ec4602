"""Realtime: minutes of speech in a push-to-talk turn or in items are written down whole, and nobody else waits."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from running_server import Running, running
from tiny_assistant import HEARD, SAID

from duologue.inference.serving.protocol import items as items_module
from duologue.inference.serving.protocol.items import Item, Items
from duologue.inference.serving.realtime import input_buffer, realtime
from duologue.inference.serving.realtime.pacing import Pacer

RATE = 24_000


@pytest.fixture(scope="module")
def server() -> Iterator[Running]:
    with running() as found:
        yield found


@pytest.fixture
def connection(server: Running) -> Iterator[Any]:
    with server.client().realtime.connect(model="tiny") as found:
        detection: Any = {"turn_detection": None, "transcription": {"model": "local"}}
        found.session.update(session={"type": "realtime", "audio": {"input": detection}})
        yield found


def sentences(count: int) -> list[str]:
    """Each two seconds of sound and half a second of silence behind it, as base64."""
    rng = np.random.default_rng(0)
    waves = [np.concatenate([0.1 * rng.standard_normal(2 * RATE), np.zeros(RATE // 2)]) for _ in range(count)]
    return [base64.b64encode((32_767 * wave).astype("<i2").tobytes()).decode() for wave in waves]


def joined(parts: list[str]) -> str:
    return base64.b64encode(b"".join(map(base64.b64decode, parts))).decode()


def answered(connection: Any) -> tuple[str, str, list[str], Any]:
    """What comes until a response is done: transcript, answer, errors; and its usage."""
    heard, answer, errors = "", "", []
    for event in connection:
        if event.type == "error":
            errors.append(event.error.message)
        elif event.type == "conversation.item.input_audio_transcription.completed":
            heard = event.transcript
        elif event.type == "response.output_audio_transcript.delta":
            answer += event.delta
        elif event.type == "response.done":
            return heard, answer, errors, event.response.usage
    raise AssertionError("no response")


def item(*sounds: str, text: str = "") -> dict[str, Any]:
    content = [{"type": "input_audio", "audio": sound} for sound in sounds]
    return {"type": "message", "role": "user", "content": content + [{"type": "input_text", "text": text}] * bool(text)}


def test_a_long_push_to_talk_turn(connection: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """All of it, though it is appended faster than it is heard."""
    monkeypatch.setattr(input_buffer, "_BACKLOG_S", 5)
    monkeypatch.setattr(realtime, "_HELD_S", 1)
    for sound in sentences(10):
        connection.input_audio_buffer.append(audio=sound)
    connection.input_audio_buffer.commit()
    connection.response.create()
    heard, answer, errors, _ = answered(connection)
    assert (heard, answer, errors) == (" ".join([HEARD] * 10), SAID, [])


def test_a_turn_that_is_too_long_is_refused_once_and_has_no_holes(
    connection: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(input_buffer, "LONGEST_S", 6)
    short, long = sentences(1)[0], joined(sentences(2))
    for sound in (long, long, short, short):
        connection.input_audio_buffer.append(audio=sound)
    connection.input_audio_buffer.commit()
    connection.response.create()
    heard, answer, errors, _ = answered(connection)
    assert answer == SAID and heard == HEARD
    assert len(errors) == 1 and "a turn has at most 6 s of audio" in errors[0]
    connection.input_audio_buffer.append(audio=short)  # the next turn is one of its own
    connection.input_audio_buffer.commit()
    connection.response.create()
    assert answered(connection)[:3] == (HEARD, SAID, [])


@pytest.mark.parametrize("detection", [None, "server_vad"])
def test_a_long_item(connection: Any, detection: str | None) -> None:
    """One, or several that are answered at once; also with a question in writing."""
    kind = None if detection is None else {"type": detection}
    connection.session.update(session={"type": "realtime", "audio": {"input": {"turn_detection": kind}}})
    connection.conversation.item.create(item=item(joined(sentences(8))))
    connection.response.create()
    heard, answer, errors, usage = answered(connection)
    assert (heard, answer, errors) == (" ".join([HEARD] * 8), SAID, [])
    assert usage.input_token_details.audio_tokens == 8 * 2.5 / 0.08
    connection.conversation.item.create(item=item(*sentences(3)))
    connection.conversation.item.create(item=item(*sentences(3), text="what is seven"))
    connection.response.create()
    heard, answer, errors, _ = answered(connection)
    assert (heard, answer, errors) == (" ".join([HEARD] * 6 + ["what is seven"]), SAID, [])


def test_the_event_loop_goes_on_while_a_long_item_is_handed_over(
    server: Running, connection: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody's events wait for more than a second of it."""
    assert server.service.pool is not None
    turns, seen, made = [0], [], Pacer.make_up

    async def count() -> None:
        while turns:
            turns[0] += 1
            await asyncio.sleep(0)

    def make_up(pacer: Pacer, frame: np.ndarray | None = None) -> None:
        seen.append(turns[0] if turns else 0)
        made(pacer, frame)

    monkeypatch.setattr(Pacer, "make_up", make_up)
    counting = asyncio.run_coroutine_threadsafe(count(), server.service.pool._loop)
    connection.conversation.item.create(item=item(joined(sentences(8))))
    connection.response.create()
    assert answered(connection)[1] == SAID
    turns.clear()
    counting.cancel()
    handed_over = seen[: 8 * 2500 // 80]
    assert max(handed_over.count(turn) for turn in set(handed_over)) <= 1000 / 80


@pytest.mark.parametrize("detection", [None, "server_vad"])
def test_a_long_item_is_cancelled_while_it_is_heard(connection: Any, detection: str | None) -> None:
    """And leaves no trace."""
    kind = None if detection is None else {"type": detection}
    connection.session.update(session={"type": "realtime", "audio": {"input": {"turn_detection": kind}}})
    connection.conversation.item.create(item=item(joined(sentences(20))))
    connection.response.create()
    connection.response.cancel()
    done = next(event for event in connection if event.type == "response.done")
    assert done.response.status == "cancelled" and not done.response.output
    connection.conversation.item.create(item=item(*sentences(1)))
    connection.response.create()
    assert answered(connection)[:3] == (HEARD, SAID, [])


def test_what_is_said_while_an_item_is_heard_comes_behind_it(connection: Any) -> None:
    detection: Any = {"type": "server_vad", "interrupt_response": False}
    connection.session.update(session={"type": "realtime", "audio": {"input": {"turn_detection": detection}}})
    connection.conversation.item.create(item=item(joined(sentences(8))))
    connection.response.create()
    connection.input_audio_buffer.append(audio=base64.b64encode(bytes(2 * RATE)).decode())
    assert answered(connection)[:3] == (" ".join([HEARD] * 8), SAID, [])


def test_the_sound_of_a_turn_is_kept_and_more_than_can_be_answered_is_refused(
    connection: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    found, long = Items(), Item("user", None, spoken=True)
    long.sound = [np.zeros(590 * 16_000, np.int16)]
    found.add(long)
    found.add(Item("user", None, spoken=True, sound=[np.zeros(16_000, np.int16)]))
    assert long.sound
    found.add(Item("user", None, spoken=True, sound=[np.zeros(100 * 16_000, np.int16)]))
    assert not long.sound, "it is bounded nevertheless"
    assert items_module.LONGEST_S == 600
    monkeypatch.setattr(realtime, "LONGEST_S", 6)
    connection.conversation.item.create(item=item(*sentences(2)))
    connection.conversation.item.create(item=item(*sentences(1)))
    connection.response.create()
    heard, answer, errors, _ = answered(connection)
    assert (heard, answer) == (HEARD, SAID)
    assert len(errors) == 1 and "8 s of sound wait for a response: at most 6 s" in errors[0]
