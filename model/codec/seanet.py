"""The SEANet encoder and decoder of EnCodec and WavTokenizer: waveform <-> embeddings, by strided convolutions.

Encoder: samples (B, 1, n) -> embeddings (B, D, ceil(n / hop)), hop the product of the ratios. Decoder: (B, D, T) ->
samples (B, 1, T * hop). Both are streamed exactly, causal or not; not causal, they look a few frames ahead.

Source: Tagliasacchi et al. 2020, "SEANet" (arXiv 2009.02095), section 2.2; as in Défossez et al. 2022, "EnCodec"
(arXiv 2210.13438), section 3.1.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import DuologueError
from ..layers.conv import AlignState, channels_last, feed
from ..layers.framed_conv import FramedConv1d, FramedConvState, FramedConvTranspose1d, LSTMState, ResidualLSTM
from ..streaming import Composite, State


@dataclass(frozen=True, kw_only=True)
class SEANetConfig:
    """Sizes; the decoder mirrors the encoder."""

    dim: int = 512  # D, of the embeddings
    filters: int = 32  # channels at the sample rate; doubled by every strided convolution
    ratios: tuple[int, ...] = (2, 4, 5, 8)  # strides, the encoder's first layer first
    kernel: int = 7  # of the first and the last convolution
    residual_kernel: int = 3
    compress: int = 2  # a residual unit is so many times narrower inside
    conv_shortcut: bool = True  # a 1x1 convolution beside a residual unit, else the identity
    lstm_layers: int = 2
    causal: bool = False
    reflect: bool = True  # pad with the signal's reflection, else with zeros

    def __post_init__(self) -> None:
        for name in ("dim", "filters", "kernel", "residual_kernel", "compress"):
            if getattr(self, name) < 1:
                raise DuologueError(f"codec {name} must be at least 1, got {getattr(self, name)}")
        if not self.ratios or min(self.ratios) < 1 or self.lstm_layers < 0:
            raise DuologueError(
                f"codec ratios must be at least 1 each and lstm_layers at least 0, got {self.ratios} and "
                f"{self.lstm_layers}"
            )
        if self.filters < self.compress:
            raise DuologueError(f"codec filters ({self.filters}) must be at least compress ({self.compress})")

    @property
    def hop(self) -> int:
        """Samples an embedding."""
        return math.prod(self.ratios)


@dataclass
class ResidualUnitState(State):
    conv1: FramedConvState
    conv2: FramedConvState
    shortcut: FramedConvState | None
    join: AlignState


class ResidualUnit(Composite):
    """Two convolutions around a narrow middle, beside a shortcut. (B, C, T) both ways."""

    def __init__(self, channels: int, c: SEANetConfig) -> None:
        super().__init__()
        self.in_channels = channels
        inside = channels // c.compress
        self.conv1 = FramedConv1d(channels, inside, c.residual_kernel, causal=c.causal, reflect=c.reflect)
        self.conv2 = FramedConv1d(inside, channels, 1, causal=c.causal, reflect=c.reflect)
        self.shortcut = FramedConv1d(channels, channels, 1, reflect=c.reflect) if c.conv_shortcut else None
        self.latency = self.conv1.latency

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv2(F.elu(self.conv1(F.elu(x))))
        return y + (x if self.shortcut is None else self.shortcut(x))

    def init_state(self, batch_size: int = 1) -> ResidualUnitState:
        join = AlignState.empty(self.conv1.weight, batch_size, [self.in_channels] * 2)
        return ResidualUnitState.of(self, batch_size, join=join)

    def run(self, x: Tensor, state: ResidualUnitState, last: bool) -> Tensor:
        y = feed(self.conv1, F.elu(x), state.conv1, last)
        y = feed(self.conv2, F.elu(y), state.conv2, last)
        if self.shortcut is not None and state.shortcut is not None:
            x = feed(self.shortcut, x, state.shortcut, last)
        x, y = state.join.push(x, y)
        return y + x


@dataclass
class SEANetState(State):
    """Encoder or decoder: the states of its layers, in the order of the signal's way."""

    conv_in: FramedConvState
    resamplers: list[Any]  # strided convolutions, or transposed ones
    units: list[ResidualUnitState]
    lstm: LSTMState | None
    conv_out: FramedConvState


class _SEANet(Composite):
    """What encoder and decoder share."""

    conv_in: FramedConv1d
    resamplers: nn.ModuleList
    units: nn.ModuleList
    lstm: ResidualLSTM | None
    conv_out: FramedConv1d

    def init_state(self, batch_size: int = 1) -> SEANetState:
        return SEANetState.of(self, batch_size)

    def _recall(self, x: Tensor, state: SEANetState | None) -> Tensor:
        """The LSTM, if there is one."""
        if self.lstm is None:
            return x
        if state is None:
            return self.lstm(x)
        assert state.lstm is not None
        return self.lstm.step(x, state.lstm)


class SEANetEncoder(_SEANet):
    """Samples (B, 1, n) -> embeddings (B, D, ceil(n / hop))."""

    def __init__(self, config: SEANetConfig) -> None:
        super().__init__()
        c = self.config = config
        self.in_channels = 1
        self.conv_in = FramedConv1d(1, c.filters, c.kernel, causal=c.causal, reflect=c.reflect)
        widths = [c.filters * 2**i for i in range(len(c.ratios) + 1)]
        units = [ResidualUnit(width, c) for width in widths[:-1]]
        strided = [
            FramedConv1d(width, 2 * width, 2 * ratio, ratio, c.causal, c.reflect)
            for width, ratio in zip(widths, c.ratios, strict=False)
        ]
        self.units, self.resamplers = nn.ModuleList(units), nn.ModuleList(strided)
        self.lstm = ResidualLSTM(widths[-1], c.lstm_layers) if c.lstm_layers else None
        self.conv_out = FramedConv1d(widths[-1], c.dim, c.kernel, causal=c.causal, reflect=c.reflect)
        self.rate = Fraction(1, c.hop)
        # Samples that the deepest look-ahead reaches, and the rest of a frame that is not whole.
        self.latency = self.conv_in.latency + sum(
            _later(c.ratios[:i], unit.latency + conv.latency)
            for i, (unit, conv) in enumerate(zip(units, strided, strict=True))
        )
        self.latency += _later(c.ratios, self.conv_out.latency) + c.hop - 1

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv_in(channels_last(x))  # (B, C, n)
        for unit, strided in zip(self.units, self.resamplers, strict=True):
            x = strided(F.elu(unit(x)))  # (B, 2 C, ceil(n / ratio))
        return self.conv_out(F.elu(self._recall(x, None)))  # (B, D, T)

    def run(self, x: Tensor, state: SEANetState, last: bool) -> Tensor:
        x = feed(self.conv_in, x, state.conv_in, last)
        layers = zip(self.units, self.resamplers, state.units, state.resamplers, strict=True)
        for unit, strided, unit_state, strided_state in layers:
            x = unit.run(x, unit_state, last)  # type: ignore[operator]
            x = feed(strided, F.elu(x), strided_state, last)  # type: ignore[arg-type]
        return feed(self.conv_out, F.elu(self._recall(x, state)), state.conv_out, last)


class SEANetDecoder(_SEANet):
    """Embeddings (B, D, T) -> samples (B, 1, T * hop): the encoder's mirror image, as EnCodec decodes."""

    def __init__(self, config: SEANetConfig) -> None:
        super().__init__()
        c = self.config = config
        ratios = c.ratios[::-1]
        widths = [c.filters * 2 ** (len(ratios) - i) for i in range(len(ratios) + 1)]
        self.in_channels = c.dim
        self.conv_in = FramedConv1d(c.dim, widths[0], c.kernel, causal=c.causal, reflect=c.reflect)
        self.lstm = ResidualLSTM(widths[0], c.lstm_layers) if c.lstm_layers else None
        widened = [
            FramedConvTranspose1d(width, width // 2, 2 * ratio, ratio, c.causal)
            for width, ratio in zip(widths, ratios, strict=False)
        ]
        units = [ResidualUnit(width, c) for width in widths[1:]]
        self.units, self.resamplers = nn.ModuleList(units), nn.ModuleList(widened)
        self.conv_out = FramedConv1d(widths[-1], 1, c.kernel, causal=c.causal, reflect=c.reflect)
        self.rate = Fraction(c.hop)
        lag = Fraction(self.conv_in.latency)  # in frames
        for i, (up, unit) in enumerate(zip(widened, units, strict=True)):
            lag += Fraction(up.pad + unit.latency, _later(ratios[: i + 1], 1))
        lag += Fraction(self.conv_out.latency, c.hop)
        self.latency = math.ceil(lag)

    def forward(self, x: Tensor) -> Tensor:
        x = self._recall(self.conv_in(channels_last(x)), None)  # (B, C, T)
        for up, unit in zip(self.resamplers, self.units, strict=True):
            x = unit(up(F.elu(x)))  # (B, C / 2, T * ratio)
        return self.conv_out(F.elu(x))  # (B, 1, n)

    def run(self, x: Tensor, state: SEANetState, last: bool) -> Tensor:
        x = self._recall(feed(self.conv_in, x, state.conv_in, last), state)
        layers = zip(self.resamplers, self.units, state.resamplers, state.units, strict=True)
        for up, unit, up_state, unit_state in layers:
            x = feed(up, F.elu(x), up_state, last)  # type: ignore[arg-type]
            x = unit.run(x, unit_state, last)  # type: ignore[operator]
        return feed(self.conv_out, F.elu(x), state.conv_out, last)


def _later(ratios: Sequence[int], frames: int) -> int:
    """Frames after strides of ``ratios``, in frames before them."""
    return frames * math.prod(ratios)
