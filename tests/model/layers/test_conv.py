"""Streaming convolutions against torch's own, whole and in chunks."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from duologue.model.errors import DuologueError
from duologue.model.layers.conv import AlignState, StreamingConv1d, StreamingConvTranspose1d


def stream(stage, x, lengths):
    """Feed ``x`` in chunks of the given lengths (the last takes the rest), then flush."""
    state, outputs, begin = stage.init_state(x.shape[0]), [], 0
    for length in [*lengths, x.shape[-1]]:
        outputs.append(stage.step(x[..., begin : begin + length], state))
        begin += length
    return torch.cat([*outputs, stage.flush(state)], dim=-1)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("kernel,stride,dilation", [(1, 1, 1), (3, 1, 1), (3, 2, 1), (4, 2, 1), (7, 1, 5), (1, 3, 1)])
def test_forward_is_torchs_padded_convolution(kernel, stride, dilation, causal):
    torch.manual_seed(0)
    conv = StreamingConv1d(3, 4, kernel, stride, dilation, causal=causal)
    x, reach = torch.randn(2, 3, 40), dilation * (kernel - 1)
    padded = F.pad(x, (reach, 0) if causal else (reach // 2, reach // 2))
    torch.testing.assert_close(conv(x), F.conv1d(padded, conv.weight, conv.bias, stride, 0, dilation))


@settings(max_examples=150, deadline=None)
@given(
    kernel=st.integers(1, 8),
    stride=st.integers(1, 4),
    dilation=st.integers(1, 4),
    causal=st.booleans(),
    groups=st.sampled_from([1, 2]),
    frames=st.integers(0, 40),
    lengths=st.lists(st.integers(0, 9), max_size=10),
)
def test_convolution_streams_exactly(kernel, stride, dilation, causal, groups, frames, lengths):
    torch.manual_seed(frames)
    conv = StreamingConv1d(4, 2, kernel, stride, dilation, groups, causal).double()
    x = torch.randn(2, 4, frames, dtype=torch.float64)
    with torch.no_grad():
        torch.testing.assert_close(stream(conv, x, lengths), conv(x), rtol=1e-10, atol=1e-12)


@settings(max_examples=150, deadline=None)
@given(
    stride=st.integers(1, 5),
    excess=st.integers(0, 9),
    frames=st.integers(0, 25),
    lengths=st.lists(st.integers(0, 6), max_size=10),
)
def test_transposed_convolution_streams_exactly(stride, excess, frames, lengths):
    torch.manual_seed(frames)
    conv = StreamingConvTranspose1d(3, 2, stride + excess, stride).double()
    x = torch.randn(2, 3, frames, dtype=torch.float64)
    with torch.no_grad():
        torch.testing.assert_close(stream(conv, x, lengths), conv(x), rtol=1e-10, atol=1e-12)
        if frames:
            assert conv(x).shape[-1] == frames * stride + excess % 2


def test_a_signal_shorter_than_the_kernel():
    conv = StreamingConv1d(1, 1, kernel=9, dilation=3)
    x = torch.randn(1, 1, 2)
    assert conv(x).shape == (1, 1, 2)
    torch.testing.assert_close(stream(conv, x, [1, 0, 1]), conv(x))
    assert StreamingConv1d(1, 1, kernel=8)(x[..., :1]).shape == (1, 1, 0)


def test_what_a_state_keeps_does_not_grow_with_the_chunk():
    conv, up = StreamingConv1d(2, 2, kernel=3), StreamingConvTranspose1d(2, 2, 4, 2)
    with torch.no_grad():
        for stage, field in ((conv, "held"), (up, "overlap")):
            state = stage.init_state()
            stage.step(torch.randn(1, 2, 1000), state)
            assert getattr(state, field).untyped_storage().nbytes() <= 2 * 2 * 4


def test_align_gives_every_branch_the_same_frames():
    state = AlignState.empty(torch.zeros(1), batch_size=1, channels=[1, 1])
    frames = torch.arange(5.0).view(1, 1, 5)
    fast, slow = state.push(frames[..., :4], frames[..., :1])
    assert fast.tolist() == slow.tolist() == [[[0.0]]]
    fast, slow = state.push(frames[..., 4:], frames[..., 1:])
    assert fast.tolist() == slow.tolist() == [[[1.0, 2.0, 3.0, 4.0]]]
    assert [held.shape[-1] for held in state.held] == [0, 0]


def test_impossible_sizes_are_refused():
    with pytest.raises(DuologueError, match="kernel >= stride"):
        StreamingConvTranspose1d(1, 1, kernel=2, stride=3)
    with pytest.raises(DuologueError, match="at least 1"):
        StreamingConv1d(1, 1, kernel=3, dilation=0)
