"""Discriminators of vocoder and codec: they tell made speech from recordings, at several periods and scales.

The discriminator's loss and the maker's are least squares (Mao et al., arXiv 1611.04076) or hinges (Lim and Ye, arXiv
1705.02894); the maker also has to match what the discriminator's layers see in the recording (feature matching).

Source: Kong et al. 2020, "HiFi-GAN" (arXiv 2010.05646), sections 2.2 and 2.3; the multi-scale discriminator from Kumar
et al. 2019, "MelGAN" (arXiv 1910.06711), section 2.2; of complex spectra: Zeghidour et al. 2021, "SoundStream" (arXiv
2107.03312), section III-D, and Défossez et al. 2022, "EnCodec" (arXiv 2210.13438), section 3.4.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

from ...model.errors import DuologueError
from ..loop.task import Discriminator

SLOPE = 0.1  # of the leaky rectifiers


@dataclass(frozen=True, kw_only=True)
class DiscriminatorConfig:
    """Sizes (HiFi-GAN: 32 channels growing to 1024; a vocoder of 1 M parameters does well with a sixteenth of that)."""

    periods: tuple[int, ...] = (2, 3, 5, 7, 11)  # samples
    scales: int = 3  # the waveform, its half rate, its quarter rate…; 0: periods alone
    channels: int = 32  # of a first layer; each of the next has four times as many, at most max_channels
    max_channels: int = 1024
    resolutions: tuple[int, ...] = ()  # windows of complex spectra, in samples; each moves by a quarter of itself
    hinge: bool = False  # else least squares
    feature_weight: float = 2.0
    adversarial_weight: float = 1.0

    def __post_init__(self) -> None:
        if not self.periods and self.scales < 1 and not self.resolutions:
            raise DuologueError("a discriminator needs at least one period, scale or resolution")
        if any(window < 16 for window in self.resolutions):
            raise DuologueError(f"resolutions are {self.resolutions}; each must be at least 16 samples")
        if any(period < 2 for period in self.periods):
            raise DuologueError(f"periods are {self.periods}; each must be at least 2 samples")

    def widths(self, layers: int) -> list[int]:
        """Channels of so many layers."""
        return [min(self.channels * 4**i, self.max_channels) for i in range(layers)]


class PeriodDiscriminator(nn.Module):
    """(B, n) -> features of every layer, the last of them the scores; sees every ``period``-th sample as a row."""

    def __init__(self, period: int, config: DiscriminatorConfig) -> None:
        super().__init__()
        self.period = period
        widths = [1, *config.widths(4)]
        self.layers = nn.ModuleList(weight_norm(nn.Conv2d(a, b, (5, 1), (3, 1), (2, 0))) for a, b in pairwise(widths))
        self.layers.append(weight_norm(nn.Conv2d(widths[-1], widths[-1], (5, 1), 1, (2, 0))))
        self.score = weight_norm(nn.Conv2d(widths[-1], 1, (3, 1), 1, (1, 0)))

    def forward(self, samples: Tensor) -> list[Tensor]:
        x = F.pad(samples, (0, -samples.shape[1] % self.period), mode="reflect")
        x = x.unflatten(1, (-1, self.period))[:, None]  # (B, 1, n / period, period)
        features = []
        for layer in self.layers:
            x = F.leaky_relu(layer(x), SLOPE)
            features.append(x)
        return [*features, self.score(x)]


class ScaleDiscriminator(nn.Module):
    """(B, n) -> features of every layer, the last of them the scores; the waveform at one scale."""

    def __init__(self, config: DiscriminatorConfig) -> None:
        super().__init__()
        widths = config.widths(4)
        shape = ((15, 1, 1), (41, 4, 4), (41, 4, 16), (41, 4, 16))  # kernel, stride, groups
        self.layers = nn.ModuleList(
            weight_norm(nn.Conv1d(a, b, kernel, stride, kernel // 2, groups=min(groups, a)))
            for (a, b), (kernel, stride, groups) in zip(pairwise([1, *widths]), shape, strict=True)
        )
        self.layers.append(weight_norm(nn.Conv1d(widths[-1], widths[-1], 5, 1, 2)))
        self.score = weight_norm(nn.Conv1d(widths[-1], 1, 3, 1, 1))

    def forward(self, samples: Tensor) -> list[Tensor]:
        x = samples[:, None]  # (B, 1, n)
        features = []
        for layer in self.layers:
            x = F.leaky_relu(layer(x), SLOPE)
            features.append(x)
        return [*features, self.score(x)]


class SpectrumDiscriminator(nn.Module):
    """(B, n) -> features of every layer, the last of them the scores; sees real and imaginary parts of a spectrum."""

    def __init__(self, window: int, config: DiscriminatorConfig) -> None:
        super().__init__()
        self.window = window
        width = config.channels
        shapes = [(2, (3, 9), (1, 1), 1)] + [(width, (3, 9), (1, 2), dilation) for dilation in (1, 2, 4)]
        self.layers = nn.ModuleList(
            weight_norm(nn.Conv2d(inputs, width, kernel, stride, (dilation, 4), dilation=(dilation, 1)))
            for inputs, kernel, stride, dilation in shapes
        )
        self.layers.append(weight_norm(nn.Conv2d(width, width, 3, 1, 1)))
        self.score = weight_norm(nn.Conv2d(width, 1, 3, 1, 1))

    def forward(self, samples: Tensor) -> list[Tensor]:
        with torch.autocast(samples.device.type, enabled=False):
            taper = torch.hann_window(self.window, device=samples.device)
            spectrum = torch.stft(
                samples.float(), self.window, self.window // 4, window=taper, pad_mode="constant", return_complex=True
            )
            x = torch.view_as_real(spectrum / taper.norm()).permute(0, 3, 2, 1)  # (B, 2, frames, bins)
        features = []
        for layer in self.layers:
            x = F.leaky_relu(layer(x), SLOPE)
            features.append(x)
        return [*features, self.score(x)]


def _renamed(module: nn.Module, state: dict[str, Tensor], *_: object) -> None:
    """Checkpoints of the first edition have scores under another name."""
    for name in [name for name in state if ".verdict." in name]:
        state[name.replace(".verdict.", ".score.")] = state.pop(name)


class Discriminators(Discriminator):
    """All of them; see :class:`~duologue.training.loop.task.Discriminator`. Samples are (B, n)."""

    def __init__(self, config: DiscriminatorConfig) -> None:
        super().__init__()
        self.config = config
        self.periods = nn.ModuleList(PeriodDiscriminator(period, config) for period in config.periods)
        self.scales = nn.ModuleList(ScaleDiscriminator(config) for _ in range(config.scales))
        self.spectra = nn.ModuleList(SpectrumDiscriminator(window, config) for window in config.resolutions)
        self.count = len(self.periods) + len(self.scales) + len(self.spectra)
        self.register_load_state_dict_pre_hook(_renamed)

    def features(self, samples: Tensor) -> list[list[Tensor]]:
        """Each discriminator's features of (B, n)."""
        out = [discriminator(samples) for discriminator in (*self.periods, *self.spectra)]
        scaled = samples
        for discriminator in self.scales:
            out.append(discriminator(scaled))
            scaled = F.avg_pool1d(scaled[:, None], 4, 2, padding=2)[:, 0]  # half the rate
        return out

    def forward(self, made: Tensor, recorded: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """The discriminators' own loss: recordings are 1, what was made is 0; 0.5 if they cannot tell.

        With hinges recordings are to be above 1, what was made below -1; 2 if they cannot tell.
        """
        # One pass over both: half as many calls, each twice as large.
        loss = made.new_zeros((), dtype=torch.float32)
        for features in self.features(torch.cat([recorded, made])):
            real, fake = features[-1].float().chunk(2)
            if self.config.hinge:
                loss = loss + F.relu(1 - real).mean() + F.relu(1 + fake).mean()
            else:
                loss = loss + (real - 1).square().mean() + fake.square().mean()
        loss = loss / self.count
        return loss, {"discriminator": loss.detach()}

    def judge(self, made: Tensor, recorded: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """The maker's loss: to be taken for a recording, and to look like this one in every layer."""
        with torch.no_grad():
            wanted = self.features(recorded)
        adversarial = matched = made.new_zeros((), dtype=torch.float32)
        for seen, target in zip(self.features(made), wanted, strict=True):
            score = seen[-1].float()
            adversarial = adversarial - score.mean() if self.config.hinge else adversarial + (score - 1).square().mean()
            for a, b in zip(seen[:-1], target[:-1], strict=True):
                matched = matched + F.l1_loss(a.float(), b.float())
        adversarial, matched = adversarial / self.count, matched / self.count
        loss = self.config.adversarial_weight * adversarial + self.config.feature_weight * matched
        return loss, {"adversarial": adversarial.detach(), "features": matched.detach()}
