"""Is the microphone hearing the loudspeaker? What was played is known, so its echo can be told from a person.

A frame is taken for echo when one delayed and scaled copy of what was played explains most of it: the square of the
normalised cross-correlation, the coherence of the two, at the best delay. A person who speaks over an echo 10 dB
fainter leaves it below a tenth. There is nothing to adapt, so the first word's echo is known already.

Source: cross-correlation double-talk detection, Benesty, Morgan and Cho, IEEE Trans. Speech and Audio Processing 8(2)
(2000), section II.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from ..model.streaming import State


@dataclass
class EchoGuard(State):
    """The last sounds of both sides, at the microphone's rate.

    heard: the last two frames of the microphone, (2 F,); played: those of the loudspeaker and all that may still come
    back, (2 F + reach,).
    """

    heard: Tensor
    played: Tensor

    @classmethod
    def begin(cls, frame: int, reach: int) -> Self:
        """For frames of so many samples and echoes up to ``reach`` samples late."""
        return cls(heard=torch.zeros(2 * frame), played=torch.zeros(2 * frame + reach))

    def hear(self, pcm: Tensor) -> float:
        """How much of the last two frames, this one (F,) included, is an echo: 0 to 1."""
        self.heard = torch.cat([self.heard[len(pcm) :], pcm])
        if not self.played.any() or not self.heard.any():
            return 0.0
        width, size = len(self.heard), 1 << (len(self.played) + len(self.heard)).bit_length()
        spectrum = torch.fft.rfft(self.played, size) * torch.fft.rfft(self.heard, size).conj()
        products = torch.fft.irfft(spectrum, size)[: len(self.played) - width + 1]  # by where the copy begins
        energy = torch.cat([self.played.new_zeros(1), self.played.double().square().cumsum(0).float()])
        energy = energy[width:] - energy[:-width]  # of each copy
        loud = energy > 1e-6 * energy.max()
        coherence = products[loud].square() / (energy[loud] * self.heard.square().sum())
        return float(coherence.max().clamp(0, 1))

    def play(self, pcm: Tensor) -> None:
        """The loudspeaker plays (F,) next."""
        self.played = torch.cat([self.played[len(pcm) :], pcm])
