"""The HiFi-GAN generator: frames of features -> waveform, by transposed convolutions and residual blocks.

Frames (B, C, T) at sample_rate / hop Hz in, samples (B, 1, T * hop) out. After Kong et al. 2020, "HiFi-GAN", section
2.2 and appendix A (multi-receptive-field fusion, residual block 1). Weights are plain: weight norm is a device of
training and is folded into them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..layers.conv import (
    AlignState,
    ConvState,
    ConvTransposeState,
    StreamingConv1d,
    StreamingConvTranspose1d,
    channels_last,
    feed,
)
from ..streaming import Composite, State

SLOPE = 0.1  # of the leaky ReLUs
LAST_SLOPE = 0.01  # of the one before the last convolution: the paper's code leaves it at torch's default there


@dataclass
class ResidualBlockState(State):
    """For each dilation: two convolutions, and the residual path waiting for them."""

    convs1: list[ConvState]
    convs2: list[ConvState]
    joins: list[AlignState]


class ResidualBlock(Composite):
    """Pairs of convolutions, the first of each pair dilated, each pair around a residual path. (B, C, T) both ways."""

    def __init__(self, channels: int, kernel: int, dilations: tuple[int, ...]) -> None:
        super().__init__()
        convs1 = [StreamingConv1d(channels, channels, kernel, dilation=d) for d in dilations]
        convs2 = [StreamingConv1d(channels, channels, kernel) for _ in dilations]
        self.convs1, self.convs2 = nn.ModuleList(convs1), nn.ModuleList(convs2)
        self.in_channels = channels
        self.latency = sum(conv.latency for conv in [*convs1, *convs2])

    def forward(self, x: Tensor) -> Tensor:
        for conv1, conv2 in zip(self.convs1, self.convs2, strict=True):
            x = x + conv2(F.leaky_relu(conv1(F.leaky_relu(x, SLOPE)), SLOPE))
        return x

    def init_state(self, batch_size: int = 1) -> ResidualBlockState:
        like, widths = self.convs1[0].weight, [self.in_channels] * 2
        joins = [AlignState.empty(like, batch_size, widths) for _ in self.convs1]  # type: ignore[arg-type]
        return ResidualBlockState.of(self, batch_size, joins=joins)

    def run(self, x: Tensor, state: ResidualBlockState, last: bool) -> Tensor:
        layers = zip(self.convs1, self.convs2, state.convs1, state.convs2, state.joins, strict=True)
        for conv1, conv2, held1, held2, join in layers:
            y = feed(conv1, F.leaky_relu(x, SLOPE), held1, last)  # type: ignore[arg-type]
            y = feed(conv2, F.leaky_relu(y, SLOPE), held2, last)  # type: ignore[arg-type]
            x, y = join.push(x, y)
            x = x + y
        return x


@dataclass
class FusionState(State):
    """The parallel blocks, and what the quicker ones have put out already."""

    blocks: list[ResidualBlockState]
    join: AlignState


class Fusion(Composite):
    """The mean of parallel residual blocks with different kernels. (B, C, T) both ways."""

    def __init__(self, channels: int, kernels: tuple[int, ...], dilations: tuple[int, ...]) -> None:
        super().__init__()
        blocks = [ResidualBlock(channels, kernel, dilations) for kernel in kernels]
        self.blocks = nn.ModuleList(blocks)
        self.in_channels = channels
        self.latency = max(block.latency for block in blocks)

    def forward(self, x: Tensor) -> Tensor:
        return sum(block(x) for block in self.blocks) / len(self.blocks)

    def init_state(self, batch_size: int = 1) -> FusionState:
        like, widths = next(self.parameters()), [self.in_channels] * len(self.blocks)
        return FusionState.of(self, batch_size, join=AlignState.empty(like, batch_size, widths))

    def run(self, x: Tensor, state: FusionState, last: bool) -> Tensor:
        branches = zip(self.blocks, state.blocks, strict=True)
        outputs = state.join.push(*(feed(block, x, held, last) for block, held in branches))  # type: ignore[arg-type]
        return sum(outputs) / len(outputs)  # type: ignore[return-value]


@dataclass
class GeneratorState(State):
    """Every layer's state, in order."""

    conv_in: ConvState
    ups: list[ConvTransposeState]
    fusions: list[FusionState]
    conv_out: ConvState


class Generator(Composite):
    """(B, in_dim, T) -> (B, 1, T * hop), hop being the product of the upsampling rates.

    ``lag`` is the look-ahead in output samples, exactly; ``latency`` is it in whole input frames.
    """

    def __init__(
        self,
        in_dim: int,
        channels: int,
        upsample_rates: tuple[int, ...],
        upsample_kernels: tuple[int, ...],
        resblock_kernels: tuple[int, ...],
        resblock_dilations: tuple[int, ...],
    ) -> None:
        super().__init__()
        widths = [channels >> i for i in range(len(upsample_rates) + 1)]
        self.in_channels = in_dim
        self.conv_in = StreamingConv1d(in_dim, channels, kernel=7)
        ups = [
            StreamingConvTranspose1d(widths[i], widths[i + 1], kernel, rate)
            for i, (rate, kernel) in enumerate(zip(upsample_rates, upsample_kernels, strict=True))
        ]
        fusions = [Fusion(width, resblock_kernels, resblock_dilations) for width in widths[1:]]
        self.ups, self.fusions = nn.ModuleList(ups), nn.ModuleList(fusions)
        self.conv_out = StreamingConv1d(widths[-1], 1, kernel=7)

        hop = math.prod(upsample_rates)
        lag, samples_per_frame = self.conv_in.latency * hop, hop
        for up, fusion in zip(ups, fusions, strict=True):
            samples_per_frame //= up.stride[0]
            lag += (up.pad + fusion.latency) * samples_per_frame
        self.lag = lag + self.conv_out.latency
        self.latency = -(-self.lag // hop)
        self.rate = Fraction(hop)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv_in(channels_last(x))
        for up, fusion in zip(self.ups, self.fusions, strict=True):
            x = fusion(up(F.leaky_relu(x, SLOPE)))  # (B, C / 2, T * rate)
        return torch.tanh(self.conv_out(F.leaky_relu(x, LAST_SLOPE)))  # (B, 1, T * hop)

    def init_state(self, batch_size: int = 1) -> GeneratorState:
        return GeneratorState.of(self, batch_size)

    def run(self, x: Tensor, state: GeneratorState, last: bool) -> Tensor:
        x = feed(self.conv_in, x, state.conv_in, last)
        for up, fusion, up_state, fusion_state in zip(self.ups, self.fusions, state.ups, state.fusions, strict=True):
            x = feed(up, F.leaky_relu(x, SLOPE), up_state, last)  # type: ignore[arg-type]
            x = feed(fusion, x, fusion_state, last)  # type: ignore[arg-type]
        return torch.tanh(feed(self.conv_out, F.leaky_relu(x, LAST_SLOPE), state.conv_out, last))
