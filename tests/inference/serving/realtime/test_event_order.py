"""The order of the protocol's events in 27 situations, as the API's documentation gives it.

Repeated events count once. Transcripts come beside the others, in no fixed place: left out but where a situation is
about them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest

pytest.importorskip("fastapi")
from running_server import Running, pcm16, running, sound, wait
from tiny_chat import TOOL
from tool_caller import QUESTION, RESULT, tool_caller

TRANSCRIPT = "conversation.item.input_audio_transcription"
ITEM = ["conversation.item.added", "conversation.item.done"]
COMMITTED = ["input_audio_buffer.committed", *ITEM]
SPOKE = ["input_audio_buffer.speech_started", "input_audio_buffer.speech_stopped"]
BEGUN = ["response.created", "response.output_item.added", "conversation.item.added", "response.content_part.added"]
ENDED = ["response.content_part.done", "response.output_item.done", "conversation.item.done", "response.done"]
SOUND_DONE = ["response.output_audio.done", "response.output_audio_transcript.done"]
DELTAS = {"response.output_audio.delta", "response.output_audio_transcript.delta"}
SPOKEN = [*BEGUN, *SOUND_DONE, *ENDED]
WRITTEN = [*BEGUN, "response.output_text.delta", "response.output_text.done", *ENDED]
CALLED = ["response.function_call_arguments.delta", "response.function_call_arguments.done"]
FUNCTION = [*BEGUN[:3], *CALLED, *ENDED[1:]]


class Client:
    """Sends, and remembers the types of what comes."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection
        self.seen: list[str] = []
        self.events: list[Any] = []

    def __call__(self, kind: str, **fields: Any) -> None:
        self._connection.send({"type": kind, **fields})

    def until(self, kind: str, times: int = 1) -> Any:
        while times:
            event = self._connection.parse_event(self._connection._connection.recv(timeout=120))
            self.seen.append(event.type)
            self.events.append(event)
            times -= event.type == kind
        return event

    def set(self, **session: Any) -> None:
        self("session.update", session={"type": "realtime", **session})
        self.until("session.updated")
        self.seen = []

    def detect(self, detection: Any, transcription: Any = None) -> None:
        self.set(audio={"input": {"turn_detection": detection, "transcription": transcription}})

    def hear(self, *spans: tuple[float, bool]) -> None:
        self("input_audio_buffer.append", audio=pcm16(sound(*spans)))

    def text(self, text: str = "what is 3 plus 4") -> None:
        message = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": text}]}
        self("conversation.item.create", item=message)

    def order(self) -> list[str]:
        kept = [kind for kind in self.seen if kind not in DELTAS and (self.transcripts or TRANSCRIPT not in kind)]
        return [kind for i, kind in enumerate(kept) if i == 0 or kept[i - 1] != kind]

    transcripts = False


SILENT, TURN = (0.4, False), ((0.4, False), (1.0, True), (8.0, False))
VAD = {"type": "server_vad"}


def begins(c: Client) -> None:
    """session.created has come before."""


def updated(c: Client) -> None:
    c("session.update", session={"type": "realtime", "max_output_tokens": 9})
    c.until("session.updated")


def partly_updated(c: Client) -> None:
    c("session.update", session={"type": "realtime", "max_output_tokens": 9, "truncation": "disabled"})
    c.until("session.updated")


def misspelt(c: Client) -> None:
    c("session.update", session={"type": "realtime", "max_output_tokens": 9, "instrutions": "x"})
    c.until("error")


def item_created(c: Client) -> None:
    c.text()
    c.until("conversation.item.done")


def item_retrieved_and_deleted(c: Client) -> None:
    c.text()
    item = c.until("conversation.item.done").item
    c("conversation.item.retrieve", item_id=item.id)
    c("conversation.item.delete", item_id=item.id)
    c.until("conversation.item.deleted")


def asked_in_writing(c: Client) -> None:
    c.text()
    c("response.create")
    c.until("response.done")


def answered_in_writing(c: Client) -> None:
    c.text()
    c("response.create", response={"output_modalities": ["text"]})
    c.until("response.done")


def spoken_turn(c: Client) -> None:
    c.detect(VAD)
    c.hear(*TURN)
    c.until("response.done")


def semantic_turn(c: Client) -> None:
    c.hear(*TURN)
    c.until("response.done")


def committed(c: Client) -> None:
    c.detect(None)
    c.hear((1.0, True))
    c("input_audio_buffer.commit")
    c.until("conversation.item.done")


def committed_and_answered(c: Client) -> None:
    committed(c)
    c("response.create")
    c.until("response.done")


def committed_and_transcribed(c: Client) -> None:
    c.transcripts = True
    c.detect(None, {"model": "tiny"})
    c.hear((1.0, True))
    c("input_audio_buffer.commit")
    c.until(f"{TRANSCRIPT}.completed")


def cleared(c: Client) -> None:
    c.detect(None)
    c.hear((1.0, True))
    c("input_audio_buffer.clear")
    c.until("input_audio_buffer.cleared")


def cancelled(c: Client) -> None:
    c.text()
    c("response.create")
    c.until("response.output_audio.delta", 3)
    c("response.cancel")
    c.until("response.done")


def interrupted(c: Client) -> None:
    c.detect(VAD)
    c.hear(SILENT, (1.0, True), (1.6, False), (1.2, True))
    c.until("conversation.item.truncated")


def truncated(c: Client) -> None:
    c.text()
    c("response.create")
    item = c.until("response.done").response.output[0]
    c("conversation.item.truncate", item_id=item.id, content_index=0, audio_end_ms=100)
    c.until("conversation.item.truncated")


def cut_short(c: Client) -> None:
    c.text()
    c("response.create", response={"max_output_tokens": 2})
    assert c.until("response.done").response.status == "incomplete"


def outside(c: Client) -> None:
    c.text()
    c("response.create", response={"conversation": "none"})
    c.until("response.done")


def not_to_be_answered(c: Client) -> None:
    c.detect({**VAD, "create_response": False})
    c.hear(SILENT, (1.0, True), (1.5, False))
    c.until("conversation.item.done")


def answered_on_request(c: Client) -> None:
    not_to_be_answered(c)
    c("response.create")
    c.until("response.done")


def asked_while_the_user_goes_on(c: Client) -> None:
    """What is said until the answer can be heard is answered too."""
    not_to_be_answered(c)
    c.hear((1.0, True))
    c.until("input_audio_buffer.speech_started")
    c("response.create")
    c.hear((1.0, True), (3.0, False))
    c.until("response.done")


def too_quiet_for_too_long(c: Client) -> None:
    c.detect({**VAD, "idle_timeout_ms": 2_000})
    c.hear((3.0, False))
    c.until("response.done")


def transcription_session(c: Client) -> None:
    c.transcripts = True
    c("session.update", session={"type": "transcription", "audio": {"input": {"turn_detection": VAD}}})
    c.until("session.updated")
    c.seen = []
    c.hear(SILENT, (1.0, True), (1.5, False), (1.0, True), (1.5, False))
    c.until(f"{TRANSCRIPT}.completed", 2)
    first, second = [event.transcript for event in c.events if event.type == f"{TRANSCRIPT}.completed"]
    assert first == second, "each turn by itself"


def greeting(c: Client) -> None:
    c("response.create", response={"instructions": "Greet."})
    c.until("response.done")


def called(c: Client) -> None:
    c.set(tools=[{"type": "function", **TOOL["function"]}])
    c.text(QUESTION)
    c("response.create")
    c.until("response.done")


def told(c: Client) -> None:
    called(c)
    c.seen = []
    call = c.events[-1].response.output[0]
    c("conversation.item.create", item={"type": "function_call_output", "call_id": call.call_id, "output": RESULT})
    c("response.create")
    c.until("response.done")


@dataclass
class Situation:
    """What the client does, and what it is to be sent. caller: with the model that calls functions."""

    do: Callable[[Client], None]
    order: list[str]
    caller: bool = False


TRANSCRIBED = [f"{TRANSCRIPT}.delta", f"{TRANSCRIPT}.completed"]
SITUATIONS = [
    Situation(begins, []),
    Situation(updated, ["session.updated"]),
    Situation(partly_updated, ["session.updated"]),
    Situation(misspelt, ["session.updated", "error"]),
    Situation(item_created, ITEM),
    Situation(item_retrieved_and_deleted, [*ITEM, "conversation.item.retrieved", "conversation.item.deleted"]),
    Situation(asked_in_writing, [*ITEM, *SPOKEN]),
    Situation(answered_in_writing, [*ITEM, *WRITTEN]),
    Situation(spoken_turn, [*SPOKE, *COMMITTED, *SPOKEN]),
    Situation(semantic_turn, [*SPOKE, *COMMITTED, *SPOKEN]),
    Situation(committed, COMMITTED),
    Situation(committed_and_answered, [*COMMITTED, *SPOKEN]),
    Situation(committed_and_transcribed, [*COMMITTED, *TRANSCRIBED]),
    Situation(cleared, ["input_audio_buffer.cleared"]),
    Situation(cancelled, [*ITEM, *SPOKEN]),
    Situation(
        interrupted,
        [*SPOKE, *COMMITTED, *BEGUN, SPOKE[0], *SOUND_DONE, *ENDED, "conversation.item.truncated"],
    ),
    Situation(truncated, [*ITEM, *SPOKEN, "conversation.item.truncated"]),
    Situation(cut_short, [*ITEM, *SPOKEN]),
    Situation(outside, [*ITEM, *(kind for kind in SPOKEN if not kind.startswith("conversation"))]),
    Situation(not_to_be_answered, [*SPOKE, *COMMITTED]),
    Situation(answered_on_request, [*SPOKE, *COMMITTED, *SPOKEN]),
    Situation(asked_while_the_user_goes_on, [*SPOKE, *COMMITTED, *SPOKE, *COMMITTED, *SPOKEN]),
    Situation(  # nobody has said anything: there is nothing to say to it
        too_quiet_for_too_long,
        ["input_audio_buffer.timeout_triggered", *COMMITTED, "response.created", "response.done"],
    ),
    Situation(transcription_session, 2 * [*SPOKE, *COMMITTED, *TRANSCRIBED]),
    Situation(greeting, SPOKEN, caller=True),
    Situation(called, [*ITEM, *FUNCTION], caller=True),
    Situation(told, [*ITEM, *SPOKEN], caller=True),
]


@pytest.fixture(scope="module")
def plain() -> Iterator[Running]:
    with running() as found:
        yield found


@pytest.fixture(scope="module")
def caller() -> Iterator[Running]:
    with running(assistant=tool_caller()) as found:
        yield found


@pytest.mark.parametrize("situation", SITUATIONS, ids=lambda each: each.do.__name__)
def test_the_order_is_the_documentations(situation: Situation, request: pytest.FixtureRequest) -> None:
    server: Running = request.getfixturevalue("caller" if situation.caller else "plain")
    with server.client().realtime.connect(model="tiny") as connection:
        assert connection.recv().type == "session.created"
        client = Client(connection)
        situation.do(client)
        assert client.order() == situation.order
    wait(lambda: server.service.pool.slots == 0)
