"""A turn of push-to-talk too long to be heard at once is written down part by part, and answered as one question."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from test_worker import begins, serve
from tiny_assistant import HEARD, SAID, Loudness, tiny_assistant

from duologue.data_prep.audio import read_audio
from duologue.inference.assistant.assistant import Assistant
from duologue.inference.assistant.transcribe import transcribe
from duologue.inference.serving.workers.worker import Job
from duologue.inference.session.events import Event, EventKind
from duologue.inference.session.policy import DuplexConfig, Mode
from duologue.inference.session.session import Session
from duologue.inference.session.state import SessionConfig
from duologue.model.adaptor.adaptor import AdaptorState

RATE, FRAME = 16_000, 1_280
QUIET = np.zeros(FRAME, np.float32)


@pytest.fixture(scope="module")
def tiny() -> Assistant:
    return tiny_assistant()


def noise(seconds: float, seed: int = 0) -> np.ndarray:
    return (0.1 * np.random.default_rng(seed).standard_normal(round(seconds * RATE))).astype(np.float32)


def sentences(count: int) -> np.ndarray:
    """Two seconds of sound each, and half a second of silence behind it, in whole frames."""
    wave = np.concatenate([part for i in range(count) for part in (noise(2, i), np.zeros(RATE // 2, np.float32))])
    return np.pad(wave, (0, -len(wave) % FRAME))


def released(session: Session, seconds: float = 6.0) -> list[Event]:
    session.press(False)
    return [event for _ in range(round(seconds * RATE / FRAME)) for event in session.tick(QUIET).events]


def text(events: list[Event], kind: EventKind) -> str:
    return " ".join(event.text for event in events if event.kind is kind)


@pytest.mark.parametrize("count", [5, 24])
def test_it_is_written_down_whole_and_answered_once(tiny: Assistant, count: int) -> None:
    """However long it is, and whoever asks; nothing grows with it but its words."""
    session, wave = Session(tiny, vad=Loudness()), sentences(count)
    session.press()
    kinds, waiting = [], 0
    for frame in wave.reshape(-1, FRAME):
        kinds += [event.kind for event in session.tick(frame).events]
        waiting = max(waiting, sum(map(len, session.state.turn.heard)))
    assert EventKind.ANSWER_STARTED not in kinds and session.state.policy.mode is Mode.LISTENING
    assert waiting <= 16.5 * RATE and session.state.dialogue.llm.length < 120
    events = released(session)
    assert text(events, EventKind.USER_TEXT) == " ".join([HEARD] * count) == transcribe(tiny, wave)
    assert text(events, EventKind.ANSWER_TEXT) == SAID
    assert len(session.state.memory.past) == 1 and session.state.turn.written is None
    session.press()  # the next turn begins anew
    session.tick(noise(0.8))
    assert text(released(session), EventKind.USER_TEXT) == HEARD


def test_it_is_the_same_for_any_size_of_tick_and_a_clone_goes_on(tiny: Assistant, tmp_path: Path) -> None:
    wave = sentences(9)
    sizes, found = (1, 7, len(wave) // FRAME), []
    for size in sizes:
        session = Session(tiny, vad=Loudness())
        session.press()
        for start in range(0, len(wave), size * FRAME):
            session.tick(wave[start : start + size * FRAME])
            if size == 7 and start > 18 * RATE:
                session = session.clone()
                session.save(tmp_path / "saved")
                session = Session.load(tmp_path / "saved", tiny, Loudness())
        found.append((session, [(event.kind, event.text) for event in released(session)]))
    assert found[0][1] == found[1][1] == found[2][1]
    first, *others = (session.state for session, _ in found)
    for other in others:
        assert first.turn.written == other.turn.written and first.dialogue.llm.length == other.dialogue.llm.length


def test_a_turn_of_eight_seconds_is_heard_as_it_was(tiny: Assistant) -> None:
    """One turn, speech and not words in the language model."""
    session = Session(tiny, vad=Loudness())
    session.press()
    session.tick(noise(8.0))
    assert session.state.turn.written is None and session.state.dialogue.llm.length >= 100
    assert text(released(session), EventKind.USER_TEXT) == HEARD


def test_the_longest_turn_is_no_limit_while_the_button_is_down(tiny: Assistant) -> None:
    session = Session(tiny, SessionConfig(duplex=DuplexConfig(longest_turn_ms=2_000)), vad=Loudness())
    session.press()
    events = session.tick(noise(4.0)).events
    assert session.state.policy.mode is Mode.LISTENING
    assert EventKind.ANSWER_STARTED not in [event.kind for event in events]
    assert text(released(session), EventKind.ANSWER_TEXT) == SAID


class Deaf(Loudness):
    """To whom nothing is speech."""

    def step(self, x: torch.Tensor, state: AdaptorState) -> torch.Tensor:
        return 0 * super().step(x, state)


def test_half_a_minute_of_music_is_no_turn(tiny: Assistant) -> None:
    """And it is more than the encoder can hear at once."""
    session = Session(tiny, vad=Deaf())
    session.press()
    for frame in (noise(30) * 5).reshape(-1, FRAME):
        session.tick(frame)
        assert sum(map(len, session.state.turn.heard)) <= 16.5 * RATE
    events = released(session)
    assert not text(events, EventKind.USER_TEXT) and not text(events, EventKind.ANSWER_TEXT)


def test_it_is_asked_about_in_writing(tiny: Assistant) -> None:
    session = Session(tiny, vad=Loudness())
    session.about("what is seven")
    session.press()
    session.tick(sentences(5))
    events = released(session)
    assert text(events, EventKind.USER_TEXT) == " ".join([HEARD] * 5 + ["what is seven"])
    assert text(events, EventKind.ANSWER_TEXT) == SAID
    reply = tiny.ask((RATE, sentences(5)), text="what is seven")
    assert reply.text == SAID and reply.transcript == " ".join([HEARD] * 5)


def test_the_past_may_change_meanwhile(tiny: Assistant) -> None:
    session, wave = Session(tiny, vad=Loudness()), sentences(8)
    session.press()
    session.tick(wave[: 12 * RATE // FRAME * FRAME])
    session.remember([("what is two plus two", "it makes four")])
    session.tick(wave[12 * RATE // FRAME * FRAME :])
    events = released(session)
    assert text(events, EventKind.USER_TEXT) == " ".join([HEARD] * 8) and text(events, EventKind.ANSWER_TEXT) == SAID
    assert len(session.state.memory.past) == 2


def test_nobody_else_waits_for_it(tiny: Assistant) -> None:
    """And its own frames, which nobody waits for, are not late."""
    frames, count = sentences(8).reshape(-1, FRAME), len(sentences(8)) // FRAME
    jobs = [begins(0), begins(1), Job(0, 0, "press", (), 0.0)]
    jobs += [Job(0, n + 1, "tick", (frame,), 0.08 * n) for n, frame in enumerate(frames)]
    jobs += [Job(0, count + 1, "press", (False,), 0.08 * count), Job(0, count + 2, "tick", (QUIET,), 0.08 * count)]
    jobs += [Job(1, n, "tick", (QUIET,), 0.08 * n + 0.01) for n in range(count + 4)]
    lines, _ = serve(tiny, jobs)
    assert text(lines[0][count + 2].value.events, EventKind.USER_TEXT) == " ".join([HEARD] * 8)
    assert max(lines[1][n].late_ms for n in range(count + 4)) < 40
    assert max(lines[0][n].late_ms for n in range(110, count + 3)) == 0


def _errors(wanted: str, found: str) -> float:
    """Share of words in error."""
    one, other = wanted.split(), found.split()
    row = list(range(len(other) + 1))
    for i, word in enumerate(one, 1):
        before, row[0] = row[0], i
        for j, another in enumerate(other, 1):
            before, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, before + (word != another))
    return row[-1] / len(one)


@pytest.mark.parametrize("times", [1, pytest.param(4, marks=pytest.mark.slow)])
def test_nano_writes_all_of_its_questions_down(nano: Assistant, root: Path, times: int) -> None:
    names = ("plus", "capital", "day", "spell")
    waves = [read_audio(root / "demo/assets/examples" / f"{name}.flac", RATE) for name in names]
    gap = np.zeros(RATE // 2, np.float32)
    wave = np.concatenate([part for each in waves * times for part in (each, gap)])
    session = Session(nano)
    session.press()
    session.tick(np.pad(wave, (0, -len(wave) % FRAME)))
    heard = text(released(session, 1.0), EventKind.USER_TEXT)
    wanted = " ".join([nano.ask((RATE, each)).transcript for each in waves] * times)
    assert _errors(wanted, heard) <= 0.05, heard
