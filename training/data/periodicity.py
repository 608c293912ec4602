"""How much of a recording's power repeats with its pitch, band by band: a source-filter generator learns it.

Samples (n,), Hz (T,) of each hop -> fractions (T, bands). In each band, the autocorrelation at the pitch's period over
that of a sound that repeats exactly, in a window of three periods: long enough to tell noise from harmonics, short
enough for a pitch that glides.

Source: the harmonics-to-noise ratio of Boersma 1993 (IFA Proceedings 17), in bands as in Morise et al. 2016, "WORLD"
(IEICE Transactions E99-D(7)).
"""

from __future__ import annotations

import numpy as np

WINDOWS = (0.012, 0.016, 0.024, 0.032, 0.048)  # seconds, of which one is taken that holds three periods
LAGS = np.linspace(0.98, 1.02, 9)  # of the period: the pitch is not known better


def periodicity(samples: np.ndarray, sample_rate: int, hop: int, hertz: np.ndarray, bands: int) -> np.ndarray:
    """Samples (n,) float, Hz (T,) in the middle of each hop (T = n // hop), 0 for no voice -> (T, bands) in [0, 1]."""
    found = np.zeros((len(hertz), bands), np.float32)
    voiced = np.flatnonzero(hertz > 0)
    choice = np.searchsorted(WINDOWS, 3 / np.maximum(hertz[voiced], 1.0)).clip(max=len(WINDOWS) - 1)
    for which in np.unique(choice):
        at = voiced[choice == which]
        found[at] = _fractions(samples, sample_rate, at * hop + hop // 2, hertz[at], bands, WINDOWS[which])
    return found


def _fractions(
    samples: np.ndarray, rate: int, middles: np.ndarray, hertz: np.ndarray, bands: int, seconds: float
) -> np.ndarray:
    """(F,) samples and Hz -> (F, bands), all in windows of so many seconds."""
    window = round(seconds * rate)
    size = 1 << int(np.ceil(np.log2(1.5 * window)))
    taper = np.hanning(window + 2)[1:-1].astype(np.float32)
    padded = np.pad(np.asarray(samples, np.float32), window)
    cut = np.lib.stride_tricks.sliding_window_view(padded, window)[middles + window - window // 2]  # (F, window)
    power = np.abs(np.fft.rfft((cut - cut.mean(1, keepdims=True)) * taper, size, axis=1)) ** 2  # (F, bins)
    own = np.abs(np.fft.rfft(taper, size)) ** 2
    edges = np.linspace(0, size // 2 + 1, bands + 1).round().astype(int)
    turns = np.arange(size // 2 + 1) / size * rate  # Hz of each bin
    whole = np.add.reduceat(power, edges[:-1], axis=1)
    best = np.full((len(middles), bands), -np.inf, np.float32)
    total = np.full(len(middles), -np.inf)
    for factor in LAGS:
        lag = factor / hertz[:, None]  # (F, 1) s
        waves = np.cos(2 * np.pi * turns * lag)  # (F, bins)
        exact = (own * waves)[:, 1:-1].sum(1) * 2 + own[0] + own[-1] * waves[:, -1]
        exact /= 2 * own[1:-1].sum() + own[0] + own[-1]
        here = np.add.reduceat(power * waves, edges[:-1], axis=1) / np.maximum(whole * exact[:, None], 1e-12)
        better = here.sum(1) > total  # the lag at which most bands repeat
        best[better], total[better] = here[better], here.sum(1)[better]
    return best.clip(0, 1)
