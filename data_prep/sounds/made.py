"""Sounds that nobody speaks, made: breaths, clicks, notes. (n,) float32 at any rate, of any level; drawn at random."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

Made = Callable[[int, int, np.random.Generator], np.ndarray]  # (samples, rate in Hz, rng) -> (samples,)


def breath(samples: int, rate: int, rng: np.random.Generator) -> np.ndarray:
    """Air in and out: noise in a wandering band, which swells and dies away once or several times."""
    out = np.zeros(samples)
    at = int(rng.uniform(0, 0.2) * rate)
    while at < samples:
        count = int(rng.uniform(0.3, 1.4) * rate)
        low = rng.uniform(200, 1200)
        air = _band(rng.standard_normal(count), rate, low, low * rng.uniform(2, 6))
        swell = np.sin(np.pi * np.linspace(0, 1, count) ** rng.uniform(0.5, 2)) ** 2
        end = min(samples, at + count)
        out[at:end] += rng.uniform(0.3, 1) * (air * swell)[: end - at]
        at = end + int(rng.uniform(0.2, 1.5) * rate)
    return out.astype(np.float32)


def clicks(samples: int, rate: int, rng: np.random.Generator) -> np.ndarray:
    """Keys, taps, lips: short bursts that ring at one or two frequencies, alone or in quick succession."""
    out = np.zeros(samples)
    tempo, hz = rng.uniform(1, 9), rng.uniform(300, 5000)
    at = int(rng.uniform(0, 0.3) * rate)
    while at < samples:
        count = int(rng.uniform(0.004, 0.05) * rate)
        time = np.arange(count) / rate
        ring = np.sin(2 * np.pi * hz * rng.uniform(0.8, 1.3) * time) + 0.5 * rng.standard_normal(count)
        end = min(samples, at + count)
        out[at:end] += rng.uniform(0.3, 1) * (ring * np.exp(-5 * np.arange(count) / count))[: end - at]
        at += max(count, int(rng.exponential(1 / tempo) * rate))
    return out.astype(np.float32)


def notes(samples: int, rate: int, rng: np.random.Generator) -> np.ndarray:
    """Music and machines: notes of a scale, chords among them, with overtones that pluck, hold or beep."""
    out = np.zeros(samples)
    root, beat, decay = rng.uniform(80, 500), rng.uniform(0.12, 0.7), rng.choice([0.0, 1.5, 6.0])
    overtones = [rng.uniform(0, 1) / k for k in range(1, int(rng.integers(2, 8)))]
    at = 0
    while at < samples:
        count = min(samples - at, int(beat * rng.choice([0.5, 1, 2]) * rate))
        time = np.arange(count) / rate
        for step in rng.choice([0, 2, 4, 5, 7, 9, 11, 12], int(rng.integers(1, 4))):
            hz = root * 2 ** (step / 12)
            tone = sum(a * np.sin(2 * np.pi * hz * k * time) for k, a in enumerate(overtones, start=1))
            out[at : at + count] += tone * np.exp(-decay * time) * np.minimum(1, (count - np.arange(count)) / 200)
        at += count + int(rng.choice([0, 0, beat]) * rate)
    return out.astype(np.float32)


MADE: dict[str, Made] = {"breath": breath, "clicks": clicks, "notes": notes}


def _band(noise: np.ndarray, rate: int, low: float, high: float) -> np.ndarray:
    """White noise (n,) between two frequencies (Hz), with soft edges."""
    hz = np.fft.rfftfreq(len(noise), 1 / rate)
    gain = 1 / (1 + (low / np.maximum(hz, 1)) ** 4) / (1 + (hz / high) ** 4)
    return np.fft.irfft(np.fft.rfft(noise) * gain, len(noise))
