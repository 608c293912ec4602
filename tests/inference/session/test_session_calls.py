"""Functions in a full-duplex session: a call is silent, its result is said; and who opens a conversation."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from tiny_chat import TOOL
from tool_caller import CALL, GREETING, QUESTION, RESULT, TOLD, tool_caller

from duologue.inference.assistant.assistant import Assistant
from duologue.inference.session.events import Event, EventKind, text_of
from duologue.inference.session.session import Session
from duologue.inference.session.state import SessionConfig
from duologue.model.dialogue_state import Sampling

CALLS: dict[str, Any] = {
    "role": "assistant",
    "content": "",
    "tool_calls": [
        {"id": "call00000", "type": "function", "function": {"name": "weather", "arguments": {"place": "Wien"}}},
    ],
}
RESULTS: list[dict[str, Any]] = [
    {"role": "tool", "content": RESULT, "tool_call_id": "call00000", "name": "weather"},
]


@pytest.fixture(scope="module")
def caller() -> Assistant:
    return tool_caller()


def finish(session: Session) -> tuple[list[Event], float]:
    """Silence until the answer is over: its events, and how loud it was."""
    events, loudest = list[Event](), 0.0
    for _ in range(400):
        tick = session.tick(np.zeros(session.frame, np.float32))
        events += tick.events
        loudest = max(loudest, float(np.abs(tick.pcm).max()))
        if any(each.kind is EventKind.ANSWER_FINISHED for each in tick.events):
            return events, loudest
    raise AssertionError("the answer does not end")


@pytest.mark.parametrize("read_again", [False, True])
def test_a_call_is_silent_and_its_result_is_said(caller: Assistant, read_again: bool) -> None:
    session = Session(caller, SessionConfig(tools=(TOOL,), sampling=Sampling(max_tokens=80)), caller.vad)
    session.type(QUESTION)
    events, loudest = finish(session)
    assert text_of(events, EventKind.ANSWER_CALL) == CALL and loudest == 0
    assert not any(each.kind in (EventKind.ANSWER_TEXT, EventKind.ANSWER_AUDIBLE) for each in events)
    assert sum(each.kind is EventKind.TRANSCRIBED for each in events) == 1
    if read_again:  # in words, which know nothing of calls
        session.remember([(QUESTION, "")])
    session.results(CALLS, RESULTS)
    events, loudest = finish(session)
    if not read_again:
        assert text_of(events, EventKind.ANSWER_TEXT) == TOLD and loudest > 0
        words = caller.tokenizer.decode(session.state.memory.past[-1][1])
        assert len(session.state.memory.past) == 1 and words == TOLD, "one question, one answer"
    written = session.state.dialogue.chat
    assert written is not None and [message["role"] for _, message in written.messages][-1] == "tool"


def test_the_assistant_opens_the_conversation(caller: Assistant) -> None:
    session = Session(caller, SessionConfig(instructions="Greet."), caller.vad)
    session.speak_first()
    events, loudest = finish(session)
    assert text_of(events, EventKind.ANSWER_TEXT) == GREETING and loudest > 0
