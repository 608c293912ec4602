"""Masking of log-mel frames in training: a few bands of mels and a few stretches of time are taken away.

SpecAugment (Park et al., arXiv 1904.08779, section 2), without its time warp.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from ...model.errors import DuologueError


@dataclass(frozen=True, kw_only=True)
class SpecAugmentConfig:
    mel_masks: int = 2  # bands a clip
    mel_width: int = 20  # mels, the widest band
    time_masks: int = 2  # stretches a clip
    time_width: int = 30  # frames at 100 Hz, the longest stretch
    time_fraction: float = 0.15  # of a clip's frames, the most that one stretch takes

    def __post_init__(self) -> None:
        if min(self.mel_masks, self.mel_width, self.time_masks, self.time_width) < 0:
            raise DuologueError("spec_augment: numbers and widths of masks are 0 or more")
        if not 0.0 <= self.time_fraction <= 1.0:
            raise DuologueError(f"spec_augment: time_fraction is {self.time_fraction}, wanted 0 to 1")


def _stretches(limits: Tensor, masks: int, width: Tensor, size: int, generator: torch.Generator | None) -> Tensor:
    """(B, size) bool, true in `masks` random stretches a row of at most width[b] within the first limits[b]."""
    shape = (limits.shape[0], masks, 1)
    lengths = (torch.rand(shape, generator=generator) * (width + 1)[:, None, None]).floor()  # (B, masks, 1)
    starts = (torch.rand(shape, generator=generator) * (limits[:, None, None] - lengths + 1)).floor()
    places = torch.arange(size)
    return ((places >= starts) & (places < starts + lengths)).any(1)  # (B, masks, size) -> (B, size)


def spec_augment(
    mel: Tensor,
    lengths: Tensor | None = None,
    generator: torch.Generator | None = None,
    config: SpecAugmentConfig | None = None,
) -> Tensor:
    """Masked copy of log-mels (B, M, T); masked places take the mean of the clip, frames past its length stay.

    lengths: (B,) int, true frames of each clip (None: all T).  generator: on the CPU; the masks are drawn there, so a
    seed gives the same ones on any device.
    Raises DuologueError unless `mel` is (B, M, T).
    """
    if mel.ndim != 3:
        raise DuologueError(f"spec_augment: mel is {tuple(mel.shape)}, wanted (B, M, T)")
    config = config or SpecAugmentConfig()
    batch, mels, frames = mel.shape
    true = torch.full((batch,), frames) if lengths is None else lengths.to("cpu", torch.long).clamp(0, frames)
    bands = torch.full((batch,), mels)
    mel_width = bands.clamp(max=config.mel_width)
    time_width = (true * config.time_fraction).floor().clamp(max=config.time_width)
    in_band = _stretches(bands, config.mel_masks, mel_width, mels, generator)[:, :, None]  # (B, M, 1)
    in_time = _stretches(true, config.time_masks, time_width, frames, generator)[:, None, :]  # (B, 1, T)
    inside = (torch.arange(frames) < true[:, None])[:, None, :].to(mel.device)  # (B, 1, T)
    count = (true.clamp(min=1) * mels)[:, None, None].to(mel.device)
    mean = mel.masked_fill(~inside, 0.0).sum((1, 2), keepdim=True) / count  # (B, 1, 1)
    masked = (in_band | in_time).to(mel.device) & inside  # (B, M, T)
    return torch.where(masked, mean.to(mel.dtype), mel)
