"""Push-to-talk: while the button is down silence is not heard, and a turn without speech gets no words."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tiny_assistant import HEARD, SAID, Loudness, tiny_assistant

from duologue.data_prep.audio import read_audio
from duologue.inference.assistant.assistant import Assistant
from duologue.inference.session.events import Event, EventKind
from duologue.inference.session.policy import Mode
from duologue.inference.session.session import Session
from duologue.inference.session.state import SessionConfig

RATE, FRAME = 16_000, 1_280


@pytest.fixture(scope="module")
def tiny() -> Assistant:
    return tiny_assistant()


def silence(seconds: float) -> np.ndarray:
    return np.zeros(round(seconds * RATE), np.float32)


def noise(seconds: float) -> np.ndarray:
    return (0.1 * np.random.default_rng(0).standard_normal(round(seconds * RATE))).astype(np.float32)


def pressed(session: Session, wave: np.ndarray, then: float = 0.0) -> list[Event]:
    """Hold the button for a recording, let it go, and wait."""
    session.press()
    events = session.tick(np.pad(wave, (0, -len(wave) % FRAME))).events if len(wave) else []
    session.press(False)
    frames = 1 + round(then * RATE / FRAME)
    for _ in range(frames):
        events += session.tick(np.zeros(FRAME, np.float32)).events
    return events


def text(events: list[Event], kind: EventKind) -> str:
    return " ".join(event.text for event in events if event.kind is kind)


def test_silence_is_not_listened_to(tiny: Assistant) -> None:
    """Ten minutes with the button down take no more positions than what was said, and no more memory."""
    session = Session(tiny, vad=Loudness())
    session.press()
    session.tick(silence(60))
    assert session.state.policy.mode is Mode.LISTENING
    assert session.state.turn.heard == [] and len(session.state.turn.quiet) <= 12
    before = session.state.dialogue.llm.length
    session.tick(noise(0.8))
    session.tick(silence(60))
    heard = session.state.dialogue.llm.length - before
    session.tick(noise(0.8))
    session.tick(silence(60))
    assert len(session.state.turn.heard) <= 4 + 10 + 12 + 10 and len(session.state.turn.quiet) <= 12
    assert session.state.dialogue.llm.length - before <= 3 * heard + 12
    session.press(False)
    events = [event for _ in range(40) for event in session.tick(np.zeros(FRAME, np.float32)).events]
    assert text(events, EventKind.USER_TEXT) == HEARD and text(events, EventKind.ANSWER_TEXT) == SAID


def test_a_pause_is_heard_as_it_is(tiny: Assistant) -> None:
    session = Session(tiny, vad=Loudness())
    wave = np.concatenate([noise(0.8), silence(0.8), noise(0.8)])
    session.press()
    session.tick(wave)
    heard = np.concatenate([frame.numpy() for frame in session.state.turn.heard])
    np.testing.assert_array_equal(heard[-len(wave) :], wave)


@pytest.mark.parametrize("on_request", [False, True])
def test_a_turn_without_speech_gets_no_words_and_leaves_no_trace(tiny: Assistant, on_request: bool) -> None:
    session = Session(tiny, SessionConfig(on_request=on_request), vad=Loudness())
    length = session.state.dialogue.llm.length
    events = pressed(session, silence(3))
    assert EventKind.ANSWER_STARTED in [event.kind for event in events]
    if on_request:
        session.tick(silence(0.8))
        assert session.state.awaiting_response
        session.respond()
    events += session.tick(silence(0.16)).events
    kinds = [event.kind for event in events]
    assert EventKind.ANSWER_FINISHED in kinds and EventKind.ANSWER_AUDIBLE not in kinds
    assert not text(events, EventKind.USER_TEXT) and not text(events, EventKind.ANSWER_TEXT)
    assert session.state.policy.mode is Mode.IDLE and session.state.memory.past == []
    assert session.state.dialogue.llm.length == length
    session.respond()
    events = pressed(session, noise(0.8), 5.0)
    if on_request:
        session.respond()
        events += session.tick(silence(4.8)).events
    assert text(events, EventKind.USER_TEXT) == HEARD and text(events, EventKind.ANSWER_TEXT) == SAID


def test_a_silent_turn_that_is_asked_about_in_writing_is_answered(tiny: Assistant) -> None:
    session = Session(tiny, vad=Loudness())
    session.about("what is seven")
    assert text(pressed(session, silence(1), 4.0), EventKind.ANSWER_TEXT) == SAID


def _answer(nano: Assistant, wave: np.ndarray) -> tuple[str, str]:
    session = Session(nano)
    events = pressed(session, wave, 3.0)
    return text(events, EventKind.USER_TEXT), text(events, EventKind.ANSWER_TEXT)


@pytest.mark.parametrize(
    "name, seconds",
    [
        ("plus", 3), ("hello", 3),
        *(pytest.param(name, seconds, marks=pytest.mark.slow)
          for name in ("plus", "capital", "day", "spell", "larger", "hello") for seconds in (3, 10, 15)),
    ],
)  # fmt: skip
def test_silence_with_the_button_down_changes_no_answer(nano: Assistant, root: Path, name: str, seconds: int) -> None:
    wave = read_audio(root / "demo/assets/examples" / f"{name}.flac", RATE)
    wanted = nano.ask((RATE, wave))
    quiet = silence(seconds)
    for parts in ((quiet, wave, quiet), (quiet[:-500], wave))[: 2 if seconds > 3 else 1]:
        assert _answer(nano, np.concatenate(parts)) == (wanted.transcript, wanted.text)


def test_noise_with_the_button_down_has_no_words(nano: Assistant) -> None:
    assert _answer(nano, noise(2.0)) == _answer(nano, silence(5.0)) == ("", "")
