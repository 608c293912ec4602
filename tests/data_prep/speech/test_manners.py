"""Plain speech in another manner: what a whisper lacks, what a shout has, and that loudness tells nothing."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from duologue.data_prep.speech.another_voice import voicing
from duologue.data_prep.speech.engine import Voice
from duologue.data_prep.speech.manners import MANNERS, WHISPERERS, prediction_envelope, spoken_in, told, whispered

RATE = 16_000
Speech = Callable[..., np.ndarray]


@pytest.fixture(scope="module")
def plain(speech: Speech) -> np.ndarray:
    return speech("where is the station please").astype(np.float32) / 32768


def voiced_and_pitch(wave: np.ndarray) -> tuple[float, float]:
    """The fraction of loud frames that are voiced, and the median pitch of those, Hz."""
    windows = np.lib.stride_tricks.sliding_window_view(wave, 512)[::256] * np.sqrt(np.hanning(512))
    voiced, pitch = voicing(windows, RATE)
    power = np.square(windows).sum(1)
    loud = power > 0.02 * power.max()
    return float(voiced[loud].mean()), float(np.exp(np.median(pitch[voiced & loud]))) if (voiced & loud).any() else 0.0


def tilt(wave: np.ndarray) -> float:
    """dB of 1 to 4 kHz over those below 1 kHz."""
    power, hertz = np.square(np.abs(np.fft.rfft(wave))), np.fft.rfftfreq(len(wave), 1 / RATE)
    return float(10 * np.log10(power[(hertz > 1000) & (hertz < 4000)].sum() / power[hertz < 1000].sum()))


@pytest.mark.parametrize("seed", range(2))
def test_each_manner_has_what_it_is_known_by(plain: np.ndarray, seed: int) -> None:
    said = {name: spoken_in(plain, name, np.random.default_rng(seed), prosody=True) for name in MANNERS}
    voiced, pitch = voiced_and_pitch(plain)
    for name, wave in said.items():
        assert wave.dtype == np.float32 and np.abs(wave).max() <= 1 and wave.any(), name
    assert voiced > 0.6 and voiced_and_pitch(said["whisper"])[0] < 0.5 * voiced
    assert voiced_and_pitch(said["shout"])[1] > 1.25 * pitch
    assert tilt(said["shout"]) > tilt(plain) + 1.5 and tilt(said["whisper"]) > tilt(plain) + 1.5
    assert len(said["agitated"]) < 0.8 * len(plain) <= 0.8 * len(said["calm"])
    assert voiced_and_pitch(said["agitated"])[1] > 1.02 * pitch


def test_an_envelope_is_that_of_the_filter_that_made_the_sound() -> None:
    """Noise through one resonance."""
    rng = np.random.default_rng(0)
    radius, angle = 0.97, 2 * np.pi * 1500 / RATE
    sound, noise = np.zeros(20_000), rng.standard_normal(20_000)
    for n in range(2, len(sound)):
        sound[n] = noise[n] + 2 * radius * np.cos(angle) * sound[n - 1] - radius**2 * sound[n - 2]
    windows = np.lib.stride_tricks.sliding_window_view(sound, 512)[::512] * np.sqrt(np.hanning(512))
    peaks = prediction_envelope(windows).argmax(1) * RATE / 512
    assert np.abs(np.median(peaks) - 1500) < 60


def test_what_is_short_or_silent_stays_so() -> None:
    rng = np.random.default_rng(0)
    assert len(whispered(np.ones(100, np.float32), rng)) == 100
    for manner in MANNERS:
        assert not np.abs(spoken_in(np.zeros(RATE, np.float32), manner, rng, prosody=True)).max() > 1e-3, manner


def test_voices_that_whisper_by_themselves_are_apart_in_held_out_sets() -> None:
    voice, rng = Voice(engine="espeak", name="en-gb+m3"), np.random.default_rng(0)
    by_split = {split: {told(voice, "whisper", rng, split)[0].name for _ in range(20)} for split in WHISPERERS}
    assert by_split["train"] == {"en-gb+m3", "en-gb+whisper"}
    assert by_split["dev"] == by_split["test"] == {"en-gb+m3", "en-gb+whisperf"}
    names = {told(Voice(engine="kokoro", name="am_adam"), "whisper", rng, "test")[0].name for _ in range(20)}
    assert names == {"am_adam"}
    rates = {name: told(voice, name, rng)[1].rate for name in MANNERS}  # type: ignore[union-attr]
    assert rates["calm"] < 170 < 230 < rates["agitated"]
    assert told(Voice(engine="command", name="tts {text} {wav}"), "shout", rng) == (
        Voice(engine="command", name="tts {text} {wav}"), None, False
    )  # fmt: skip
