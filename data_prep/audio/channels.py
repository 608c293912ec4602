"""Several channels -> one: those that carry sound are averaged.

A channel more than 20 dB under the strongest is left out (speech in one of eight would else be 18 dB down), and where
the channels cancel each other, as in stereo of which one side is inverted, the strongest one stands for all. Loudness
is the power of the whole recording, without a constant offset.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

_QUIET = 10 ** (-20 / 10)  # of the strongest channel's power
_CANCELLED = 0.5  # of the power that the average of channels without anything in common has


def carrying(blocks: Iterable[np.ndarray], channels: int) -> np.ndarray:
    """Which channels to average: indices, by the rule of this module's docstring. blocks: (n, channels) float32."""
    products, sums, frames = np.zeros((channels, channels)), np.zeros(channels), 0
    with np.errstate(over="ignore", invalid="ignore"):
        for block in blocks:
            products += block.T @ block
            sums += np.ones(len(block), np.float32) @ block
            frames += len(block)
        covariance = products / max(1, frames) - np.outer(sums, sums) / max(1, frames) ** 2
    if not np.isfinite(covariance).all():
        return np.arange(channels)  # no sound; what is wrong is said where it is read
    power = covariance.diagonal().clip(0.0)  # of silence, rounding may leave less than nothing
    heard = np.flatnonzero(power >= _QUIET * power.max())
    apart = power[heard].mean() / len(heard)
    if covariance[np.ix_(heard, heard)].mean() < _CANCELLED * apart:
        return np.array([power.argmax()])
    return heard


def average(block: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    """(n, channels) float32 -> (n,), the mean of the channels ``chosen``."""
    if len(chosen) == 1:
        return np.ascontiguousarray(block[:, chosen[0]])
    weights = np.zeros(block.shape[1], np.float32)
    weights[chosen] = 1 / len(chosen)
    with np.errstate(invalid="ignore", over="ignore"):  # what is no number stays none
        return block @ weights
