"""The vocoder's discriminators: what they see, what they learn."""

from __future__ import annotations

import pytest
import torch

from duologue.model.errors import DuologueError
from duologue.training.losses.discriminators import DiscriminatorConfig, Discriminators, PeriodDiscriminator

SMALL = DiscriminatorConfig(periods=(2, 3), scales=2, channels=4, max_channels=16)


def tones(seed: int, count: int = 4, length: int = 3200) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    pitch = 0.02 + 0.1 * torch.rand(count, 1, generator=generator)
    return 0.3 * torch.sin(2 * torch.pi * pitch * torch.arange(length))


def test_sizes_are_hifigans() -> None:
    """With the published widths a period discriminator has the published shape: 4 strided layers, then two more."""
    period = PeriodDiscriminator(3, DiscriminatorConfig())
    assert [layer.out_channels for layer in period.layers] == [32, 128, 512, 1024, 1024]
    features = period(torch.randn(2, 1000))
    assert [f.shape[2] for f in features] == [112, 38, 13, 5, 5, 5]  # ceil(1000 / 3) = 334 rows, thirds of that
    assert all(f.shape[3] == 3 for f in features)


def test_what_equals_the_recording_matches_it() -> None:
    torch.manual_seed(0)
    adversaries, real = Discriminators(SMALL), tones(0)
    same, metrics = adversaries.judge(real.clone().requires_grad_(), real)
    assert metrics["features"] == 0 and same > 0
    _, other = adversaries.judge(torch.randn(4, 3200), real)
    assert other["features"] > 0


def test_they_learn_to_tell_noise_from_tones() -> None:
    """From not knowing (0.5 at best) towards certainty, on clips they have not seen."""
    torch.manual_seed(0)
    adversaries = Discriminators(SMALL)
    optimiser = torch.optim.AdamW(adversaries.parameters(), 1e-2, (0.8, 0.99))
    noise = torch.Generator().manual_seed(1)
    for step in range(40):
        loss, _ = adversaries(0.2 * torch.randn(4, 3200, generator=noise), tones(step))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    with torch.no_grad():
        assert adversaries(0.2 * torch.randn(4, 3200, generator=noise), tones(1000))[0] < 0.35
        adversarial = adversaries.judge(0.2 * torch.randn(4, 3200, generator=noise), tones(1000))[1]["adversarial"]
        assert adversarial > 0.5 > adversaries.judge(tones(1001), tones(1000))[1]["adversarial"]


def test_spectra_with_hinges_learn_to_tell_noise_from_tones() -> None:
    torch.manual_seed(0)
    adversaries = Discriminators(DiscriminatorConfig(periods=(), scales=0, resolutions=(64,), channels=4, hinge=True))
    features = adversaries.features(tones(0))
    assert len(features) == 1 and features[0][0].shape == (4, 4, 201, 33)  # (B, C, frames, bins)
    before = float(adversaries(0.2 * torch.randn(4, 3200), tones(0))[0])
    assert 1.5 < before < 2.5
    optimiser = torch.optim.AdamW(adversaries.parameters(), 1e-2, (0.8, 0.99))
    for step in range(20):
        loss, _ = adversaries(0.2 * torch.randn(4, 3200), tones(step))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    with torch.no_grad():
        assert adversaries(0.2 * torch.randn(4, 3200), tones(1000))[0] < 0.6 * before
        noise, real = 0.2 * torch.randn(4, 3200), tones(1000)
        assert adversaries.judge(noise, real)[1]["adversarial"] > adversaries.judge(tones(1001), real)[1]["adversarial"]


def test_nothing_to_judge_with_is_refused() -> None:
    with pytest.raises(DuologueError, match="at least one period, scale or resolution"):
        DiscriminatorConfig(periods=(), scales=0)
    with pytest.raises(DuologueError, match="at least 2 samples"):
        DiscriminatorConfig(periods=(1,))
