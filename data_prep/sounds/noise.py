"""Noise to train in: white, pink, brown, mains hum, babble, and whatever recordings the caller has.

A kind is made once, 30 s of it from a fixed seed, and every call takes a random cut: a tenth of the price of new noise.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import Literal, get_args

import numpy as np

NoiseKind = Literal["white", "pink", "brown", "hum", "babble"]
NOISE_KINDS: tuple[NoiseKind, ...] = get_args(NoiseKind)

_SECONDS = 30
_NOMINAL_POWER = 10 ** (-25 / 10)  # of speech; stands in for it when a clip is silent


def _shaped(rng: np.random.Generator, samples: int, sample_rate: int, tilt: float, low_hz: float) -> np.ndarray:
    """Gaussian noise (samples,) whose amplitude falls as frequency ** tilt above `low_hz`, unit power."""
    spectrum = np.fft.rfft(rng.standard_normal(samples))
    spectrum *= np.maximum(np.fft.rfftfreq(samples, 1 / sample_rate), low_hz) ** tilt
    noise = np.fft.irfft(spectrum, samples)
    return noise / noise.std()


def _hum(rng: np.random.Generator, samples: int, sample_rate: int) -> np.ndarray:
    """Mains hum: harmonics of 50 Hz, then of 60 Hz, falling and slowly breathing, over a little pink noise."""
    time = np.arange(samples) / sample_rate
    out = 0.1 * _shaped(rng, samples, sample_rate, -0.5, 20.0)
    for mains, half in ((50.0, time < time[-1] / 2), (60.0, time >= time[-1] / 2)):
        for harmonic in range(1, 16):
            swell = 1 + 0.5 * np.sin(2 * np.pi * rng.uniform(0.1, 0.6) * time[half] + rng.uniform(0, 6.28))
            tone = np.sin(2 * np.pi * mains * harmonic * time[half] + rng.uniform(0, 6.28))
            out[half] += rng.uniform(0.2, 1.0) / harmonic * swell * tone
    return out


def _babble(rng: np.random.Generator, samples: int, sample_rate: int) -> np.ndarray:
    """Eight voices without words: wandering buzzes and hisses, gated at syllable rate, coloured like speech."""
    time = np.arange(samples) / sample_rate
    out = np.zeros(samples)
    for _ in range(8):
        knots = np.arange(0, _SECONDS + 1, 0.15)
        pitch = np.interp(time, knots, rng.uniform(85, 230) * np.exp(0.15 * rng.standard_normal(len(knots))))
        phase = np.cumsum(pitch) / sample_rate
        buzz = 2 * (phase % 1) - 1
        hiss = _shaped(rng, samples, sample_rate, 0.3, 200.0)
        voiced = np.clip(np.interp(time, knots, rng.uniform(-0.5, 1.5, len(knots))), 0, 1)
        loud = np.clip(np.interp(time, knots, rng.uniform(-0.6, 1.0, len(knots))), 0, 1)
        out += loud * (buzz * voiced + 0.15 * hiss * (1 - voiced))
    spectrum = np.fft.rfft(out)
    hertz = np.fft.rfftfreq(samples, 1 / sample_rate)
    spectrum *= (hertz / (hertz + 150)) / (1 + (hertz / 900) ** 2) ** 0.6
    return np.fft.irfft(spectrum, samples)


@lru_cache(maxsize=16)
def noise_bank(kind: NoiseKind, sample_rate: int) -> np.ndarray:
    """30 s of one kind of noise, float32 (30 * sample_rate,), unit power; the same in every process."""
    rng = np.random.default_rng(NOISE_KINDS.index(kind))
    samples = _SECONDS * sample_rate
    if kind == "hum":
        noise = _hum(rng, samples, sample_rate)
    elif kind == "babble":
        noise = _babble(rng, samples, sample_rate)
    else:
        tilt = {"white": 0.0, "pink": -0.5, "brown": -1.0}[kind]
        noise = _shaped(rng, samples, sample_rate, tilt, 20.0)
    out = (noise / np.sqrt(np.mean(np.square(noise)))).astype(np.float32)
    out.flags.writeable = False  # shared by all callers
    return out


def cut(noise: np.ndarray, samples: int, rng: np.random.Generator) -> np.ndarray:
    """A random stretch (samples,) of a noise; a shorter noise is laid round and round from a random start."""
    start = int(rng.integers(max(1, len(noise))))
    if start + samples <= len(noise):
        return noise[start : start + samples]
    return np.resize(np.concatenate([noise[start:], noise[:start]]), samples)


def draw_noise(
    samples: int, rng: np.random.Generator, sample_rate: int, noises: Sequence[np.ndarray], recorded: float
) -> np.ndarray:
    """(samples,) of a random kind; with probability `recorded`, if there are any, of one of the given `noises`."""
    if noises and rng.random() < recorded:
        noise = np.asarray(noises[int(rng.integers(len(noises)))])
        if noise.dtype == np.int16:  # as shards keep them
            return cut(noise, samples, rng).astype(np.float32) / 32768
        return cut(noise, samples, rng)
    return cut(noise_bank(NOISE_KINDS[int(rng.integers(len(NOISE_KINDS)))], sample_rate), samples, rng)


def mix(wav: np.ndarray, noise: np.ndarray, snr_db: float, speech_power: float) -> np.ndarray:
    """float32 (n,) + noise (n,) so that speech_power / noise power = `snr_db`.

    speech_power: mean square of the speech where it lasts (padding left out); 0: a nominal -25 dBFS stands in.
    """
    noise_power = float(np.dot(noise, noise)) / max(1, len(noise))
    if noise_power <= 1e-12:
        return wav
    power = speech_power if speech_power > 1e-10 else _NOMINAL_POWER
    return wav + np.float32(np.sqrt(power / noise_power) * 10 ** (-snr_db / 20)) * noise
