"""Discrete speech units: k-means over frame-wise features of the reply's voice. Waveform at 16 kHz in, 50 units/s out.

The unit decoder learns to write them and the vocoder to speak them. Fit the clusters once and keep them: the units of
two fits do not understand each other, which is why a saved quantiser carries the fingerprint of its features.

Source: k-means units of HuBERT (Hsu et al., arXiv 2106.07447) as used by LLaMA-Omni (arXiv 2409.06666).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from ...checkpoints.units import HOP, SAMPLE_RATE, read_quantiser, save_quantiser
from ...model.errors import DuologueError
from .features import Features, MfccFeatures

_NOWHERE = 1000.0  # a centroid's coordinates in the standardised space, to which no frame is near


class Units(Protocol):
    """What turns a waveform into speech units, one a frame of ``hop`` samples."""

    @property
    def hop(self) -> int: ...

    @property
    def sample_rate(self) -> int: ...

    def __len__(self) -> int:
        """How many units there are."""

    def encode(self, waveform: Tensor) -> Tensor:
        """(n,) float32 in [-1, 1] -> units (n // hop,) int64."""

    def spoken(self, waveform: Tensor) -> tuple[Tensor, Tensor]:
        """As a unit decoder is to write them: units (U,) and how many frames each lasts (U,)."""


class KMeansUnits:
    """Nearest of K centroids to each standardised frame.

    Args:
        features: what makes the frames, (n,) -> (T, D).
        mean, scale: (D,), subtracted from and divided out of each frame.
        centroids: (K, D), in the standardised space.
    """

    def __init__(self, features: Features, mean: Tensor, scale: Tensor, centroids: Tensor) -> None:
        self.features, self.mean, self.scale, self.centroids = features, mean, scale, centroids
        self.hop, self.sample_rate = HOP, SAMPLE_RATE

    def __len__(self) -> int:
        return len(self.centroids)

    @classmethod
    def fit(
        cls, features: Features, waveforms: Iterable[Tensor], clusters: int, seed: int = 0, passes: int = 10
    ) -> KMeansUnits:
        """Cluster the frames of all waveforms, (n,) each. Needs scikit-learn.

        Raises DuologueError when there are fewer frames than clusters.
        """
        from sklearn.cluster import MiniBatchKMeans

        frames = torch.cat([features(waveform) for waveform in waveforms])  # (all frames, D)
        if len(frames) < clusters:
            raise DuologueError(f"{len(frames)} frames cannot make {clusters} clusters: give more recordings")
        mean, scale = frames.mean(0), frames.std(0).clamp(min=1e-5)
        means = MiniBatchKMeans(
            clusters, random_state=seed, batch_size=4096, n_init=3, max_iter=passes, reassignment_ratio=0.001
        )
        means.fit(((frames - mean) / scale).numpy().astype(np.float32))
        return cls(features, mean, scale, torch.from_numpy(means.cluster_centers_).float())

    @classmethod
    def of_units(cls, features: Features, spoken: Sequence[tuple[Tensor, Tensor]], clusters: int) -> KMeansUnits:
        """The clusters of known units, each the mean of its frames.

        Args:
            spoken: waveforms (n,), and the units (n // 320,) of their frames; a unit that none of them has is never
                the nearest.
        """
        frames = torch.cat([features(waveform) for waveform, _ in spoken])  # (all frames, D)
        units = torch.cat([each for _, each in spoken])  # (all frames,)
        mean, scale = frames.mean(0), frames.std(0).clamp(min=1e-5)
        counts = torch.bincount(units, minlength=clusters)[:, None]  # (K, 1)
        sums = torch.zeros(clusters, frames.shape[1]).index_add_(0, units, (frames - mean) / scale)
        return cls(features, mean, scale, torch.where(counts > 0, sums / counts.clamp(min=1), _NOWHERE))

    def assign(self, frames: Tensor) -> Tensor:
        """Features (T, D) -> units (T,) int64."""
        x = (frames - self.mean) / self.scale
        # |x - c|^2 without |x|^2, which is the same for every centroid
        distances = self.centroids.square().sum(1) - 2 * x @ self.centroids.T  # (T, K)
        return distances.argmin(1)  # (T,)

    def encode(self, waveform: Tensor) -> Tensor:
        """(n,) float32 in [-1, 1] at 16 kHz -> units (n // 320,) int64."""
        return self.assign(self.features(waveform))

    def spoken(self, waveform: Tensor) -> tuple[Tensor, Tensor]:
        """Units (U,), repeats merged, and how many frames each lasts (U,)."""
        return deduplicate(self.encode(waveform))

    def save(self, folder: str | Path) -> None:
        save_quantiser(folder, self.features.description, self.mean, self.scale, self.centroids)

    @classmethod
    def load(cls, folder: str | Path, features: Features | None = None) -> KMeansUnits:
        """Read a saved quantiser. MFCC features are made anew; an encoder's or a HuBERT's must be given.

        Raises DuologueError when nothing is there, or `features` are not those that the clusters were fitted on.
        """
        stored, tensors = read_quantiser(folder)
        if features is None and stored["kind"] == "mfcc":
            features = MfccFeatures(stored["coefficients"], stored["n_mels"], stored["n_fft"])
        if features is None:
            whose = "a HuBERT" if stored["kind"] == "hubert" else "an encoder"
            raise DuologueError(f"{folder} was fitted on {whose} (weights {stored['weights']}): name that checkpoint")
        if features.description != stored:
            raise DuologueError(f"{folder} was fitted on features {stored}, not {features.description}")
        return cls(features, *tensors)


def deduplicate(units: Tensor) -> tuple[Tensor, Tensor]:
    """Merge repeats: (T,) -> units (U,) and durations (U,) in frames, which sum to T."""
    merged, durations = torch.unique_consecutive(units, return_counts=True)
    return merged, durations
