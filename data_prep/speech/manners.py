"""Manners of speaking: how a synthesiser is told to speak in one, and how plain speech is turned into one.

    calm       plain speech, even or slow
    agitated   fast, with a large range of pitch
    whisper    without voice
    shout      high, with a raised first formant, a flat spectrum and little difference between loud and soft

What is turned is speech of anybody, (n,) float32 at 16 kHz in and out. Loudness is no part of a manner here: whoever
uses this draws it by itself.

Sources: whispers are excited by noise, their formants are higher and their low frequencies weaker (Ito, Takeda and
Itakura 2005, "Analysis and recognition of whispered speech", Speech Communication 45). Shouts: pitch and first formant
rise, the spectrum flattens, sounds last longer, loud and soft draw together (Rostolland 1982, "Acoustic features of
shouted voice", Acustica 50; Raitio et al. 2013, "Analysis and synthesis of shouted speech", Interspeech).
Agitation (high arousal): rate, mean and range of pitch rise (Scherer 2003, "Vocal communication of emotion", Speech
Communication 40).
"""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import numpy as np

from .another_voice import resample, revoice, shift_formants, time_scale, voicing
from .engine import SAMPLE_RATE, Prosody, Voice

MANNERS = ("calm", "agitated", "whisper", "shout")
_WINDOW, _HOP = 512, 256  # 32 ms
_TAPER = np.sqrt(0.5 - 0.5 * np.cos(2 * np.pi * np.arange(_WINDOW) / _WINDOW)).astype(np.float32)
_ORDER = 20  # of linear prediction


class Range(NamedTuple):
    """Drawn evenly."""

    low: float
    high: float

    def draw(self, rng: np.random.Generator) -> float:
        return float(rng.uniform(self.low, self.high))


# pitch (of the voice's own range: 0 its lowest, 1 its highest; a shout goes beyond), spread and rate as the engines
# take them: espeak-ng 0 to 99, no spread, and words a minute; flite and festival Hz (times the drawn mean), Hz, and how
# much sounds are stretched; all others per cent of the voice's own.
_ESPEAK = {
    "calm": (Range(25, 65), Range(105, 165)),
    "agitated": (Range(45, 85), Range(235, 310)),
    "whisper": (Range(25, 75), Range(110, 190)),
    "shout": (Range(75, 99), Range(120, 200)),
}
_STRETCHED = {
    "calm": (Range(0.85, 1.1), Range(6, 16), Range(1.0, 1.4)),
    "agitated": (Range(1.1, 1.4), Range(32, 55), Range(0.55, 0.75)),
    "whisper": (Range(0.9, 1.1), Range(8, 25), Range(0.9, 1.3)),
    "shout": (Range(1.4, 1.9), Range(25, 50), Range(0.9, 1.3)),
}
_PER_CENT = {
    "calm": (Range(85, 105), Range(75, 100)),
    "agitated": (Range(105, 125), Range(125, 160)),
    "whisper": (Range(90, 110), Range(80, 115)),
    "shout": (Range(115, 140), Range(80, 115)),
}
_HERTZ = Range(85, 190)  # of a voice that takes its pitch in Hz
WHISPERERS = {"train": "whisper", "dev": "whisperf", "test": "whisperf"}  # espeak-ng's variants, by split


def told(
    voice: Voice, manner: str, rng: np.random.Generator, split: str = "train"
) -> tuple[Voice, Prosody | None, bool]:
    """The voice that is to speak, how it is told to, and whether what it says is whispered by itself.

    Voices that whisper by themselves are espeak-ng's variants (one for training, the other for held-out sets) and
    Kokoro's af_nicole, half the time that such an engine is to whisper.
    """
    whispers = manner == "whisper" and rng.random() < 0.5
    if voice.engine == "espeak":
        pitch, rate = (range_.draw(rng) for range_ in _ESPEAK[manner])
        if whispers:
            voice = replace(voice, name=f"{voice.name.partition('+')[0]}+{WHISPERERS[split]}")
        return voice, Prosody(pitch=round(pitch, 1), spread=0.0, rate=round(rate, 1)), whispers
    if voice.engine in ("flite", "festival"):
        pitch, spread, stretch = (range_.draw(rng) for range_ in _STRETCHED[manner])
        pitch = round(min(pitch * _HERTZ.draw(rng), 330.0), 1)
        return voice, Prosody(pitch=pitch, spread=round(spread, 1), rate=round(stretch, 3)), False
    if voice.engine == "command":
        return voice, None, False
    pitch, rate = (range_.draw(rng) for range_ in _PER_CENT[manner])
    if voice.engine == "kokoro" and whispers and split == "train":
        return replace(voice, name="af_nicole"), Prosody(pitch=1.0, spread=0.0, rate=round(rate, 1)), True
    return voice, Prosody(pitch=round(pitch, 1), spread=0.0, rate=round(rate, 1)), False


def spoken_in(wave: np.ndarray, manner: str, rng: np.random.Generator, prosody: bool) -> np.ndarray:
    """Plain speech (n,) in a manner.

    prosody: rate and pitch are still plain; otherwise a synthesiser has been told them, and only what it could not do
        is done.
    """
    if manner == "whisper":
        wave = time_scale(wave, rng.uniform(1.0, 1.25)) if prosody else wave
        return whispered(wave, rng)
    if manner == "shout":
        return shouted(wave, rng, pitch=rng.uniform(1.35, 1.9) if prosody else 1.0)
    if manner == "agitated":
        return agitated(wave, rng) if prosody else wave
    if not prosody or rng.random() < 0.5:
        return wave
    # As much signal processing as in the other manners, so that its traces tell nothing.
    if rng.random() < 0.5:
        wave = revoice(wave, rng, SAMPLE_RATE, _median_pitch(wave) * rng.uniform(0.85, 1.1), rng.uniform(0.4, 1.0), 0.2)
    else:
        wave = _raised(wave, rng.uniform(0.88, 1.08))
    return time_scale(wave, rng.uniform(1.0, 1.25))


def whispered(wave: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The envelope of each 32 ms, by linear prediction, excited by noise; formants a little higher, what was voiced
    weaker, low frequencies too."""
    n = len(wave)
    if n < 2 * _WINDOW:
        return wave.astype(np.float32)
    frames = -(-n // _HOP) + 1
    padded = np.zeros((frames + 1) * _HOP, np.float32)
    padded[_HOP : _HOP + n] = wave
    windows = np.lib.stride_tricks.sliding_window_view(padded, _WINDOW)[::_HOP] * _TAPER  # (F, 512)
    envelope = prediction_envelope(windows)  # (F, 257)
    bins = np.arange(_WINDOW // 2 + 1)
    at = np.minimum(bins / rng.uniform(1.03, 1.18), bins[-1])
    left, part = at.astype(int), at % 1
    right = np.minimum(left + 1, bins[-1])
    envelope = envelope[:, left] ** (1 - part) * envelope[:, right] ** part
    hertz = bins * (SAMPLE_RATE / _WINDOW)
    corner = rng.uniform(300, 1200)
    envelope = envelope * (hertz / np.hypot(hertz, corner))
    voiced, _ = voicing(windows, SAMPLE_RATE)
    strength = np.where(voiced, 10 ** (-rng.uniform(4, 12) / 20), 1.0)
    strength = np.convolve(np.pad(strength, 1, mode="edge"), np.ones(3) / 3, "valid")
    noise = np.lib.stride_tricks.sliding_window_view(rng.standard_normal(len(padded)), _WINDOW)[::_HOP] * _TAPER
    pieces = np.fft.irfft(np.fft.rfft(noise, axis=1) * envelope * strength[:, None], _WINDOW, axis=1) * _TAPER
    out = (pieces[1:, :_HOP] + pieces[:-1, _HOP:]).reshape(-1)[:n]
    return _normal(out, wave)


def prediction_envelope(windows: np.ndarray) -> np.ndarray:
    """Windowed frames (F, 512) -> the magnitude of their all-pole spectra (F, 257), by the autocorrelation method
    (Makhoul 1975, "Linear prediction: a tutorial review", Proceedings of the IEEE 63)."""
    power = np.square(np.abs(np.fft.rfft(windows, 2 * _WINDOW, axis=1)))
    r = np.fft.irfft(power, axis=1)[:, : _ORDER + 1]
    r[:, 0] = r[:, 0] * (1 + 1e-4) + 1e-9
    lag = np.abs(np.arange(_ORDER)[:, None] - np.arange(_ORDER)[None])
    predictor = np.linalg.solve(r[:, lag], r[:, 1:, None])[..., 0]  # (F, 20)
    error = np.maximum(r[:, 0] - (predictor * r[:, 1:]).sum(1), 1e-12)
    poles = np.concatenate([np.ones((len(r), 1)), -predictor], axis=1)
    envelope: np.ndarray = np.sqrt(error / _WINDOW)[:, None] / np.abs(np.fft.rfft(poles, _WINDOW, axis=1)).clip(1e-6)
    return envelope


def shouted(wave: np.ndarray, rng: np.random.Generator, pitch: float) -> np.ndarray:
    """Pitch (times so much) and formants higher, sounds longer, the spectrum flatter, loud and soft nearer."""
    if pitch != 1.0:
        wave = time_scale(_raised(wave, min(pitch, 400.0 / _median_pitch(wave))), rng.uniform(1.0, 1.2))
    wave = shift_formants(wave, rng.uniform(1.04, 1.15))
    tilt = rng.uniform(3.0, 7.0)  # dB an octave above 300 Hz, up to 4 kHz
    spectrum = np.fft.rfft(wave)
    hertz = np.fft.rfftfreq(len(wave), 1 / SAMPLE_RATE).clip(300, 4000)
    wave = np.fft.irfft(spectrum * 10 ** (tilt * np.log2(hertz / 300) / 20), len(wave))
    power = np.convolve(np.square(wave), np.hanning(640) / np.hanning(640).sum(), "same")
    loud = np.sqrt(np.maximum(power, 1e-4 * power.max() + 1e-12))
    wave = wave * (loud / loud.max()) ** (rng.uniform(0.4, 0.75) - 1)  # 0.5: half of the range in dB
    drive = rng.uniform(0.5, 3.0)
    return _normal(np.tanh(drive * wave / np.abs(wave).max(initial=1e-9)), wave)


def agitated(wave: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Faster; the pitch higher and, by a vocoder in half of the cases, its range larger."""
    if rng.random() < 0.5:
        pitch = min(_median_pitch(wave) * rng.uniform(1.1, 1.35), 330.0)
        wave = revoice(wave, rng, SAMPLE_RATE, pitch, rng.uniform(1.4, 2.0), rng.uniform(0.1, 0.3))
    else:
        wave = _raised(wave, rng.uniform(1.08, 1.3))
    return time_scale(wave, rng.uniform(0.58, 0.78))


def _raised(wave: np.ndarray, ratio: float) -> np.ndarray:
    """The pitch times ``ratio``; tempo and formants stay."""
    if ratio == 1.0:
        return wave
    return shift_formants(time_scale(resample(wave, ratio), ratio), 1 / ratio)


def _median_pitch(wave: np.ndarray) -> float:
    """Hz, of what is voiced in it; 150 where nothing is."""
    if len(wave) < 2 * _WINDOW:
        return 150.0
    windows = np.lib.stride_tricks.sliding_window_view(wave, _WINDOW)[::_HOP] * _TAPER
    voiced, pitch = voicing(windows, SAMPLE_RATE)
    power = np.square(windows).sum(1)
    voiced &= power > 0.05 * power.max()  # hum repeats itself as well
    return float(np.exp(np.median(pitch[voiced]))) if voiced.any() else 150.0


def _normal(wave: np.ndarray, like: np.ndarray) -> np.ndarray:
    """With the root mean square of another, or less, so that nothing is cut off."""
    gain = np.sqrt(np.square(like).mean() / max(float(np.square(wave).mean()), 1e-12))
    return (wave * min(gain, 0.98 / max(1e-9, float(np.abs(wave).max())))).astype(np.float32)
