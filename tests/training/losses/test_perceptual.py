"""What a frozen encoder hears: nothing between equal sounds, more the more they differ; and it learns nothing."""

from __future__ import annotations

import pytest
import torch

from duologue.model.errors import DuologueError
from duologue.training.losses.perceptual import PerceptualConfig, PerceptualLoss


def test_the_distance_grows_with_the_noise_and_reaches_what_was_made(speech_encoder: str) -> None:
    loss = PerceptualLoss(PerceptualConfig(encoder=speech_encoder, blocks=2, crops=2), 16000)
    assert len(loss.encoder.blocks) == 2 and not any(p.requires_grad for p in loss.parameters())
    torch.manual_seed(1)
    recorded, noise = 0.1 * torch.randn(3, 8000), torch.randn(3, 8000)
    assert float(loss(recorded, recorded)) == 0.0
    distances = [float(loss(recorded + level * noise, recorded)) for level in (0.01, 0.05, 0.2)]
    assert 0 < distances[0] < distances[1] < distances[2]
    made = (recorded + 0.1 * noise).requires_grad_()
    loss(made, recorded).backward()
    assert made.grad is not None and (made.grad[:2].abs().sum(1) > 0).all()
    assert not made.grad[2].any()  # it hears two crops


@pytest.mark.parametrize(
    ("settings", "rate", "message"),
    [
        ({"blocks": 4}, 16000, "perceptual.blocks is 4; the encoder .* has 3"),
        ({"blocks": 0}, 16000, "perceptual.blocks is 0; it must be at least 1"),
        ({}, 24000, "hears 16000 Hz; what is made has 24000 Hz"),
    ],
)
def test_what_cannot_listen_is_refused(speech_encoder: str, settings: dict[str, int], rate: int, message: str) -> None:
    with pytest.raises(DuologueError, match=message):
        PerceptualLoss(PerceptualConfig(encoder=speech_encoder, **settings), rate)
