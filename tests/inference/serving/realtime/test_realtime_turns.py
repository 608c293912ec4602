"""Whose turn it is, alone: by scripts, and by events drawn at random in any order."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from duologue.inference.serving.realtime.turns import Do, Refused, Stage, Turns
from duologue.model.errors import DuologueError


def run(turns: Turns, *events: str) -> list[Do]:
    done = [getattr(turns, name)() for name in events]
    return [action for actions in done if isinstance(actions, list) for action in actions]


SAID = ("listening", "decided", "audible")


def test_a_turn_and_its_answer() -> None:
    turns = Turns()
    assert run(turns, *SAID) == [Do.BEGIN_TURN, Do.STOP_TURN, Do.COMMIT, Do.BEGIN_RESPONSE]
    assert turns.stage is Stage.RESPONDING and turns.busy
    assert run(turns, "finished") == [Do.FINISH_RESPONSE] and turns.stage is Stage.IDLE and not turns.busy


def test_who_goes_on_had_not_finished() -> None:
    turns = Turns()
    assert run(turns, "listening", "decided", "speech_started") == [Do.BEGIN_TURN, Do.GO_ON]
    assert run(turns, "decided", "finished") == [Do.STOP_TURN, Do.COMMIT, Do.BEGIN_RESPONSE, Do.FINISH_RESPONSE]


def test_speech_over_an_answer() -> None:
    turns = Turns()
    run(turns, *SAID)
    assert run(turns, "speech_started", "listening") == []
    assert run(turns, "interrupted") == [Do.BEGIN_TURN, Do.INTERRUPT_RESPONSE]
    assert run(turns, "decided", "audible") == [Do.STOP_TURN, Do.COMMIT, Do.BEGIN_RESPONSE]


def test_what_is_nobodys() -> None:
    assert run(Turns(), "listening", "ignored") == [Do.BEGIN_TURN, Do.STOP_TURN, Do.DROP_TURN]


def test_a_turn_waits_for_a_response() -> None:
    turns = Turns(on_request=True)
    held = [Do.BEGIN_TURN, Do.STOP_TURN, Do.COMMIT, Do.HOLD]
    assert run(turns, "listening", "decided") == held and turns.held and turns.writing
    assert run(turns, "transcribed") == [Do.WRITTEN] and turns.held and not turns.busy
    assert turns.ask() == [Do.ANSWER_HELD] and turns.begin() and not turns.held
    with pytest.raises(Refused, match="under way"):
        turns.ask()
    turns.cancelled()
    assert turns.stage is Stage.IDLE
    run(turns, "listening", "decided", "listening")
    assert turns.held and not turns.writing, "it goes on, and so does what is written of it"


def test_a_response_while_the_user_speaks() -> None:
    """Where a turn waits, what is being said belongs to it; otherwise it was nobody's."""
    turns = Turns(on_request=True)
    run(turns, "listening", "decided", "transcribed", "listening")
    assert turns.ask() == [Do.END_TURN, Do.STOP_TURN, Do.COMMIT, Do.HOLD, Do.ANSWER_HELD]
    turns.asked_in_vain()
    assert turns.held and turns.ask() == [Do.ANSWER_HELD], "it still waits"
    turns = Turns(stage=Stage.HEARING)
    assert turns.ask() == [Do.STOP_TURN, Do.DROP_TURN, Do.DISCARD, Do.ANSWER_ITEMS]
    turns.asked_in_vain()
    assert turns.stage is Stage.IDLE and run(turns, "listening") == [Do.BEGIN_TURN]
    turns = Turns(manual=True, held=True)
    with pytest.raises(DuologueError, match="a turn waits"):
        turns.ask(given=True)
    assert turns.stage is Stage.IDLE and turns.held


def test_who_goes_on_over_the_response_that_was_asked_for() -> None:
    """Nothing of it has been heard: it answers what is said until then; or there is nothing left to answer."""
    for last, action in (("decided", Do.RESPOND), ("ignored", Do.FINISH_RESPONSE)):
        turns = Turns(on_request=True)
        run(turns, "listening", "decided", "transcribed", "listening", "ask", "begin")
        assert run(turns, "speech_started", "listening") == [] and run(turns, last) == [action]
        assert turns.stage is (Stage.RESPONDING if last == "decided" else Stage.IDLE)


def test_the_turn_that_waits_is_deleted() -> None:
    turns = Turns(on_request=True)
    run(turns, "listening", "decided", "transcribed")
    assert run(turns, "deleted") == [Do.DISCARD] and not turns.held
    run(turns, "listening", "decided", "listening")
    assert run(turns, "deleted") == [Do.STOP_TURN, Do.DROP_TURN, Do.DISCARD] and turns.stage is Stage.IDLE


def test_nothing_is_answered_in_a_transcription_session() -> None:
    turns = Turns(on_request=True, unanswered=True)
    assert run(turns, "listening", "decided", "transcribed")[-2:] == [Do.WRITTEN, Do.DISCARD] and not turns.held


EVENTS = (
    "speech_started", "listening", "ignored", "decided", "transcribed", "audible", "finished", "interrupted",
    "committed", "ask", "ask_given", "asked_in_vain", "begin", "begin_reading", "read", "cancelled", "forget",
    "deleted",
)  # fmt: skip


@settings(max_examples=500)
@given(st.booleans(), st.booleans(), st.lists(st.sampled_from(EVENTS), max_size=60))
def test_whatever_happens(manual: bool, on_request: bool, events: list[str]) -> None:
    """In any order: turns and responses begin and end in pairs, one of each at a time, and nothing is stuck."""
    turns = Turns(manual=manual, on_request=on_request or manual)
    turn = response = False

    def check(actions: list[Do]) -> None:
        nonlocal turn, response
        for at, action in enumerate(actions):
            if action is Do.BEGIN_TURN:
                assert not turn and not manual
                turn = True
            elif action in (Do.STOP_TURN, Do.GO_ON):
                assert turn
                assert action is Do.GO_ON or actions[at + 1] in (Do.COMMIT, Do.DROP_TURN)
            elif action in (Do.COMMIT, Do.DROP_TURN):
                turn = False
            elif action is Do.BEGIN_RESPONSE:
                assert not response and not turn
                response = True
            elif action in (Do.FINISH_RESPONSE, Do.INTERRUPT_RESPONSE):
                assert response
                response = False
            elif action in (Do.ANSWER_HELD, Do.ANSWER_ITEMS):
                assert not response and at == len(actions) - 1 and turns.stage is Stage.ASKED

    for name in events:
        before = turns.stage
        if name in ("ask", "ask_given"):
            if not turns.open_to_all:
                with pytest.raises(Refused):
                    turns.ask()
                assert turns.stage is before
            elif name == "ask_given" and turns.held:
                with pytest.raises(DuologueError):
                    turns.ask(given=True)
                assert turns.stage is before
            else:
                check(turns.ask(name == "ask_given"))
        elif name in ("begin", "begin_reading"):
            response = turns.begin(name == "begin_reading") or response
        elif name == "cancelled":
            response = response and not turns.responding
            turns.cancelled()
        elif name == "forget":
            turns.forget()
            turn = False
        else:
            check(getattr(turns, name)() or [])
        assert turns.responding is response and turn is (turns.stage in (Stage.HEARING, Stage.DECIDED))
        assert not turns.writing or turns.held
    if turns.stage is Stage.ASKED:
        turns.asked_in_vain()
    check(turns.transcribed())
    check(turns.finished())
    assert turns.stage is Stage.IDLE and not turn and not response and not turns.busy
