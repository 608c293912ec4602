"""Packed layers say what torch's own say, for any number of rows, and leave alone what they are not made for."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from duologue.model.layers.conv import StreamingConv1d
from duologue.model.layers.packed import pack

LAYERS = {
    "linear": lambda: nn.Linear(48, 80),
    "linear without bias": lambda: nn.Linear(48, 80, bias=False),
    "convolution": lambda: nn.Conv1d(48, 80, 3, padding=1),
    "convolution with a stride": lambda: nn.Conv1d(48, 80, 5, stride=2, padding=2),
    "streaming convolution": lambda: StreamingConv1d(48, 80, 5, stride=2, causal=True),
    "depthwise convolution": lambda: StreamingConv1d(48, 48, 7, groups=48),
}


def both(make) -> tuple[nn.Module, nn.Module]:
    torch.manual_seed(0)
    plain, packed = make(), make()
    packed.load_state_dict(plain.state_dict())
    pack(packed)
    return plain, packed


def changed(layer: nn.Module) -> bool:
    return type(layer).__name__.startswith("Packed")


@pytest.mark.parametrize("name", LAYERS)
@torch.inference_mode()
def test_packed_layers_say_what_they_said(name: str) -> None:
    plain, packed = both(LAYERS[name])
    if not changed(packed):
        pytest.skip("nothing is packed on this machine")
    for batch, frames in ((1, 7), (1, 8), (3, 7), (2, 17), (5, 40), (1, 300)):
        x = torch.randn(batch, frames, 48)
        x = x if isinstance(plain, nn.Linear) else x.transpose(1, 2)
        torch.testing.assert_close(packed(x), plain(x), atol=1e-5, rtol=1e-5)
        if isinstance(plain, StreamingConv1d):
            states = plain.init_state(batch), packed.init_state(batch)
            for part in x.split(6, dim=2):
                found, wanted = packed.step(part, states[1]), plain.step(part, states[0])
                torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-5)
    for rows in (0, 1, 3):
        x = torch.randn(rows, 48) if isinstance(plain, nn.Linear) else torch.randn(max(1, rows), 48, 9)
        torch.testing.assert_close(packed(x), plain(x), atol=1e-5, rtol=1e-5)


def test_what_it_is_not_made_for_stays_as_it_was() -> None:
    for make in (
        lambda: nn.Linear(8, 8).double(),
        lambda: nn.Linear(8, 8).bfloat16(),
        lambda: StreamingConv1d(8, 8, 3, dilation=2),
        lambda: nn.Conv1d(8, 8, 3, groups=2),
        lambda: nn.modules.linear.NonDynamicallyQuantizableLinear(8, 8),
    ):
        layer = make()
        pack(layer)
        assert not changed(layer)
    large = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 8))
    pack(large, most=2 * 64 * 4 - 1)
    assert not changed(large[0])


def test_gradients_and_names_are_those_of_before() -> None:
    plain, packed = both(lambda: nn.Sequential(nn.Linear(8, 8), StreamingConv1d(6, 6, 3)))
    x = torch.randn(2, 6, 8)
    for model in (plain, packed):
        model(x).sum().backward()
    assert torch.equal(plain[0].weight.grad, packed[0].weight.grad)
    assert plain.state_dict().keys() == packed.state_dict().keys()
