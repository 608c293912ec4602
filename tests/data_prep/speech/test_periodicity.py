"""How much of each band is periodic: a tone wholly, noise not, a mixture as much as it is, at any pitch and glide."""

from __future__ import annotations

import numpy as np
import pytest

from duologue.data_prep.speech.pitch import periodicity

RATE, HOP, BANDS = 16_000, 108, 8


def harmonics(hertz: np.ndarray, highest: float) -> np.ndarray:
    phase = 2 * np.pi * np.cumsum(hertz) / RATE
    count = int(highest / hertz.max())
    return sum(np.cos(k * phase) for k in range(1, count + 1)) * np.sqrt(2 / count)


@pytest.mark.parametrize("hertz", [70.0, 125.0, 250.0, 390.0])
def test_bands_of_harmonics_and_of_noise(hertz: float) -> None:
    """Harmonics up to 4 kHz, noise above; a pitch said 1 % too high is still found."""
    noise = np.fft.rfft(np.random.default_rng(0).standard_normal(RATE))
    noise[np.fft.rfftfreq(RATE, 1 / RATE) < 4000] = 0
    wave = harmonics(np.full(RATE, hertz), 4000) + np.fft.irfft(noise)
    found = periodicity(wave, RATE, HOP, np.full(RATE // HOP, 1.01 * hertz), BANDS)[3:-3].mean(0)
    assert found[:4].min() > 0.85 and found[5:].max() < 0.3, found


def test_a_mixture_is_as_periodic_as_its_powers_say() -> None:
    rng = np.random.default_rng(0)
    tone, noise = harmonics(np.full(2 * RATE, 160.0), 8000), rng.standard_normal(2 * RATE)
    for fraction in (0.25, 0.5, 0.75):
        wave = np.sqrt(fraction) * tone + np.sqrt(1 - fraction) * noise
        found = periodicity(wave, RATE, HOP, np.full(2 * RATE // HOP, 160.0), BANDS)[3:-3].mean()
        assert found == pytest.approx(fraction, abs=0.08)


def test_a_gliding_voice_is_periodic_and_no_voice_is_not() -> None:
    glide = 150 * 2 ** np.linspace(0, 1, RATE)  # an octave in a second
    hertz = glide[HOP // 2 :: HOP][: RATE // HOP].copy()
    hertz[70:] = 0
    found = periodicity(harmonics(glide, 6000), RATE, HOP, hertz, BANDS)
    assert found[3:67, :3].mean() > 0.8 and not found[70:].any()
    assert found.shape == (RATE // HOP, BANDS) and periodicity(np.zeros(50), RATE, HOP, np.zeros(0), BANDS).size == 0
