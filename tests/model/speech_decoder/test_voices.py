"""Formants moved by an all-pass: where a resonance goes, with what gain, and the way back."""

import math

import pytest
import torch

from duologue.model.speech_decoder.voices import move_formants

RATE = 16_000


def resonance(hertz: float, length: int = 80) -> torch.Tensor:
    """The cepstrum (length,) of a pair of poles."""
    k = torch.arange(length)
    cepstrum = 2 * 0.95**k * torch.cos(2 * math.pi * hertz / RATE * k) / k.clamp(min=1)
    cepstrum[0] = -1.0
    return cepstrum


def peak(cepstrum: torch.Tensor) -> float:
    return float(torch.fft.rfft(cepstrum, 1 << 14).real.argmax()) * RATE / (1 << 14)


@pytest.mark.parametrize("factor", [0.8, 0.9, 1.2])
def test_resonances_move_by_the_factor_where_frequencies_are_low(factor: float):
    for hertz, slack in ((300, 0.01), (1500, 0.03)):
        moved = move_formants(resonance(hertz), factor, 200)
        assert peak(moved) / peak(resonance(hertz)) == pytest.approx(factor, rel=slack)


def test_the_gain_is_the_same_one_at_other_frequencies_and_the_way_back_is_the_inverse():
    cepstrum = resonance(700)
    moved = move_formants(cepstrum, 0.85, 200)
    before, after = (torch.fft.rfft(each, 4096).real for each in (cepstrum, moved))
    assert after.max() == pytest.approx(float(before.max()), abs=0.02)
    assert after[0] == pytest.approx(float(before[0]), abs=1e-3)
    assert after[-1] == pytest.approx(float(before[-1]), abs=1e-3)
    torch.testing.assert_close(move_formants(moved, 1 / 0.85, 200)[:40], cepstrum[:40], atol=1e-3, rtol=0)
    assert move_formants(cepstrum, 0.85, 90).shape == (90,)
