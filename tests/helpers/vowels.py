"""A sung vowel: pulses and breath through the formants of an "ah", with vibrato."""

from __future__ import annotations

import numpy as np

RATE = 16_000
FORMANTS = ((730, 90), (1090, 110), (2440, 170), (3400, 250))  # Hz: middle, width


def sung_vowel(seconds: float, hertz: float = 110.0, breath: float = 0.1, seed: int = 0) -> np.ndarray:
    """(n,) float32, its peak at 0.3. ``breath``: the noise's standard deviation over the tilted pulses' own."""
    rng, t = np.random.default_rng(seed), np.arange(int(seconds * RATE)) / RATE
    pitch = hertz * (1 + 0.03 * np.sin(2 * np.pi * 5.5 * t))
    back = np.exp(-2j * np.pi * np.fft.rfftfreq(len(t)))  # z^-1
    pulses = _through(1 / (1 - 0.95 * back), np.diff(np.floor(np.cumsum(pitch) / RATE), prepend=0.0))
    sound = pulses + breath * pulses.std() * rng.standard_normal(len(t))
    for middle, width in FORMANTS:
        pole = np.exp(np.pi * (-width + 2j * middle) / RATE)
        sound = _through(1 / ((1 - pole * back) * (1 - pole.conj() * back)), sound)
    return np.asarray(0.3 * sound / np.abs(sound).max(), np.float32)


def _through(response: np.ndarray, sound: np.ndarray) -> np.ndarray:
    return np.fft.irfft(np.fft.rfft(sound) * response, len(sound))
