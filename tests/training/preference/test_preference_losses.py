"""Losses of preferences: their formulas, and where they point."""

from __future__ import annotations

import math

import pytest
import torch

from duologue.training.preference.losses import dpo_loss, margin_loss, unlikelihood


def test_at_the_reference_a_preference_is_a_coin_toss() -> None:
    scores = torch.tensor([[-3.0, -5.0], [-9.0, -1.0]])
    assert torch.allclose(dpo_loss(scores, scores, 0.1), torch.full((2,), math.log(2)))
    assert torch.allclose(dpo_loss(scores, scores, 0.1, 0.3), torch.full((2,), math.log(2)))


def test_the_dpo_loss_is_the_likelihood_of_a_preference() -> None:
    """With label smoothing, of labels that are wrong in that fraction."""
    scores, reference = torch.tensor([[-2.0, -6.0]]), torch.tensor([[-3.0, -4.0]])
    right = 1 / (1 + math.exp(-0.5 * ((-2 + 3) - (-6 + 4))))
    assert dpo_loss(scores, reference, 0.5).item() == pytest.approx(-math.log(right))
    noisy = -0.8 * math.log(right) - 0.2 * math.log(1 - right)
    assert dpo_loss(scores, reference, 0.5, 0.2).item() == pytest.approx(noisy)


def test_with_label_smoothing_no_preference_becomes_certain() -> None:
    """The loss is least where the probability of the label is 1 - label_smoothing."""
    ahead = torch.linspace(-10, 10, 2001)
    losses = dpo_loss(torch.stack([ahead, torch.zeros_like(ahead)], 1), torch.zeros(1, 2), 1.0, 0.1)
    assert ahead[losses.argmin()].item() == pytest.approx(math.log(0.9 / 0.1), abs=0.02)
    assert (dpo_loss(torch.stack([ahead, 0 * ahead], 1), torch.zeros(1, 2), 1.0).diff() < 0).all()


def test_a_margin_is_enough() -> None:
    scores = torch.tensor([[-1.0, -5.0], [-2.0, -2.5], [-4.0, -1.0]], requires_grad=True)
    losses = margin_loss(scores, 2.0)
    assert losses.tolist() == [0.0, 1.5, 5.0]
    losses.sum().backward()
    assert scores.grad.tolist() == [[0, 0], [-1, 1], [-1, 1]]


def test_unlikelihood_pushes_down_what_is_likely() -> None:
    probabilities = torch.tensor([0.001, 0.5, 0.9, 1.0])
    log_probs = probabilities.log().requires_grad_()
    losses = unlikelihood(log_probs)
    assert torch.allclose(losses[:3], -(1 - probabilities[:3]).log(), rtol=1e-4)
    losses.sum().backward()
    assert torch.isfinite(losses).all() and torch.isfinite(log_probs.grad).all()
    assert (log_probs.grad[:3].diff() > 0).all() and log_probs.grad[0] > 0
