"""Spectral losses of a vocoder: how far a waveform's spectrogram lies from the recording's; and those of a pitch.

Samples (B, n) in, scalars out. Spectra say nothing of phase, so a vocoder trained on them alone is intelligible but a
little rough; an adversary does the rest, or a generator that has phases from elsewhere.

Sources: the log-mel distance of Kong et al. 2020, "HiFi-GAN" (arXiv 2010.05646), section 2.3; spectral convergence and
log-magnitude distance at several resolutions of Yamamoto et al. 2020, "Parallel WaveGAN" (arXiv 1910.11480), section
2.2.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...model.audio_encoder.mel import mel_filters
from ...model.errors import DuologueError
from ...model.speech_decoder.source_filter import MIDDLE_HZ, Controls

FLOOR = 1e-7  # of powers: below the quantisation noise of 16-bit audio
BAND_WINDOW, BANDS = 512, 32  # samples; mel bands whose envelopes are compared
QUIET = 0.01  # a band's envelope counts for at least so much of the loudest band's


@dataclass(frozen=True, kw_only=True)
class SpectralLossConfig:
    """Resolutions and weights."""

    sample_rate: int = 16000  # Hz
    windows: tuple[int, ...] = (1024, 512, 256)  # samples; each moves by a quarter of itself
    n_mels: int = 80  # bands of the log-mel distance, on the first window
    mel_weight: float = 5.0
    magnitude_weight: float = 1.0
    convergence_weight: float = 1.0
    band_weight: float = 0.0  # of the distance of each band's envelope, relative to the band's own size

    def __post_init__(self) -> None:
        if not self.windows or min(self.windows) < 4:
            raise DuologueError(f"windows must be at least 4 samples each, got {self.windows}")


class SpectralLoss(nn.Module):
    """(B, n) made and (B, n) recorded samples -> (loss, its parts by name)."""

    def __init__(self, config: SpectralLossConfig) -> None:
        super().__init__()
        self.config = config
        self.mel: Tensor
        self.register_buffer("mel", mel_filters(config.sample_rate, config.windows[0], config.n_mels), persistent=False)
        self.bands: Tensor
        self.register_buffer("bands", mel_filters(config.sample_rate, BAND_WINDOW, BANDS), persistent=False)

    def _power(self, samples: Tensor, window: int) -> Tensor:
        """(B, n) -> power spectra (B, bins, frames), never below ``FLOOR``."""
        taper = torch.hann_window(window, device=samples.device)
        spectrum = torch.stft(samples, window, window // 4, window=taper, pad_mode="constant", return_complex=True)
        return (spectrum.real.square() + spectrum.imag.square()).clamp(min=FLOOR)

    def forward(self, made: Tensor, recorded: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        c = self.config
        mel = magnitude = convergence = made.new_zeros((), dtype=torch.float32)
        with torch.autocast(made.device.type, enabled=False):  # a power spectrum spans more than bf16 resolves
            for i, window in enumerate(c.windows):
                power, target = self._power(made.float(), window), self._power(recorded.float(), window)
                if i == 0:
                    bands, wanted = self.mel @ power, self.mel @ target  # (B, M, frames)
                    mel = 0.5 * F.l1_loss(bands.clamp(min=FLOOR).log(), wanted.clamp(min=FLOOR).log())
                amplitude, wanted = power.sqrt(), target.sqrt()
                magnitude = magnitude + 0.5 * F.l1_loss(power.log(), target.log()) / len(c.windows)
                # Over the whole batch: a silent crop alone would divide by next to nothing.
                convergence = convergence + (amplitude - wanted).norm() / wanted.norm() / len(c.windows)
            loss = c.mel_weight * mel + c.magnitude_weight * magnitude + c.convergence_weight * convergence
            metrics = {"mel": mel, "magnitude": magnitude, "convergence": convergence}
            if c.band_weight:
                metrics["band"] = self._band(made.float(), recorded.float())
                loss = loss + c.band_weight * metrics["band"]
        return loss, {name: value.detach() for name, value in metrics.items()}

    def _band(self, made: Tensor, recorded: Tensor) -> Tensor:
        """How far the envelopes of bands lie from the recording's: each band is as important as any other.

        Intelligibility goes with the envelopes of bands (Taal et al. 2011, TASLP 19(7), section II), which a distance
        bin by bin does not see for the chance in each bin.
        """
        powers = (self.bands @ self._power(samples, BAND_WINDOW) for samples in (made, recorded))
        envelope, wanted = (power.clamp(min=FLOOR).sqrt() for power in powers)  # (B, bands, frames)
        size = wanted.norm(dim=2)  # (B, bands)
        size = torch.maximum(size, QUIET * size.amax(dim=1, keepdim=True))
        return ((envelope - wanted).norm(dim=2) / size).mean()


def periodicity_loss(controls: Controls, fractions: Tensor) -> Tensor:
    """What a source-filter generator says of its bands, and the recording's periodic fractions (B, S, bands), 0 where
    there is no voice -> their mean cross-entropy where there is one."""
    voiced = (fractions > 0).any(dim=-1)
    each = F.binary_cross_entropy_with_logits(controls.periodic.float(), fractions, reduction="none").mean(dim=-1)
    return (each * voiced).sum() / voiced.sum().clamp(min=1)


def pitch_losses(controls: Controls, hertz: Tensor) -> tuple[Tensor, Tensor]:
    """What a source-filter generator says, and the recording's pitch in Hz (B, S), 0 where there is no voice -> the
    mean distance of the pitches' logarithms where there is one, and the cross-entropy of whether there is."""
    voiced = hertz > 0
    distance = (controls.log_f0 - torch.log(hertz.clamp(min=1.0) / MIDDLE_HZ)).abs()
    pitch = (distance * voiced).sum() / voiced.sum().clamp(min=1)
    return pitch, F.binary_cross_entropy_with_logits(controls.voiced, voiced.float())
