"""Convolutions as neural codecs pad them: each frame of ``stride`` inputs gives one output, a last one cut short too.

A convolution pads ``span - stride`` frames in all, on the left alone when causal, and completes the last frame on the
right, with zeros or with the signal's own reflection. A transposed one gives exactly ``stride`` outputs an input. All
can be streamed exactly, reflection included: the first outputs wait for the frames that are reflected before them.

Source: Défossez et al. 2022, "High Fidelity Neural Audio Compression" (EnCodec, arXiv 2210.13438), section 3.1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import DuologueError
from ..streaming import State, Streaming
from .conv import ConvState, StreamingConv1d, StreamingConvTranspose1d


@dataclass
class FramedConvState(State):
    """The convolution's input still needed, and what the end of the stream will want to know."""

    conv: ConvState
    frames: int  # input frames so far
    begun: bool  # whether the reflection at the beginning is known (with zeros: always)
    tail: Tensor  # (B, C_in, *) the newest input, to be reflected at the end


class FramedConv1d(StreamingConv1d):
    """(B, C_in, n) -> (B, C_out, ceil(n / stride))."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: int,
        stride: int = 1,
        causal: bool = False,
        reflect: bool = False,
    ) -> None:
        if kernel < stride:
            raise DuologueError(f"a framed convolution needs kernel >= stride, got {kernel} and {stride}")
        super().__init__(in_channels, out_channels, kernel, stride)
        total = self.span - stride
        self.pad_right = 0 if causal else total // 2
        self.pad_left = total - self.pad_right
        self.reflect = reflect
        self.latency = self.pad_right
        self.reach = max(self.pad_left, self.pad_right + stride - 1)  # the furthest frame that either reflection shows
        if reflect:
            self.latency = max(self.latency, self.reach - stride + 1)

    def forward(self, x: Tensor) -> Tensor:
        frames = x.shape[-1]
        if frames == 0:
            return self._none(x)
        right = self.pad_right + -frames % self.stride[0]
        if not self.reflect:
            return self._convolve(F.pad(x, (self.pad_left, right)))  # (B, C_out, T')
        # A signal too short to be reflected so far is first continued by zeros, as EnCodec does.
        missing = max(0, max(self.pad_left, right) + 1 - frames)
        x = F.pad(F.pad(x, (0, missing)), (self.pad_left, right), mode="reflect")
        return self._convolve(x[..., : x.shape[-1] - missing])  # (B, C_out, T')

    def init_state(self, batch_size: int = 1) -> Any:
        left = 0 if self.reflect else self.pad_left
        held = self.weight.new_zeros(batch_size, self.in_channels, left)
        return FramedConvState(
            conv=ConvState(held=held, skip=0), frames=0, begun=not self.reflect, tail=held[..., :0].clone()
        )

    def step(self, x: Tensor, state: Any) -> Tensor:
        state.frames += x.shape[-1]
        if self.reflect:
            if not state.begun:
                x = state.conv.held = torch.cat([state.conv.held, x], dim=-1)
                if state.frames <= self.reach:
                    return self._none(x)
                state.conv.held = x[..., 1 : self.pad_left + 1].flip(-1)
                state.begun = True
            newest = self.pad_right + self.stride[0]
            state.tail = torch.cat([state.tail, x[..., -newest:]], dim=-1)[..., -newest:].clone()
        return super().step(x, state.conv)

    def flush(self, state: Any) -> Tensor:
        if not state.begun:
            return self.forward(state.conv.held)
        right = self.pad_right + -state.frames % self.stride[0]
        if self.reflect:
            end = state.tail[..., -right - 1 : -1].flip(-1)
        else:
            end = state.conv.held.new_zeros(state.conv.held.shape[0], self.in_channels, right)
        return super().step(end, state.conv)


class FramedConvTranspose1d(StreamingConvTranspose1d):
    """(B, C_in, T) -> (B, C_out, T * stride); what overhangs is cut off, on the right alone when causal."""

    def __init__(self, in_channels: int, out_channels: int, kernel: int, stride: int, causal: bool = False) -> None:
        super().__init__(in_channels, out_channels, kernel, stride)
        total = kernel - stride
        self.pad = 0 if causal else total - total // 2  # cut off on the left
        self.latency = -(-self.pad // stride)

    def forward(self, x: Tensor, output_size: list[int] | None = None) -> Tensor:
        frames, stride = x.shape[-1], self.stride[0]
        if frames == 0:
            return x.new_zeros(x.shape[0], self.out_channels, 0)
        return self._finish(self._convolve(x)[..., self.pad : self.pad + frames * stride])  # (B, C_out, T * stride)

    def flush(self, state: Any) -> Tensor:
        return self._finish(state.overlap[..., state.skip : self.pad] if state.started else state.overlap[..., :0])


@dataclass
class LSTMState(State):
    """Hidden and cell states."""

    hidden: Tensor  # (B, layers, C)
    cell: Tensor


class ResidualLSTM(Streaming):
    """x + LSTM(x), (B, C, T) both ways; it looks only backwards."""

    def __init__(self, channels: int, layers: int) -> None:
        super().__init__()
        self.channels, self.layers = channels, layers
        self.lstm = nn.LSTM(channels, channels, layers, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[-1] == 0:
            return x
        return x + self.lstm(x.transpose(1, 2))[0].transpose(1, 2)  # (B, C, T)

    def init_state(self, batch_size: int = 1) -> LSTMState:
        zeros = next(self.lstm.parameters()).new_zeros(batch_size, self.layers, self.channels)
        return LSTMState(hidden=zeros, cell=zeros.clone())

    def step(self, x: Tensor, state: LSTMState) -> Tensor:
        if x.shape[-1] == 0:
            return x
        before = tuple(part.transpose(0, 1).contiguous() for part in (state.hidden, state.cell))  # (layers, B, C)
        y, (hidden, cell) = self.lstm(x.transpose(1, 2), before)
        state.hidden, state.cell = hidden.transpose(0, 1), cell.transpose(0, 1)
        return x + y.transpose(1, 2)

    def flush(self, state: LSTMState) -> Tensor:
        return state.hidden.new_zeros(state.hidden.shape[0], self.channels, 0)
