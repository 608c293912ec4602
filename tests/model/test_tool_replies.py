"""A model that was taught to call a function: its call is not said, and can be forced or forbidden."""

from __future__ import annotations

from typing import Any

import pytest
from tiny_chat import TOOL
from tool_caller import ARGUMENTS, CALL, GREETING, QUESTION, RESULT, TOLD, UNTOLD, tool_caller

from duologue.inference.assistant.assistant import Assistant
from duologue.inference.assistant.one_shot import OneShotRequest
from duologue.model.decoding.reply import reply
from duologue.model.dialogue_state import DialogueState, Sampling
from duologue.model.tokens import TokenKind

RESULTS: list[Any] = [{"role": "tool", "content": RESULT, "tool_call_id": "call00000", "name": "weather"}]
SILENCE: list[Any] = [{"role": "user", "content": ""}]


@pytest.fixture(scope="module")
def caller() -> Assistant:
    return tool_caller()


def answered(caller: Assistant, state: DialogueState, sampling: Sampling | None = None) -> tuple[str, str, int]:
    """What is said, what is called, and how many units of speech there are."""
    steps = list(reply(caller.model, state, sampling or Sampling()))
    texts = [
        caller.tokenizer.decode([step.token for step in steps if step.kind is kind])
        for kind in (TokenKind.REPLY, TokenKind.CALL)
    ]
    return texts[0], texts[1], sum(step.units.shape[1] for step in steps)


def test_a_call_is_not_said_and_its_result_is(caller: Assistant) -> None:
    talk = caller.converse(tools=[TOOL])
    asked = talk.ask(text=QUESTION)
    assert (asked.text, asked.calls) == ("", (("weather", ARGUMENTS),)) and not asked.units and not len(asked.waveform)
    told = talk.read(RESULTS)
    assert (told.text, told.calls) == (TOLD, ())
    assert caller.converse().ask(text=QUESTION).text == UNTOLD


def test_a_call_can_be_forced_and_forbidden(caller: Assistant) -> None:
    for messages, tools, sampling, found in (
        (SILENCE, [TOOL], Sampling(), (GREETING, "")),
        (SILENCE, [TOOL], Sampling(must_call="weather"), ("", CALL[:46])),
        (SILENCE, [TOOL], Sampling(must_call=""), ("", CALL[:22])),
        (SILENCE, [], Sampling(must_call="weather"), (GREETING, "")),
    ):
        state = caller.model.init_state(0, "", tools)
        caller.model.read_messages(messages, state)
        said, called, units = answered(caller, state, sampling)
        assert said == found[0] and called.startswith(found[1]) and bool(units) == bool(said)
    state = caller.model.init_state(0, "", [TOOL])
    caller.model.read_messages([{"role": "user", "content": QUESTION}], state)
    said, called, units = answered(caller, state, Sampling(may_call=False, max_tokens=20))
    assert called == "" and said and units


def test_a_reply_is_the_same_in_a_clone_made_at_any_step(caller: Assistant) -> None:
    """Tokens that have been picked and not given out go along."""
    state = caller.model.init_state(0, "", [TOOL])
    caller.model.read_messages([{"role": "user", "content": QUESTION}], state)
    whole = [step.token for step in reply(caller.model, state.clone(), Sampling())]
    steps = reply(caller.model, state, Sampling())
    seen: list[int] = []
    for _ in range(len(whole) - 1):
        seen.append(next(steps).token)
        rest = reply(caller.model, state.clone(), Sampling())
        assert [*seen, *(step.token for step in rest)] == whole


def test_a_one_shot_request_calls_and_is_told(caller: Assistant) -> None:
    request = OneShotRequest(caller, caller.vad)
    assert request.instruct("", [TOOL]) == ()
    request.read(QUESTION)

    def all_of() -> tuple[str, str]:
        text = call = ""
        ended = False
        while not ended:
            step = request.step(Sampling())
            text, call, ended = text + step.text, call + step.call, step.ended
        return text, call

    assert all_of() == ("", CALL)
    request.messages(RESULTS)
    assert all_of() == (TOLD, "")
