"""The pitch of recordings: tones with and without their fundamental, glides, noise, silence; against librosa's pYIN."""

import librosa
import numpy as np
import pytest

from duologue.data_prep.speech.pitch import pitch, pyin

RATE, HOP = 16000, 160


def voice(hertz, harmonics=range(1, 12)):
    """Harmonics of a pitch (n,) in Hz."""
    phase = 2 * np.pi * np.cumsum(hertz) / RATE
    return sum(np.cos(k * phase) / k for k in harmonics).astype(np.float32) / 4


@pytest.mark.parametrize("hertz", [70, 110, 217, 390])
@pytest.mark.parametrize("harmonics", [range(1, 12), range(2, 12)], ids=["all", "no-fundamental"])
def test_a_tone_has_its_pitch(hertz, harmonics):
    found = pitch(voice(np.full(RATE, float(hertz)), harmonics), RATE, HOP)
    assert found.shape == (100,)
    np.testing.assert_allclose(found[5:-5], hertz, rtol=0.01)


def test_noise_and_silence_have_none_and_a_short_recording_has_no_frames():
    rng = np.random.default_rng(0)
    assert (pitch(rng.standard_normal(RATE).astype(np.float32), RATE, HOP) > 0).mean() < 0.05
    assert not pitch(np.zeros(RATE, np.float32), RATE, HOP).any()
    assert pitch(np.zeros(HOP - 1, np.float32), RATE, HOP).shape == (0,)
    quiet = np.concatenate([voice(np.full(RATE, 120.0)), 1e-4 * voice(np.full(RATE, 120.0))])
    assert (pitch(quiet, RATE, HOP)[:95] > 0).all()
    assert not pitch(quiet, RATE, HOP)[105:].any()


@pytest.mark.slow  # librosa compiles pYIN first
def test_it_agrees_with_pyin_on_a_gliding_voice_that_pauses():
    t = np.arange(2 * RATE) / RATE
    wave = voice(130 + 50 * np.sin(2 * np.pi * 0.7 * t))
    wave += 0.003 * np.random.default_rng(0).standard_normal(len(wave)).astype(np.float32)
    wave[RATE // 2 : RATE] *= 0.0
    theirs, said, _ = librosa.pyin(wave, fmin=65, fmax=400, sr=RATE, hop_length=HOP, frame_length=1024)
    for tracker, hop in ((pitch, HOP), (pyin, HOP), (pyin, HOP // 2)):  # of which pYIN measures every second
        ours = tracker(wave, RATE, hop)
        assert len(ours) == len(wave) // hop
        frames = np.rint((np.arange(len(ours)) + 0.5) * hop / HOP).astype(int)
        both = (ours > 0) & said[frames]
        assert ((ours > 0) == said[frames]).mean() > 0.93
        assert np.median(np.abs(np.log2(ours[both] / theirs[frames][both]))) < 0.01
    assert pyin(np.zeros(HOP - 1, np.float32), RATE, HOP).shape == (0,)
    assert not pyin(np.zeros(3 * HOP, np.float32), RATE, HOP).any()
