"""The policy alone, driven by scripts and by events drawn at random; the gate's hysteresis."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from duologue.inference.front_end.speech_gate import WINDOW_MS, GateConfig, SpeechGate
from duologue.inference.session.policy import FRAME_MS, PRESETS, Action, DuplexConfig, DuplexPolicy, Mode, TurnInput
from duologue.model.duplex.monitor import TurnState
from duologue.model.errors import DuologueError


class Room:
    """Frames of speech and silence, an answer that lasts some frames, and what the policy does about them."""

    def __init__(self, config: DuplexConfig, answer_frames: int = 10) -> None:
        self.policy = DuplexPolicy(config)
        self.answer_frames = answer_frames
        self.left = self.speech_ms = self.silence_ms = self.played = 0
        self.log: list[tuple[int, Action]] = []
        self.now = 0

    def frame(self, speech: bool, turn_state: TurnState | None = None, pending: bool = False) -> list[Action]:
        self.now += FRAME_MS
        self.speech_ms = self.speech_ms + FRAME_MS if speech else 0
        self.silence_ms = 0 if speech else self.silence_ms + FRAME_MS
        answering = self.policy.mode in (Mode.ANSWERING, Mode.DUCKED)
        actions = self.policy.step(
            TurnInput(
                speech=speech,
                speech_ms=self.speech_ms,
                silence_ms=self.silence_ms,
                speaking=answering and self.left > 0,
                audible=answering and self.played > 0,
                turn_state=turn_state,
                word_monitor_pending=pending,
            )
        )
        self.log += [(self.now, action) for action in actions]
        if Action.ANSWER in actions:
            self.left, self.played = self.answer_frames, 0
        if self.policy.mode is Mode.ANSWERING and self.left:
            self.left, self.played = self.left - 1, self.played + 1
        return actions

    def frames(self, count: int, speech: bool, turn_state: TurnState | None = None) -> list[Action]:
        return [action for _ in range(count) for action in self.frame(speech, turn_state)]


PLAIN = DuplexConfig(endpoint_ms=480, speculate_ms=160, interrupt_ms=320, resume_ms=240)


def test_a_turn_and_its_answer() -> None:
    room = Room(PLAIN)
    assert room.frames(10, True) == [Action.LISTEN]
    assert room.frames(6, False) == [Action.SPECULATE, Action.ANSWER]
    assert room.log[1:] == [(960, Action.SPECULATE), (1280, Action.ANSWER)]
    assert room.frames(12, False) == [Action.FINISH]
    assert room.policy.mode is Mode.IDLE


def test_a_pause_drops_what_was_prepared() -> None:
    room = Room(PLAIN)
    room.frames(5, True)
    assert room.frames(4, False) == [Action.SPECULATE]
    assert room.frames(3, True) == [Action.DROP]
    assert room.frames(6, False) == [Action.SPECULATE, Action.ANSWER]


def test_without_speculation_nothing_is_prepared() -> None:
    room = Room(dataclasses.replace(PLAIN, speculate_ms=0))
    room.frames(5, True)
    assert room.frames(6, False) == [Action.ANSWER]


def test_words_are_read_before_a_turn_is_answered() -> None:
    """However long that takes, also where nothing is prepared in advance; who goes on meanwhile had not finished."""
    for speculate_ms, before in ((160, [Action.SPECULATE]), (0, [])):
        room = Room(dataclasses.replace(PLAIN, speculate_ms=speculate_ms))
        room.frames(5, True)
        assert [action for _ in range(5) for action in room.frame(False, pending=True)] == before
        late = [action for _ in range(4) for action in room.frame(False, pending=True)]
        assert before + late == [Action.SPECULATE], "once, to have words to read"
        assert room.frame(True, pending=True) == [Action.DROP]
        assert [a for _ in range(8) for a in room.frame(False, pending=True)] == [Action.SPECULATE]
        assert room.frame(False) == [Action.ANSWER]


@pytest.mark.parametrize(
    ("turn_state", "frames", "end"),
    [(TurnState.QUERY, 3, Action.ANSWER), (TurnState.WAIT, 20, Action.ANSWER), (TurnState.NOISE, 6, Action.IGNORE)],
)
def test_the_monitor_shortens_and_lengthens_the_wait(turn_state: TurnState, frames: int, end: Action) -> None:
    room = Room(dataclasses.replace(PLAIN, query_endpoint_ms=240, wait_endpoint_ms=1600))
    room.frames(5, True)
    assert end not in room.frames(frames - 1, False, turn_state)
    assert end in room.frame(False, turn_state)


def test_a_click_is_nobodys_turn() -> None:
    room = Room(dataclasses.replace(PLAIN, shortest_turn_ms=200))
    room.frames(2, True)
    assert room.frames(6, False)[-1] is Action.IGNORE
    assert room.policy.mode is Mode.IDLE


def test_a_false_alarm_and_an_interruption() -> None:
    room = Room(PLAIN)
    room.frames(5, True)
    room.frames(8, False)
    assert room.frames(3, True) == [Action.DUCK]
    assert room.frames(3, False) == [Action.RESUME]
    assert room.frames(4, True) == [Action.DUCK, Action.INTERRUPT]
    assert room.policy.mode is Mode.LISTENING
    assert room.frames(6, False) == [Action.SPECULATE, Action.ANSWER], "and it is answered in its turn"


def test_an_echo_taken_for_speech_is_taken_back() -> None:
    """Over the answer: go on at once. After it: nobody's turn, unless there was a pause, so somebody else's speech."""
    config, quiet = DuplexConfig(), {"speech": False, "speech_ms": 0, "silence_ms": FRAME_MS}
    ducked = DuplexPolicy(config, mode=Mode.DUCKED, barge_in_ms=160)
    assert ducked.step(TurnInput(**quiet, speaking=True, audible=True, was_echo=True)) == [Action.RESUME]
    begun = DuplexPolicy(config, mode=Mode.LISTENING, turn_ms=160, spoken_ms=160)
    assert begun.step(TurnInput(**quiet, was_echo=True)) == [Action.IGNORE] and begun.mode is Mode.IDLE
    after_a_pause = DuplexPolicy(config, mode=Mode.LISTENING, turn_ms=800, spoken_ms=400)
    assert after_a_pause.step(TurnInput(**quiet, was_echo=True)) == [] and after_a_pause.mode is Mode.LISTENING


def test_a_word_as_short_as_stop_interrupts_if_the_monitor_says_so() -> None:
    room = Room(PLAIN)
    room.frames(5, True)
    room.frames(8, False)
    assert room.frames(2, True) == [Action.DUCK]
    assert room.frame(False, TurnState.QUERY) == [Action.INTERRUPT]


def test_noise_never_interrupts() -> None:
    room = Room(PLAIN, answer_frames=30)
    room.frames(5, True)
    room.frames(8, False)
    assert room.frames(20, True, TurnState.NOISE) == [Action.DUCK]
    assert room.frames(3, False, TurnState.NOISE) == [Action.RESUME]


def test_who_goes_on_before_a_sample_was_heard_was_not_finished() -> None:
    room = Room(PLAIN)
    room.frames(5, True)
    room.frames(6, False)
    room.played = 0
    assert room.frame(True) == [Action.CONTINUE]
    assert room.frames(6, False) == [Action.SPECULATE, Action.ANSWER]


def test_nobody_talks_for_ever() -> None:
    room = Room(dataclasses.replace(PLAIN, longest_turn_ms=2000))
    assert room.frames(25, True) == [Action.LISTEN, Action.ANSWER]


@settings(max_examples=300, deadline=None)
@given(
    st.sampled_from(sorted(PRESETS)),
    st.lists(
        st.tuples(st.integers(1, 20), st.booleans(), st.sampled_from([None, *TurnState])), min_size=1, max_size=30
    ),
    st.integers(0, 15),
)
def test_whatever_happens(preset: str, script: list[tuple[int, bool, TurnState | None]], answer_frames: int) -> None:
    """No turn is lost, nothing is answered twice, the assistant is silent when it should be, and nothing deadlocks."""
    room = Room(PRESETS[preset], answer_frames)
    for count, speech, turn_state in script:
        room.frames(count, speech, turn_state)
    room.frames(120, False)  # 9.6 s of silence: whatever was going on is over
    assert room.policy.mode is Mode.IDLE
    turn = answer = prepared = ducked = False
    for _, action in room.log:
        if action is Action.LISTEN:
            assert not turn and not answer
            turn = True
        elif action is Action.SPECULATE:
            assert turn and not prepared
            prepared = True
        elif action is Action.DROP:
            assert turn and prepared
            prepared = False
        elif action is Action.ANSWER:
            assert turn
            turn, answer, prepared = False, True, False
        elif action is Action.IGNORE:
            assert turn
            turn = prepared = False
        elif action is Action.CONTINUE:
            assert answer and not ducked
            turn, answer = True, False
        elif action is Action.DUCK:
            assert answer and not ducked
            ducked = True
        elif action is Action.RESUME:
            assert ducked
            ducked = False
        elif action is Action.INTERRUPT:
            assert ducked
            ducked, answer, turn = False, False, True
        elif action is Action.FINISH:
            assert answer and not ducked
            answer = False
    assert not (turn or answer or ducked)


def test_bad_waits_are_refused() -> None:
    with pytest.raises(DuologueError, match="endpoint_ms is -1"):
        DuplexConfig(endpoint_ms=-1)
    with pytest.raises(DuologueError, match="<= endpoint_ms 100 <="):
        DuplexConfig(endpoint_ms=100)


def drive(config: GateConfig, probabilities: list[float]) -> list[bool]:
    gate, seen = SpeechGate(config), []
    for probability in probabilities:
        gate.push(probability)
        seen.append(gate.open)
    return seen


def test_the_gate_has_hysteresis_and_a_least_duration() -> None:
    config = GateConfig(threshold=0.6, release=0.4, onset_ms=2 * WINDOW_MS)
    assert drive(config, [0.9, 0.1, 0.9, 0.7, 0.5, 0.45, 0.3, 0.5]) == [
        False,
        False,
        False,
        True,
        True,
        True,
        False,
        False,
    ]
    gate = SpeechGate(config)
    for probability in (0.0, 0.9, 0.9, 0.9, 0.1, 0.1):
        gate.push(probability)
        if gate.open:
            assert gate.now_ms - gate.speech_ms == WINDOW_MS, "speech began where the first window did"
    assert (gate.silence_ms, gate.speech_ms) == (2 * WINDOW_MS, 0)
    with pytest.raises(DuologueError, match=r"release 0\.7 and threshold 0\.6"):
        GateConfig(release=0.7)
    with pytest.raises(DuologueError, match="onset_ms is -1"):
        GateConfig(onset_ms=-1)
