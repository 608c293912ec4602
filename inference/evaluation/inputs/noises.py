"""Sounds that are no speech, and speech from across a room, for scenes: (n,) float32 at 16 kHz, drawn at random."""

from __future__ import annotations

import numpy as np

from ....data_prep.speech.engine import SAMPLE_RATE


def far(wave: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """From across a room: a reverberant tail, and little above 3 kHz."""
    length = round(0.5 * SAMPLE_RATE)
    room = rng.standard_normal(length) * np.exp(-6.9 * np.arange(length) / length)
    room = np.convolve(room, np.hanning(7), "same")
    size = 1 << (len(wave) + length).bit_length()
    return np.fft.irfft(np.fft.rfft(wave, size) * np.fft.rfft(room, size), size)[: len(wave) + length].astype(
        np.float32
    )


def _burst(rng: np.random.Generator, seconds: float, attack: float, low: float, high: float) -> np.ndarray:
    """Noise between two frequencies (Hz) that comes in ``attack`` s and dies away."""
    count = round(seconds * SAMPLE_RATE)
    spectrum = np.fft.rfft(rng.standard_normal(count))
    hz = np.fft.rfftfreq(count, 1 / SAMPLE_RATE)
    wave = np.fft.irfft(spectrum * ((hz > low) & (hz < high)), count)
    t = np.arange(count) / SAMPLE_RATE
    return (wave * np.minimum(1, t / attack) * np.exp(-4 * t / seconds)).astype(np.float32)


def cough(rng: np.random.Generator) -> np.ndarray:
    """Two bursts, the second softer."""
    first, second = (_burst(rng, rng.uniform(0.15, 0.3), 0.01, 150, rng.uniform(2500, 5000)) for _ in range(2))
    gap = np.zeros(round(rng.uniform(0.03, 0.1) * SAMPLE_RATE), np.float32)
    return np.concatenate([first, gap, 0.6 * second])


def bang(rng: np.random.Generator) -> np.ndarray:
    return _burst(rng, rng.uniform(0.1, 0.5), 0.002, 40, rng.uniform(800, 6000))


def hiss(rng: np.random.Generator) -> np.ndarray:
    return _burst(rng, rng.uniform(0.5, 1.5), 0.2, 500, 7500)


def ring(rng: np.random.Generator) -> np.ndarray:
    """A ring of two notes."""
    t = np.arange(round(rng.uniform(0.3, 1.0) * SAMPLE_RATE)) / SAMPLE_RATE
    low, high = rng.uniform(400, 700), rng.uniform(900, 1400)
    return (np.sin(2 * np.pi * low * t) + np.sin(2 * np.pi * high * t)).astype(np.float32)


NOISES = ((cough, "[cough]"), (bang, "[bang]"), (hiss, "[hiss]"), (ring, "[ring]"))
