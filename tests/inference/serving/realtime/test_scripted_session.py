"""A conversation with a session that does as a script says: no model, no socket, no clock. By scripts, and by messages
of the client and events of the session drawn at random in any order."""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any

import numpy as np
import pytest

pytest.importorskip("openai")
from hypothesis import given, settings
from hypothesis import strategies as st

from duologue.inference.serving.http.limits import Limits
from duologue.inference.serving.protocol.events import OURS, SERVER
from duologue.inference.serving.protocol.formats import AudioFormat, to_base64
from duologue.inference.serving.protocol.settings import Settings
from duologue.inference.serving.realtime.common import Model
from duologue.inference.serving.realtime.conversation import Conversation
from duologue.inference.serving.realtime.realtime import RealtimeSession
from duologue.inference.serving.realtime.turns import Stage
from duologue.inference.serving.workers.worker import Done
from duologue.inference.session.events import Event, EventKind, Tick
from duologue.inference.session.policy import Mode
from duologue.model.errors import DuologueError

RATE, FRAME = 16_000, 1_280
FRAME_SOUND = to_base64(np.zeros(FRAME, np.float32), RATE, AudioFormat.PCM)


class Script:
    """A slot whose session does what comes next: each frame a mode, and events."""

    def __init__(self) -> None:
        self.next: deque[tuple[Mode, list[Event]]] = deque()
        self.called: list[str] = []
        self.given: dict[str, tuple[Any, ...]] = {}  # with what it was called last
        self.refuses: str | None = None  # a method
        self.line, self.mode, self.played = 1, Mode.IDLE, 0

    def tick(self, pcm: np.ndarray, arrived: float | None = None) -> asyncio.Future[Done]:
        self.mode, events = self.next.popleft() if self.next else (self.mode, [])
        if any(each.kind is EventKind.ANSWER_AUDIBLE for each in events):
            self.played = 0
        self.played += FRAME if self.mode is Mode.ANSWERING else 0
        return self._done(Tick(np.full(FRAME, 0.1, np.float32), events))

    def call(self, method: str, *args: Any, patience: float = 0.0) -> asyncio.Future[Done]:
        self.called.append(method)
        self.given[method] = args
        if method == self.refuses:
            future: asyncio.Future[Done] = asyncio.get_running_loop().create_future()
            future.set_exception(DuologueError("too much"))
            return future
        return self._done("some words" if method == "truncate" else None)

    def leave(self) -> None:
        pass

    def _done(self, value: Any) -> asyncio.Future[Done]:
        future: asyncio.Future[Done] = asyncio.get_running_loop().create_future()
        future.set_result(Done(value, self.mode, self.played, False, 0.0))
        return future


class Client:
    """Sends messages, lets frames pass, and has what came, each checked by the package's own type."""

    def __init__(self, plays: bool = False) -> None:
        self.script, self.seen = Script(), list[dict[str, Any]]()
        model, session = Model(input_rate=RATE, output_rate=RATE), Settings.initial("tiny", "sess_1")
        slot: Any = self.script
        self.conversation = Conversation(slot, self._came, model, session, 8_000, plays=plays)
        self.session = RealtimeSession(self.conversation, lambda: pytest.fail("no slot is asked for"), Limits())

    def _came(self, text: str) -> None:
        event = json.loads(text)
        if event["type"] not in OURS:
            SERVER[event["type"]].model_validate(event, strict=False)
        self.seen.append(event)

    async def __call__(self, kind: str, **fields: Any) -> None:
        await self.session.handle(json.dumps({"type": kind, **fields}))
        await self.settle()

    async def frame(
        self, mode: Mode, *kinds: EventKind, text: str = "word", probabilities: tuple[tuple[str, float], ...] = ()
    ) -> None:
        self.script.next.append((mode, [Event(kind, 80, text, probabilities=probabilities) for kind in kinds]))
        for _ in range(3):  # the resampler holds back a little
            if self.script.next and self.conversation.output is not None:
                self.session.hear(bytes(2 * FRAME * 24_000 // RATE))
                await self.settle()
            elif self.script.next:
                await self("input_audio_buffer.append", audio=FRAME_SOUND)

    async def settle(self) -> None:
        for _ in range(6):
            await asyncio.sleep(0)

    def types(self) -> list[str]:
        kinds = [event["type"] for event in self.seen]
        return [kind for i, kind in enumerate(kinds) if i == 0 or kinds[i - 1] != kind]


def talk(what: Callable[[Client], Awaitable[None]], plays: bool = False) -> Client:
    async def run() -> Client:
        client = Client(plays)
        await client.session.open()
        await what(client)
        client.session.close()
        return client

    return asyncio.run(run())


async def turn(client: Client) -> None:
    await client.frame(Mode.LISTENING, EventKind.SPEECH_STARTED)
    await client.frame(Mode.LISTENING, EventKind.SPEECH_STOPPED)
    await client.frame(Mode.ANSWERING, EventKind.ANSWER_STARTED, EventKind.TRANSCRIBED)


async def answered(client: Client) -> None:
    await turn(client)
    await client.frame(Mode.ANSWERING, EventKind.ANSWER_TEXT, EventKind.ANSWER_AUDIBLE)
    await client.frame(Mode.IDLE, EventKind.ANSWER_FINISHED)


def test_a_turn_and_its_answer() -> None:
    assert talk(answered).types() == [
        "session.created",
        "input_audio_buffer.speech_started",
        "input_audio_buffer.speech_stopped",
        "input_audio_buffer.committed",
        "conversation.item.added",
        "conversation.item.done",
        "response.created",
        "response.output_item.added",
        "conversation.item.added",
        "response.content_part.added",
        "response.output_audio_transcript.delta",
        "response.output_audio.delta",
        "response.output_audio.done",
        "response.output_audio_transcript.done",
        "response.content_part.done",
        "response.output_item.done",
        "conversation.item.done",
        "response.done",
    ]


@pytest.mark.parametrize("manual", [False, True])
def test_the_manner_of_a_turn_names_its_item(manual: bool) -> None:
    told = (("calm", 0.25), ("shout", 0.75))

    async def spoken(client: Client) -> None:
        if manual:
            await client("session.update", session={"type": "realtime", "audio": {"input": {"turn_detection": None}}})
            for _ in range(4):
                await client("input_audio_buffer.append", audio=FRAME_SOUND)
            kinds = (EventKind.MANNER, EventKind.ANSWER_STARTED)
            client.script.next.append((Mode.IDLE, [Event(kind, 80, probabilities=told) for kind in kinds]))
            await client("input_audio_buffer.commit")
            await client.settle()
            return
        await client.frame(Mode.LISTENING, EventKind.SPEECH_STARTED)
        await client.frame(Mode.ANSWERING, EventKind.MANNER, EventKind.ANSWER_STARTED, probabilities=told)
        await client.frame(Mode.ANSWERING, EventKind.TRANSCRIBED, EventKind.ANSWER_AUDIBLE)

    by = {event["type"]: event for event in talk(spoken).seen}
    event = by["input_audio_buffer.manner"]
    assert event["manner"] == {"calm": 0.25, "shout": 0.75} and event["event_id"]
    assert event["item_id"] == by["input_audio_buffer.committed"]["item_id"]


def test_an_interruption() -> None:
    async def interrupted(client: Client) -> None:
        await turn(client)
        await client.frame(Mode.ANSWERING, EventKind.ANSWER_TEXT, EventKind.ANSWER_AUDIBLE)
        await client.frame(Mode.LISTENING, EventKind.SPEECH_STARTED, EventKind.INTERRUPTED, text="heard")

    client = talk(interrupted)
    done = next(event["response"] for event in client.seen if event["type"] == "response.done")
    assert (done["status"], done["status_details"]["reason"]) == ("cancelled", "turn_detected")
    assert done["output"][0]["content"][0]["transcript"] == "heard"
    kinds = client.types()
    begun = [i for i, kind in enumerate(kinds) if kind == "input_audio_buffer.speech_started"]
    assert len(begun) == 2 and begun[1] < kinds.index("response.done") and kinds[-1] == "conversation.item.truncated"


@pytest.mark.parametrize("how", ["spoken over", "response.cancel", "output_audio_buffer.clear"])
def test_what_was_heard_of_an_answer_on_a_track_is_what_it_has_played(how: str) -> None:
    """Two frames were made, and a half of the first was played."""

    async def interrupted(client: Client) -> None:
        await turn(client)
        await client.frame(Mode.ANSWERING, EventKind.ANSWER_TEXT, EventKind.ANSWER_AUDIBLE)
        await client.frame(Mode.ANSWERING)
        output = client.conversation.output
        assert output is not None
        for _ in range(3):  # it begins with the second
            output.take(960)
        if how == "spoken over":
            await client.frame(Mode.LISTENING, EventKind.SPEECH_STARTED, EventKind.INTERRUPTED, text="more")
        else:
            await client(how)
        assert not output.take(960).any()

    client = talk(interrupted, plays=True)
    kinds = client.types()
    assert "response.output_audio.delta" not in kinds and kinds.count("output_audio_buffer.started") == 1
    assert kinds.count("output_audio_buffer.cleared") == 1 and "output_audio_buffer.stopped" not in kinds
    assert client.script.given["truncate"] == (40 * RATE // 1000,)
    (answer,) = (item for item in client.session.items if item.role == "assistant")
    assert answer.text == "some words"
    if how == "spoken over":
        assert kinds[-1] == "conversation.item.truncated" and client.seen[-1]["audio_end_ms"] == answer.sent_ms == 40


def test_a_response_that_is_cancelled_and_one_too_many() -> None:
    async def cancelled(client: Client) -> None:
        await client("response.create")
        await client("response.create")
        await client("response.cancel")
        await client("response.cancel")
        await client("response.create")

    client = talk(cancelled)
    assert client.types()[1:] == ["response.created", "error", "response.done", "error", "response.created"]
    codes = [event["error"]["code"] for event in client.seen if event["type"] == "error"]
    assert codes == ["conversation_already_has_active_response", "response_cancel_not_active"]
    assert client.script.called.count("speak_first") == 2 and "truncate" in client.script.called


WAITING: dict[str, Any] = {
    "kind": "session.update",
    "session": {"audio": {"input": {"turn_detection": {"type": "server_vad", "create_response": False}}}},
}


def test_a_turn_waits_and_the_user_goes_on() -> None:
    """A response that is asked for while the user speaks again answers both."""

    async def waits(client: Client) -> None:
        await client(**WAITING)
        await turn(client)
        await client.frame(Mode.LISTENING, EventKind.SPEECH_STARTED)
        assert client.conversation.turns.stage is Stage.HEARING and client.conversation.turns.held
        await client("response.create")

    client = talk(waits)
    assert client.types()[-4:] == [
        "input_audio_buffer.committed",
        "conversation.item.added",
        "conversation.item.done",
        "response.created",
    ]
    assert client.script.called[-3:] == ["press", "hands_free", "respond"]


@pytest.mark.parametrize("last", [EventKind.ANSWER_STARTED, EventKind.TURN_IGNORED])
def test_who_goes_on_over_the_response_that_was_asked_for_is_answered(last: EventKind) -> None:
    """The session takes all of it for one turn, which waits again."""

    async def goes_on(client: Client) -> None:
        await client(**WAITING)
        await turn(client)
        await client("response.create")
        await client.frame(Mode.LISTENING, EventKind.SPEECH_STARTED)
        client.script.called.clear()
        await client("input_audio_buffer.clear")
        await client.frame(Mode.ANSWERING if last is EventKind.ANSWER_STARTED else Mode.IDLE, last)

    client = talk(goes_on)
    answers = last is EventKind.ANSWER_STARTED
    assert client.script.called == (["respond"] if answers else [])
    assert client.types().count("response.done") == (not answers)


def test_a_turn_waits_on_where_its_response_cannot_be_made() -> None:
    """The instructions do not fit; or the response was to be about something else."""

    async def in_vain(client: Client) -> None:
        await client(**WAITING)
        await turn(client)
        client.script.refuses = "configure"
        await client("response.create", response={"instructions": "too long"})
        client.script.refuses = None
        await client("response.create", response={"input": [ITEM]})
        client.script.called.clear()
        await client("response.create")

    client = talk(in_vain)
    assert client.types()[-3:] == ["conversation.item.done", "error", "response.created"]
    messages = [event["error"]["message"] for event in client.seen if event["type"] == "error"]
    assert messages[0] == "too much" and messages[1].startswith("a turn waits for its response")
    assert client.script.called == ["respond"]


def test_a_turn_that_waits_is_deleted_while_the_user_goes_on() -> None:
    async def deleted(client: Client) -> None:
        await client(**WAITING)
        await turn(client)
        await client.frame(Mode.LISTENING, EventKind.SPEECH_STARTED)
        (item,) = client.session.items
        await client("conversation.item.delete", item_id=item.id)

    client = talk(deleted)
    assert client.types()[-4:] == [
        "input_audio_buffer.speech_started",
        "input_audio_buffer.speech_stopped",
        "input_audio_buffer.cleared",
        "conversation.item.deleted",
    ]
    assert client.script.called[-2:] == ["discard", "remember"]
    assert client.conversation.turns.stage is Stage.IDLE and not client.conversation.turns.held


ITEM = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "what is two"}]}
SAID = {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "four"}]}
SYSTEM = {"type": "message", "role": "system", "content": [{"type": "input_text", "text": "be brief"}]}
CALL = {"type": "function_call", "name": "f", "call_id": "c", "arguments": "{}"}
RESULT = {"type": "function_call_output", "call_id": "c", "output": "1"}


def detection(value: Any) -> dict[str, Any]:
    return {"type": "session.update", "session": {"audio": {"input": {"turn_detection": value}}}}


MESSAGES: list[dict[str, Any]] = [
    {"type": "input_audio_buffer.append", "audio": FRAME_SOUND},
    {"type": "input_audio_buffer.append", "audio": to_base64(np.zeros(3 * FRAME, np.float32), RATE, AudioFormat.PCM)},
    {"type": "input_audio_buffer.commit"},
    {"type": "input_audio_buffer.clear"},
    *({"type": "conversation.item.create", "item": item} for item in (ITEM, SAID, SYSTEM, CALL, RESULT)),
    {"type": "response.create"},
    {"type": "response.create", "response": {"instructions": "greet", "output_modalities": ["text"]}},
    {"type": "response.create", "response": {"input": [ITEM]}},
    {"type": "response.cancel"},
    {"type": "delete"},
    {"type": "truncate"},
    detection(None),
    detection({"type": "semantic_vad"}),
    detection({"type": "server_vad", "create_response": False}),
    {"type": "session.update", "session": {"type": "transcription"}},
    {"type": "session.update", "session": {"type": "realtime", "tools": [{"type": "function", "name": "f"}]}},
]
STEPS = st.one_of(
    st.sampled_from(MESSAGES),
    st.tuples(st.sampled_from(list(Mode)), st.lists(st.sampled_from(list(EventKind)), max_size=3)),
)


@settings(max_examples=150)
@given(st.lists(STEPS, max_size=40))
def test_whatever_happens(steps: list[Any]) -> None:
    """The server never fails; responses, their items and turns begin and end in pairs; and it can always go on."""

    async def random(client: Client) -> None:
        for step in steps:
            if isinstance(step, tuple):
                await client.frame(step[0], *step[1])
            elif step["type"] in ("delete", "truncate"):
                last = client.conversation.items.last("assistant")
                if last is not None:
                    more = {"content_index": 0, "audio_end_ms": 50} if step["type"] == "truncate" else {}
                    await client(f"conversation.item.{step['type']}", item_id=last.id, **more)
            else:
                await client(**{"kind": step["type"], **{k: v for k, v in step.items() if k != "type"}})
        await client("session.update", session={"type": "realtime", **detection(None)["session"]})
        await client("response.cancel")
        client.script.mode = Mode.IDLE
        client.script.next.clear()
        client.conversation.turns.forget()
        await client("response.create")

    client = talk(random)
    codes = [event["error"]["code"] for event in client.seen if event["type"] == "error"]
    assert "server_error" not in codes and not client.conversation.closed.is_set()
    under_way: str | None = None
    items: set[str] = set()
    for event in client.seen:
        kind = event["type"]
        if kind == "response.created":
            assert under_way is None
            under_way = event["response"]["id"]
        elif kind == "response.done":
            assert event["response"]["id"] == under_way and not items
            under_way = None
        elif kind == "response.output_item.added":
            items.add(event["item"]["id"])
        elif kind == "response.output_item.done":
            items.remove(event["item"]["id"])
    assert under_way is not None, "the last request was answered"
