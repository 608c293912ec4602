"""What the losses of a vocoder see, and what they do not."""

from __future__ import annotations

import pytest
import torch

from duologue.model.speech_decoder.source_filter import MIDDLE_HZ, Controls
from duologue.training.losses.spectral import SpectralLoss, SpectralLossConfig, periodicity_loss, pitch_losses


def test_envelopes_of_bands_are_compared_band_by_band() -> None:
    """Half as loud is half the size away, at any level; a quiet band counts like a loud one; without weight, none."""
    generator = torch.Generator().manual_seed(0)
    recorded = 0.1 * torch.randn(2, 8000, generator=generator)
    loss = SpectralLoss(SpectralLossConfig(windows=(512,), band_weight=2.0))
    plain = SpectralLoss(SpectralLossConfig(windows=(512,)))
    for level in (1.0, 0.1):
        total, metrics = loss(0.5 * level * recorded, level * recorded)
        assert float(metrics["band"]) == pytest.approx(0.5, abs=0.01)
        without, others = plain(0.5 * level * recorded, level * recorded)
        assert float(total - without) == pytest.approx(1.0, abs=0.02) and "band" not in others
    assert float(loss(recorded, recorded)[0]) == 0
    t = torch.arange(8000) / 16000
    low, high = (level * torch.sin(2 * torch.pi * hertz * t)[None] for level, hertz in ((0.5, 300.0), (0.05, 3000.0)))
    no_low, no_high = (float(loss(made, low + high)[1]["band"]) for made in (high, low))
    assert 0.3 < no_high / no_low < 3


def test_pitch_counts_where_there_is_a_voice() -> None:
    hertz = torch.tensor([[2 * MIDDLE_HZ, 0.0]])
    said = Controls(log_f0=torch.tensor([[0.0, 5.0]]), voiced=torch.tensor([[9.0, -9.0]]),
                    pulses=torch.zeros(1, 2, 1), noise=torch.zeros(1, 2, 0),
                    periodic=torch.tensor([[[9.0, -9.0], [9.0, 9.0]]]))  # fmt: skip
    pitch, voicing = pitch_losses(said, hertz)
    assert float(pitch) == pytest.approx(0.6931, abs=1e-3) and float(voicing) < 1e-3
    fractions = torch.tensor([[[1.0, 0.0], [0.0, 0.0]]])
    assert float(periodicity_loss(said, fractions)) < 1e-3 < float(periodicity_loss(said, fractions.flip(-1)))
