"""Silence around speech and inside it changes no answer, what is no speech has no words, and long speech is cut at its
pauses: the segments by themselves, with a tiny model, and with nano."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_assistant import HEARD, SAID, Loudness, tiny_assistant

from duologue.checkpoints.importers.silero_vad import load_vad
from duologue.data_prep.audio import read_audio
from duologue.inference.assistant.assistant import Assistant
from duologue.inference.assistant.transcribe import transcribe
from duologue.inference.front_end import speech_segments as segments
from duologue.model.duplex.vad import WINDOW
from duologue.model.errors import DuologueError

RATE = 16_000
QUESTIONS = {
    "plus": "what is forty seven plus twelve", "capital": "what is the capital of france",
    "day": "what day comes after friday", "spell": "how do you spell water",
    "larger": "which is larger eighteen or eighty", "hello": "how are you",
}  # fmt: skip


def silence(seconds: float) -> np.ndarray:
    return np.zeros(round(seconds * RATE), np.float32)


def noise(seconds: float, level: float = 0.1, seed: int = 0) -> np.ndarray:
    return (level * np.random.default_rng(seed).standard_normal(round(seconds * RATE))).astype(np.float32)


def tones(seconds: float) -> np.ndarray:
    """Chords, one a second."""
    t = np.arange(round(seconds * RATE)) / RATE
    return sum(0.05 * np.sin(2 * np.pi * hz * 2 ** (np.floor(t) % 5 / 12) * t) for hz in (220, 277, 330, 440)).astype(
        np.float32
    )


def heard(waveform: np.ndarray, about: bool = False, assistant: Assistant | None = None) -> list[np.ndarray]:
    """By a tiny model, whose detector takes all that is loud for speech."""
    clip = segments.framed(waveform)
    model = (assistant or tiny_assistant()).model
    return segments.asked(model, waveform, clip, segments.detect(Loudness(), clip), about).parts


@pytest.fixture(scope="module")
def tiny() -> Assistant:
    return tiny_assistant()


@pytest.fixture(scope="module")
def questions(root: Path) -> dict[str, np.ndarray]:
    return {name: read_audio(root / "demo/assets/examples" / f"{name}.flac", RATE) for name in QUESTIONS}


# The segments.


@settings(max_examples=30)
@given(before=st.integers(0, 40_000), behind=st.integers(0, 40_000), length=st.integers(2_500, 20_000))
def test_silence_at_the_ends_makes_no_difference_to_the_bit(before: int, behind: int, length: int) -> None:
    speech = noise(2.0)[:length]
    speech[[0, -1]] = 0.1
    alone = segments.framed(speech)
    found = segments.framed(np.concatenate([np.zeros(before, np.float32), speech, np.zeros(behind, np.float32)]))
    np.testing.assert_array_equal(found, alone)
    assert len(alone) % WINDOW == 0 and len(speech) <= len(alone) <= len(speech) + 21 * WINDOW


def test_a_quiet_room_is_no_sound(tiny: Assistant) -> None:
    """Silence of a room, and one far quieter than speech, is shortened as the silence of zeros is."""
    for level in (0.0, 0.0005, 0.004):
        quiet = [noise(seconds, level) for seconds in (12.0, 9.0, 11.0)]
        wave = np.concatenate([quiet[0], noise(1.0), quiet[1], noise(1.0), quiet[2]])
        (turn,) = heard(wave, assistant=tiny)
        assert 2.0 + 0.96 <= len(turn) / RATE <= 2.0 + 0.96 + 2 * 0.4


@pytest.mark.parametrize("gap", [0.1, 0.5, 0.9])
def test_a_pause_stays_as_it_is(tiny: Assistant, gap: float) -> None:
    wave = np.concatenate([noise(1.0), silence(gap), noise(1.0)])
    (turn,) = heard(wave, assistant=tiny)
    at = int(np.flatnonzero(turn)[0])
    np.testing.assert_array_equal(turn[at : at + len(wave) - 1], wave[np.flatnonzero(wave)[0] :][: len(wave) - 1])


def test_a_sound_beside_speech_is_heard(tiny: Assistant) -> None:
    """The detector hears no speech in it; it is loud; the question is about it."""
    probabilities = np.zeros(400, np.float32)
    clip = np.concatenate([silence(0.32), noise(2.0, 0.05), silence(3.0), noise(1.5), silence(8.0)])[: 400 * WINDOW]
    start = round(5.32 * RATE) // WINDOW
    probabilities[start : start + 46] = 1.0
    (turn,) = segments.asked(tiny.model, clip, clip, probabilities).parts
    assert 2.0 + 0.96 + 1.5 <= len(turn) / RATE <= 2.0 + 0.96 + 1.5 + 0.8
    (speech,) = segments.dictated(tiny.model, clip, clip, probabilities).parts
    assert 1.5 <= len(speech) / RATE <= 1.5 + 0.8, "but it has no words"


def test_a_sound_alone_is_heard_if_it_is_asked_about(tiny: Assistant) -> None:
    clip = segments.framed(np.concatenate([silence(15), noise(2.0), silence(15)]))
    nothing = np.zeros(len(clip) // WINDOW)
    assert segments.asked(tiny.model, clip, clip, nothing).parts == []
    (turn,) = segments.asked(tiny.model, clip, clip, nothing, about=True).parts
    assert 2.0 <= len(turn) / RATE <= 2.8
    assert segments.asked(tiny.model, silence(3), silence(0), nothing[:0], about=True).parts == []


def test_a_click_is_no_speech() -> None:
    clicks = np.tile([1.0, 1.0, 1.0] + [0.0] * 30, 10)
    assert segments.spoken(clicks) == []
    assert segments.spoken(np.array([0, 0, 1, 1, 1, 0.5, 0, 0])) == [(2, 6)]
    assert segments.spoken(np.full(40, 0.8)) == [], "nobody is sure"


@settings(max_examples=25)
@given(runs=st.lists(st.tuples(st.integers(1, 100), st.integers(2, 300)), max_size=12), pack=st.booleans())
def test_parts_are_whole_and_none_is_too_long(runs: list[tuple[int, int]], pack: bool) -> None:
    """All that is said is in them, in order and once, but for margins; however it was said."""
    probabilities = np.concatenate([np.r_[np.zeros(quiet), np.ones(loud)] for quiet, loud in [*runs, (20, 0)]])
    clip = np.arange(len(probabilities) * WINDOW, dtype=np.float32)  # a sample says where it stood
    spoken = segments.spoken(probabilities)
    found = segments.parts(clip, spoken, 8.0, pack)
    assert all(len(part) <= 8.0 * RATE for part in found)
    samples = np.concatenate([np.zeros(0), *found])
    assert (np.diff(samples) > 0).all(), "nothing is heard twice"
    speech = np.concatenate([np.zeros(0), *(clip[a * WINDOW : b * WINDOW] for a, b in spoken)])
    assert np.isin(speech, samples).all(), "and nothing is lost"


@settings(max_examples=25)
@given(
    runs=st.lists(st.tuples(st.integers(1, 100), st.integers(8, 300)), min_size=1, max_size=8),
    before=st.integers(0, 3 * RATE),
)
def test_a_part_knows_where_it_stood(tiny: Assistant, runs: list[tuple[int, int]], before: int) -> None:
    """A sample says where it stood in the recording, which begins with so much silence."""
    probabilities = np.concatenate([np.r_[np.zeros(quiet), np.ones(loud)] for quiet, loud in [*runs, (20, 0)]])
    recording = np.arange(before + len(probabilities) * WINDOW, dtype=np.float64)
    recording[:before] = 0.0
    clip = segments.framed(recording.astype(np.float32))  # float32 is exact up to 2^24
    probabilities = np.pad(probabilities, (10, 0))[: len(clip) // WINDOW]
    heard = segments.dictated(tiny.model, recording, clip, probabilities)
    assert len(heard.parts) == len(heard.places) > 0
    for part, place in zip(heard.parts, heard.places, strict=True):
        assert 0 <= place.speech <= 1
        for at in np.flatnonzero(part)[:: max(1, len(part) // 20)]:
            assert place.in_recording(at / RATE) * RATE == pytest.approx(float(part[at]), abs=1)
        last = int(np.flatnonzero(part)[-1])
        assert place.in_recording((last + 1) / RATE, end=True) * RATE == pytest.approx(float(part[last]) + 1, abs=1)


def test_ten_minutes_without_a_pause_or_of_syllables_are_cut_too() -> None:
    clip = noise(600)
    windows = len(clip) // WINDOW
    for probabilities in (np.ones(windows), np.arange(windows) % 6 < 3):
        found = segments.parts(clip, segments.spoken(probabilities.astype(float)), 8.0)
        assert 600 / 8 <= len(found) <= 300 and all(1.0 * RATE < len(part) <= 8.0 * RATE for part in found)


def test_the_detector_hears_pieces_as_a_whole(questions: dict[str, np.ndarray]) -> None:
    vad, clip = load_vad(), segments.framed(questions["plus"])
    import torch

    whole = vad(torch.from_numpy(clip)[None])[0].numpy()
    np.testing.assert_allclose(segments.detect(vad, clip), whole, atol=1e-5)


# A tiny model.


def test_nothing_to_answer(tiny: Assistant) -> None:
    conversation = tiny.converse()
    for wave, reason in ((silence(3), "all samples are zero"), (np.full(RATE, 0.001, np.float32), "-60 dBFS")):
        reply = conversation.ask((RATE, wave))
        assert (reply.text, reply.transcript, len(reply.waveform), reply.units) == ("", "", 0, [])
        assert reply.warning is not None and reply.warning.startswith("no speech was heard") and reason in reply.warning
        assert reply.timings.audio_s == len(wave) / RATE
    assert conversation.turns == 0 and conversation._state.llm.length == 0, "nothing is remembered of it"
    assert transcribe(tiny, silence(3)) == transcribe(tiny, silence(3), beam=2) == ""


def test_a_question_in_writing_about_a_recording(tiny: Assistant) -> None:
    reply = tiny.ask((RATE, noise(1.0)), text="what is seven")
    assert reply.text == SAID and reply.transcript == f"{HEARD} what is seven" and reply.warning is None
    assert reply.timings.audio_s == 1.0
    silent = tiny.ask((RATE, silence(2.0)), text="what is seven")
    assert silent.text == SAID and silent.transcript == "" and "no speech was heard" in str(silent.warning)
    with pytest.raises(DuologueError, match="no words"):
        tiny.ask((RATE, noise(1.0)), text=" ")


def test_a_long_question_is_written_down_part_by_part(tiny: Assistant) -> None:
    """And then read: the answer is one."""
    wave = np.concatenate([part for _ in range(5) for part in (noise(3.0), silence(0.5))])
    conversation = tiny.converse()
    turn = conversation.stream((RATE, wave))
    chunks = list(turn)
    reply = turn.reply()
    assert reply.transcript == " ".join([HEARD] * 5) and reply.text == SAID and len(reply.waveform)
    assert "".join(chunk.transcript_delta for chunk in chunks) == reply.transcript
    assert conversation.turns == 1 and reply.timings.audio_s == len(wave) / RATE
    assert transcribe(tiny, wave) == reply.transcript
    assert conversation.ask(text="what is seven").text == SAID


# nano.


def test_what_is_no_speech_has_no_words(nano: Assistant) -> None:
    sudden = np.concatenate([silence(1), noise(3, 0.3), silence(1), tones(3)])
    for wave in (silence(3), silence(40), noise(5), noise(5, 0.002), tones(5), sudden):
        reply = nano.ask((RATE, wave))
        assert (reply.transcript, reply.text) == ("", "") and "no speech was heard" in str(reply.warning)
        assert transcribe(nano, wave) == ""


def _same(nano: Assistant, question: np.ndarray, *others: np.ndarray) -> None:
    wanted = nano.ask((RATE, question))
    for other in others:
        reply = nano.ask((RATE, other))
        assert (reply.transcript, reply.text, reply.units) == (wanted.transcript, wanted.text, wanted.units)
        assert reply.warning is None


@pytest.mark.parametrize("name, seconds", [("plus", 10), ("spell", 3), ("hello", 15)])
def test_silence_changes_no_answer(nano: Assistant, questions: dict[str, np.ndarray], name: str, seconds: int) -> None:
    wave, quiet = questions[name], silence(seconds)
    _same(nano, wave, np.concatenate([quiet, wave, quiet]))


@pytest.mark.slow
@pytest.mark.parametrize("name", QUESTIONS)
@pytest.mark.parametrize("seconds", [3, 10, 15])
def test_silence_changes_no_answer_of_all(
    nano: Assistant, questions: dict[str, np.ndarray], name: str, seconds: int
) -> None:
    wave, quiet, room = questions[name], silence(seconds), noise(seconds, 0.0005)
    _same(nano, wave, *(np.concatenate(parts) for parts in ((quiet, wave), (wave, quiet), (quiet, wave, quiet))))
    for parts in ((room, wave), (wave, room), (room, wave, room)):
        reply = nano.ask((RATE, np.concatenate(parts)))
        assert (reply.transcript, reply.text) == (QUESTIONS[name], nano.ask((RATE, wave)).text)
    assert transcribe(nano, np.concatenate([quiet, wave, quiet])) == QUESTIONS[name]


def test_a_minute_of_questions_is_written_down(nano: Assistant, questions: dict[str, np.ndarray]) -> None:
    names = list(QUESTIONS)
    wave = np.concatenate([part for name in names for part in (questions[name], silence(0.4))] * 2)
    assert transcribe(nano, wave) == " ".join([QUESTIONS[name] for name in names] * 2)
