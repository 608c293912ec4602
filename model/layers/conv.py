"""Convolutions over time that can be fed chunk by chunk, exactly.

Every convolutional stage (Whisper's stem, the unit vocoder, the codec) is built from these. All tensors are
(B, C, T), time last. What a stream carries from chunk to chunk is the input that later outputs still need; the zeros of
the padding are fed by ``init_state`` on the left and by ``flush`` on the right, so that the streamed and the whole run
see the same numbers. The look-ahead of symmetrical padding is the stage's ``latency``.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import DuologueError
from ..streaming import State, Streaming


def channels_last(x: Tensor) -> Tensor:
    """The same (B, C, T) tensor with channels innermost in memory, as the operations below then keep it.

    Convolutions of few channels run several times faster so on a CPU.
    """
    return x.transpose(1, 2).contiguous().transpose(1, 2)


@dataclass
class ConvState(State):
    """Input that outputs to come still need."""

    held: Tensor  # (B, C_in, < dilation * (kernel - 1) + 1)
    skip: int  # input frames still to be dropped: a stride can reach past the kernel's span


class StreamingConv1d(Streaming, nn.Conv1d):
    """A 1-D convolution, (B, C_in, T) -> (B, C_out, T').

    ``causal=False`` pads ``dilation * (kernel - 1) // 2`` zeros on either side ('same' for odd kernels, as HiFi-GAN and
    Whisper do); ``causal=True`` pads ``dilation * (kernel - 1)`` zeros on the left only. Parameters are ``weight``
    (C_out, C_in / groups, kernel) and ``bias`` (C_out,). A signal too short for a single output gives none.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: int,
        stride: int = 1,
        dilation: int = 1,
        groups: int = 1,
        causal: bool = False,
    ) -> None:
        if min(kernel, stride, dilation) < 1:
            raise DuologueError(f"kernel, stride and dilation must be at least 1, got {(kernel, stride, dilation)}")
        super().__init__(in_channels, out_channels, kernel, stride, 0, dilation, groups)
        self.span = dilation * (kernel - 1) + 1  # input frames that one output sees
        self.pad_left = self.span - 1 if causal else (self.span - 1) // 2
        self.pad_right = 0 if causal else self.pad_left
        self.rate = Fraction(1, stride)
        # After n frames (n + pad_left - span) // stride + 1 outputs are out; this is the least latency that covers it.
        self.latency = max(0, self.span - self.pad_left - stride)

    def _convolve(self, x: Tensor, padding: int = 0) -> Tensor:
        # As a picture one pixel high, which is what torch makes of it anyway, because conv1d forgets channels_last.
        stride, dilation = (1, *self.stride), (1, *self.dilation)
        weight = self.weight.unsqueeze(2)  # (C_out, C_in / groups, 1, kernel)
        y = F.conv2d(x.unsqueeze(2), weight, self.bias, stride, (0, padding), dilation, self.groups)
        return y.squeeze(2)

    def _none(self, x: Tensor) -> Tensor:
        return x.new_zeros(x.shape[0], self.out_channels, 0)

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[-1] + self.pad_left + self.pad_right < self.span:
            return self._none(x)
        if self.pad_left == self.pad_right:
            return self._convolve(x, self.pad_left)  # (B, C_out, T')
        return self._convolve(F.pad(x, (self.pad_left, self.pad_right)))  # (B, C_out, T')

    def init_state(self, batch_size: int = 1) -> ConvState:
        return ConvState(held=self.weight.new_zeros(batch_size, self.in_channels, self.pad_left), skip=0)

    def step(self, x: Tensor, state: ConvState) -> Tensor:
        skipped = min(state.skip, x.shape[-1])
        state.skip -= skipped
        window = torch.cat([state.held, x[..., skipped:]], dim=-1)  # (B, C_in, held + new)
        stride = self.stride[0]
        outputs = max(0, (window.shape[-1] - self.span) // stride + 1)
        if outputs == 0:
            state.held = window
            return self._none(x)
        used = outputs * stride
        state.skip += max(0, used - window.shape[-1])
        # A copy, or the state would keep the whole chunk's storage alive.
        state.held = window[..., used:].clone()
        return self._convolve(window[..., : used - stride + self.span])  # (B, C_out, outputs)

    def flush(self, state: ConvState) -> Tensor:
        return self.step(state.held.new_zeros(state.held.shape[0], self.in_channels, self.pad_right), state)


@dataclass
class ConvTransposeState(State):
    """What past inputs have already contributed to outputs that are not complete."""

    overlap: Tensor  # (B, C_out, kernel - stride), without the bias
    skip: int  # outputs still to be cut off at the beginning (the padding)
    started: bool  # whether any input has come


class StreamingConvTranspose1d(Streaming, nn.ConvTranspose1d):
    """A 1-D transposed convolution, (B, C_in, T) -> (B, C_out, T * stride) when kernel - stride is even.

    Padding is ``(kernel - stride) // 2``, so an odd kernel - stride gives one frame more. Parameters are ``weight``
    (C_in, C_out, kernel) and ``bias`` (C_out,). Streaming adds overlaps: each input frame is multiplied once.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel: int, stride: int) -> None:
        if stride < 1 or kernel < stride:
            raise DuologueError(f"a transposed convolution needs kernel >= stride >= 1, got {kernel} and {stride}")
        super().__init__(in_channels, out_channels, kernel, stride, (kernel - stride) // 2)
        self.pad = (kernel - stride) // 2
        self.rate = Fraction(stride)
        self.latency = -(-self.pad // stride)

    def forward(self, x: Tensor, output_size: list[int] | None = None) -> Tensor:
        if x.shape[-1] == 0:
            return x.new_zeros(x.shape[0], self.out_channels, 0)
        y = self._convolve(x, self.pad)  # (B, C_out, T * stride)
        return self._finish(y)

    def init_state(self, batch_size: int = 1) -> ConvTransposeState:
        tail = self.kernel_size[0] - self.stride[0]
        overlap = self.weight.new_zeros(batch_size, self.out_channels, tail)
        return ConvTransposeState(overlap=overlap, skip=self.pad, started=False)

    def _convolve(self, x: Tensor, padding: int = 0) -> Tensor:
        weight, stride = self.weight.unsqueeze(2), (1, *self.stride)
        return F.conv_transpose2d(x.unsqueeze(2), weight, None, stride, (0, padding)).squeeze(2)

    def _finish(self, y: Tensor) -> Tensor:
        return y if self.bias is None else y + self.bias[:, None]

    def step(self, x: Tensor, state: ConvTransposeState) -> Tensor:
        frames, stride = x.shape[-1], self.stride[0]
        if frames == 0:
            return x.new_zeros(x.shape[0], self.out_channels, 0)
        state.started = True
        y = self._convolve(x)  # (B, C_out, (T - 1) * stride + kernel)
        y[..., : state.overlap.shape[-1]] += state.overlap
        state.overlap = y[..., frames * stride :].clone()
        first = min(state.skip, frames * stride)
        state.skip -= first
        return self._finish(y[..., first : frames * stride])

    def flush(self, state: ConvTransposeState) -> Tensor:
        end = state.overlap.shape[-1] - self.pad
        return self._finish(state.overlap[..., state.skip : end] if state.started else state.overlap[..., :0])


@dataclass
class AlignState(State):
    """Lines up branches of different look-ahead (a residual path and its convolutions, parallel blocks).

    ``push`` takes what each branch has just put out and returns, for every branch, the frames that all of them have
    reached; the surplus of the faster ones waits here. It never holds more than the largest difference in look-ahead.
    """

    held: list[Tensor]  # one (B, C, *) a branch

    @classmethod
    def empty(cls, like: Tensor, batch_size: int, channels: list[int]) -> AlignState:
        """Nothing held yet, for branches of so many channels; ``like`` gives dtype and device."""
        return cls(held=[like.new_zeros(batch_size, width, 0) for width in channels])

    def push(self, *outputs: Tensor) -> list[Tensor]:
        joined = [torch.cat([held, new], dim=-1) for held, new in zip(self.held, outputs, strict=True)]
        ready = min(branch.shape[-1] for branch in joined)
        self.held = [branch[..., ready:].clone() for branch in joined]
        return [branch[..., :ready] for branch in joined]


def feed(stage: Streaming, x: Tensor, state: State, last: bool) -> Tensor:
    """``step``, and ``flush`` as well when ``x`` is the last chunk: what a composite stage does with its parts."""
    y = stage.step(x, state)
    return torch.cat([y, stage.flush(state)], dim=stage.time_out) if last else y
