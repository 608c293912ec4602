"""What lies between a speaker and a model: rooms, microphones, telephone lines, coarse quantisers, overdriven inputs.

All functions take and return float32 (n,) of the same length, in step with the input to the sample.
"""

import numpy as np

from ...data_prep.speech.another_voice import fast_length, fit


def room_response(rng: np.random.Generator, rt60_s: float, direct_db: float, sample_rate: int) -> np.ndarray:
    """A synthetic room (k,): the direct path (1 at sample 0), early reflections, an exponentially decaying tail.

    rt60_s: time in which the tail falls by 60 dB.  direct_db: direct over reverberant energy.
    """
    samples = max(2, int(rt60_s * sample_rate))
    time = np.arange(samples, dtype=np.float32) / np.float32(sample_rate)
    tail = rng.standard_normal(samples, dtype=np.float32)
    tail[1:] += np.float32(0.7) * tail[:-1]  # walls swallow high frequencies first
    tail *= np.exp(np.float32(-6.9078 / rt60_s) * time)  # ln(10^3): amplitude falls by 60 dB
    onset = max(1, min(samples - 1, int(rng.uniform(0.002, 0.012) * sample_rate)))
    tail[:onset] = 0.0
    reflections = rng.integers(onset, max(onset + 1, min(samples, int(0.05 * sample_rate))), 6)
    tail[reflections] += (rng.choice([-1.0, 1.0], 6) * rng.uniform(1.0, 5.0, 6)).astype(np.float32)
    energy = float(np.dot(tail, tail))
    if energy > 0:
        tail *= np.float32(10 ** (-direct_db / 20) / np.sqrt(energy))
    tail[0] = 1.0
    return tail


def equaliser(
    rng: np.random.Generator, sample_rate: int, tilt_db: tuple[float, float], bump_db: tuple[float, float]
) -> tuple[np.ndarray, np.ndarray]:
    """A random microphone: (frequencies in Hz, gains), a tilt in dB an octave about 1 kHz and one broad bump or dip.

    With even chance its band also ends early: below 60 to 300 Hz, above 3.4 to 7.5 kHz.
    """
    hertz = np.linspace(0.0, sample_rate / 2, 129)
    octaves = np.log2(np.maximum(hertz, 60.0) / 1000.0)
    gain_db = rng.uniform(*tilt_db) * octaves
    gain_db = gain_db + rng.uniform(*bump_db) * np.exp(-0.5 * ((octaves - rng.uniform(-3, 3)) / 0.7) ** 2)
    if rng.random() < 0.5:
        gain_db -= 12 * np.log2(1 + (rng.uniform(60, 300) / np.maximum(hertz, 20.0)) ** 2)
    if rng.random() < 0.5:
        gain_db -= 12 * np.log2(1 + (hertz / rng.uniform(3400, 7500)) ** 6)
    return hertz, 10 ** (np.clip(gain_db, -60, 20) / 20)


def colour(
    wav: np.ndarray,
    sample_rate: int,
    response: np.ndarray | None,
    gains: tuple[np.ndarray, np.ndarray] | None,
) -> np.ndarray:
    """Convolve with an impulse response (k,) and weigh the spectrum by `gains`, both in one pass; n stays."""
    tail = len(response) if response is not None else 512
    length = fast_length(len(wav) + tail)
    spectrum = np.fft.rfft(wav, length)
    if response is not None:
        spectrum *= np.fft.rfft(response, length)
    if gains is not None:
        spectrum *= np.interp(np.fft.rfftfreq(length, 1 / sample_rate), *gains).astype(np.float32)
    return fit(np.fft.irfft(spectrum, length), len(wav))


def mu_law(wav: np.ndarray, bits: int = 8) -> np.ndarray:
    """Through a µ-law quantiser of 2^bits steps and back (ITU-T G.711's curve, µ = 255)."""
    peak = np.minimum(np.abs(wav), np.float32(1.0))
    code = np.rint(np.log1p(np.float32(255.0) * peak) * np.float32((2 ** (bits - 1) - 1) / np.log(256.0)))
    return np.copysign(np.expm1(code * np.float32(np.log(256.0) / (2 ** (bits - 1) - 1))) / np.float32(255.0), wav)


def telephone(wav: np.ndarray, sample_rate: int) -> np.ndarray:
    """A narrow-band line: 300 to 3400 Hz, sampled at 8 kHz, 8-bit µ-law, and back at the old rate."""
    step = round(sample_rate / 8000) * 2
    length = -(-fast_length(len(wav) + 512) // step) * step
    hertz = np.fft.rfftfreq(length, 1 / sample_rate)
    narrow = round(length * 8000 / sample_rate)
    spectrum = np.fft.rfft(wav, length)
    edges = np.interp(hertz, (100, 300, 3400, 3900), (0.0, 1.0, 1.0, 0.0)).astype(np.float32)
    spectrum *= edges * np.float32(narrow / length)
    line = mu_law(np.fft.irfft(spectrum[: narrow // 2 + 1], narrow).astype(np.float32, copy=False))
    out = np.fft.irfft(np.fft.rfft(line) * np.float32(length / narrow), length)
    return fit(out, len(wav))


def requantise(wav: np.ndarray, bits: int) -> np.ndarray:
    """Rounded to 2^bits linear steps over [-1, 1]."""
    steps = np.float32(2 ** (bits - 1))
    return np.rint(wav * steps) / steps


def overdrive(wav: np.ndarray, gain: float) -> np.ndarray:
    """Clipped where `gain` lifts it over its own peak, then as loud at the peak as before."""
    peak = float(np.abs(wav).max(initial=0.0))
    limit = np.float32(peak / gain)
    return np.clip(wav, -limit, limit) * np.float32(gain)


def set_level(wav: np.ndarray, peak_dbfs: float) -> np.ndarray:
    """Scaled so that the largest sample is `peak_dbfs` under full scale; silence stays silence."""
    peak = float(np.abs(wav).max(initial=0.0))
    return wav * np.float32(10 ** (peak_dbfs / 20) / peak) if peak > 1e-8 else wav
