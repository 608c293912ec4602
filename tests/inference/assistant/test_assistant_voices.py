"""In which voice a model answers: by name, in a session, and like a recording's."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_assistant import Loudness, tiny_assistant
from vowels import RATE, sung_vowel

from duologue.inference.assistant import voices
from duologue.inference.assistant.assistant import Assistant, load
from duologue.inference.assistant.voices import CLIP, Measured, like, voices_of
from duologue.inference.session.session import Session
from duologue.inference.session.state import SessionConfig
from duologue.model.errors import DuologueError
from duologue.model.speech_decoder.voices import Speaker

TWO = {"one": Speaker(row=0), "two": Speaker(row=1)}


@pytest.fixture(scope="module")
def two() -> Assistant:
    """A tiny model with a table of two speakers."""
    assistant: Any = tiny_assistant()
    vocoder = assistant.model.speech.vocoder
    vocoder.speakers = torch.nn.Embedding(2, vocoder.config.embedding_dim)
    return assistant.speaking_in(TWO)


def test_a_voice_is_asked_for_by_name_and_an_unknown_one_is_told_what_there_is(two) -> None:
    said = {name: two.ask(text="the", voice=name).waveform for name in (None, "one", "two")}
    assert np.array_equal(said[None], said["one"]) and not np.array_equal(said["one"], said["two"])
    turned = two.with_voice("two")
    assert np.array_equal(turned.ask(text="the").waveform, said["two"])
    assert list(voices_of(turned.model)) == ["two", "one"]
    assert list(voices_of(tiny_assistant(speech=False).model)) == ["default"]
    with pytest.raises(DuologueError, match="there is no voice 'deep'; this model has: one, two"):
        two.ask(text="the", voice="deep")


def test_a_session_speaks_in_its_voice_from_the_next_answer_on(two, tmp_path: Path) -> None:
    def said(session: Session) -> np.ndarray:
        session.type("the")
        return np.concatenate([session.tick(np.zeros(session.frame, np.float32)).pcm for _ in range(20)])

    first = Session(two, vad=Loudness())
    usual = said(first)
    other = said(Session(two, SessionConfig(voice="two"), vad=Loudness()))
    assert usual.any() and not np.array_equal(usual, other)
    first = Session(two, vad=Loudness())
    first.configure(replace(first.config, voice="two"))
    first.save(tmp_path / "saved")
    assert np.array_equal(said(Session.load(tmp_path / "saved", two, Loudness())), other)
    unknown = SessionConfig(voice="deep")
    for refused in (lambda: first.configure(unknown), lambda: Session(two, unknown)):
        with pytest.raises(DuologueError, match="this model has: one, two"):
            refused()
    assert first.config.voice == "two"


def test_a_voice_is_measured_by_its_pitch_and_by_its_formants(monkeypatch, two) -> None:
    low, high = (Measured.of(sung_vowel(2, hertz), "it") for hertz in (110, 165))
    assert low.pitch == pytest.approx(110, rel=0.02)
    change = low.becoming(high)
    assert change.pitch == pytest.approx(1.5, rel=0.02) and change.formants == pytest.approx(1, abs=0.06)
    monkeypatch.setattr(voices, "_measured", lambda assistant, speaker: [low, high][speaker.row])
    assert like(two, (RATE, sung_vowel(2, 160))) == TWO["two"] and like(two, (RATE, sung_vowel(2, 100))) == TWO["one"]
    with pytest.raises(DuologueError, match=r"0 s of voiced speech; at least 0.5 s"):
        like(two, (RATE, np.zeros(RATE, np.float32)))
    with pytest.raises(DuologueError, match="takes a source_filter vocoder"):
        like(tiny_assistant(), (RATE, sung_vowel(2)))


def test_nano_finds_the_factors_of_a_voice_again() -> None:
    nano = load("nano")
    made = nano.speaking_in({"x": Speaker(pitch=0.8, formants=0.88)}).ask(text="how do you spell water")
    copied = nano.with_voice((made.sample_rate, made.waveform))
    found = voices_of(copied.model)[CLIP]
    assert found.pitch == pytest.approx(0.8, rel=0.1) and found.formants == pytest.approx(0.88, rel=0.05)
    assert next(iter(voices_of(copied.model))) == CLIP
