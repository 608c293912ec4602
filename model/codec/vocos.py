"""The Vocos decoder of WavTokenizer: embeddings -> waveform, by attention, ConvNeXt blocks and an inverse STFT.

Embeddings (B, D_in, T) at sample_rate / hop Hz in, samples (B, T * hop) out. As published every frame sees every other
(attention, and group norms over all of time), so that it can only be run whole. ``causal`` makes convolutions look
backwards and norms look at one frame alone, and attention sees its own chunk of frames and ``left_context`` before it:
then it streams exactly, with chunk - 1 frames and half of the transform's overlap to wait for.

Source: Siuzdak 2023, "Vocos" (arXiv 2306.00814), section 3; the attention: Ji et al. 2024, "WavTokenizer" (arXiv
2408.16532), section 3.3; ConvNeXt blocks: Liu et al. (arXiv 2201.03545).
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..audio_encoder.whisper import attend
from ..errors import DuologueError
from ..layers.conv import ConvState, StreamingConv1d, channels_last
from ..layers.istft import ISTFT, ISTFTState
from ..streaming import State, Streaming

LOUDEST = 1e2  # no magnitude of a spectrum exceeds it
NORM_EPS = 1e-6
BLOCK = 256  # frames, at least, that attention of a whole signal looks at together, so that its cost grows linearly


@dataclass(frozen=True, kw_only=True)
class VocosConfig:
    """Sizes (WavTokenizer's by default), and what makes it a stream."""

    in_dim: int = 512
    dim: int = 768
    ffn_dim: int = 2304
    layers: int = 12  # ConvNeXt blocks
    kernel: int = 7
    residual_blocks: int = 2  # before the attention, and as many behind it
    groups: int = 32  # of channels that are normalised together around the attention
    n_fft: int = 1280  # samples of a transform
    hop: int = 320  # samples a frame
    causal: bool = False
    chunk: int | None = None  # frames that see each other; None: all (WavTokenizer's own)
    left_context: int = 0  # frames before its chunk that a frame sees; a multiple of the chunk

    def __post_init__(self) -> None:
        if self.dim % self.groups:
            raise DuologueError(f"decoder width {self.dim} is not a multiple of its {self.groups} groups")
        if self.causal != (self.chunk is not None):
            raise DuologueError("a decoder is causal with a chunk, or not causal without one")
        if self.chunk is not None and (self.chunk < 1 or self.left_context < 0 or self.left_context % self.chunk):
            raise DuologueError(
                f"decoder left_context is {self.left_context}; it must be a multiple of the chunk ({self.chunk})"
            )


class GroupNorm(nn.GroupNorm):
    """Over groups of channels of (B, C, T), and over all of time unless ``causal``: then of each frame alone."""

    def __init__(self, groups: int, channels: int, causal: bool) -> None:
        super().__init__(groups, channels, eps=NORM_EPS)
        self.causal = causal

    def forward(self, x: Tensor) -> Tensor:
        if not self.causal:
            return super().forward(x)
        frames = x.transpose(1, 2)  # (B, T, C)
        grouped = frames.unflatten(-1, (self.num_groups, -1)).float()
        grouped = F.layer_norm(grouped, grouped.shape[-1:], eps=self.eps).flatten(2)
        return (grouped * self.weight + self.bias).to(x.dtype).transpose(1, 2)


@dataclass
class VocosResidualBlockState(State):
    conv1: ConvState
    conv2: ConvState


class VocosResidualBlock(nn.Module):
    """Two times norm, swish, convolution, beside the identity. (B, C, T) both ways."""

    def __init__(self, c: VocosConfig) -> None:
        super().__init__()
        self.norm1 = GroupNorm(c.groups, c.dim, c.causal)
        self.conv1 = StreamingConv1d(c.dim, c.dim, 3, causal=c.causal)
        self.norm2 = GroupNorm(c.groups, c.dim, c.causal)
        self.conv2 = StreamingConv1d(c.dim, c.dim, 3, causal=c.causal)

    def init_state(self, batch_size: int) -> VocosResidualBlockState:
        return VocosResidualBlockState.of(self, batch_size)

    def forward(self, x: Tensor, state: VocosResidualBlockState | None = None) -> Tensor:
        y = F.silu(self.norm1(x))
        y = self.conv1(y) if state is None else self.conv1.step(y, state.conv1)
        y = F.silu(self.norm2(y))
        return x + (self.conv2(y) if state is None else self.conv2.step(y, state.conv2))


@dataclass
class FrameAttentionState(State):
    """Keys and values of the left context: (B, at most left_context, C) each."""

    key: Tensor
    value: Tensor


class FrameAttention(nn.Module):
    """Self-attention with one head, no positions, beside the identity. (B, C, T) both ways."""

    def __init__(self, c: VocosConfig) -> None:
        super().__init__()
        self.chunk, self.left_context = c.chunk, c.left_context
        self.norm = GroupNorm(c.groups, c.dim, c.causal)
        self.query, self.key, self.value, self.out = (nn.Linear(c.dim, c.dim) for _ in range(4))

    def init_state(self, batch_size: int) -> FrameAttentionState:
        empty = self.key.weight.new_zeros(batch_size, 0, self.key.weight.shape[0])
        return FrameAttentionState(key=empty, value=empty.clone())

    def forward(self, x: Tensor, state: FrameAttentionState | None = None) -> Tensor:
        """With chunks, ``x`` starts on a chunk's edge, also one of the stream whose state is given."""
        y = self.norm(x).transpose(1, 2)  # (B, T, C)
        query, key, value = self.query(y), self.key(y), self.value(y)
        before = 0
        if state is not None:
            before = state.key.shape[1]
            key, value = torch.cat([state.key, key], dim=1), torch.cat([state.value, value], dim=1)
            drop = max(0, key.shape[1] - self.left_context)
            state.key, state.value = key[:, drop:].clone(), value[:, drop:].clone()
        mixed = self._attend(query, key, value, before)
        return x + self.out(mixed).transpose(1, 2)

    def _attend(self, query: Tensor, key: Tensor, value: Tensor, before: int) -> Tensor:
        """Queries (B, T, C) over keys and values (B, before + T, C), chunk by chunk where there are chunks."""
        if self.chunk is None:
            return attend(query[:, None], key[:, None], value[:, None], None)[:, 0]
        frames, size = query.shape[1], -(-max(BLOCK, self.left_context) // self.chunk) * self.chunk
        mixed = []
        for begin in range(0, frames, size):
            end = min(begin + size, frames)
            first = max(0, before + begin - self.left_context)
            start = torch.arange(begin, end, device=query.device) // self.chunk * self.chunk + before
            at = torch.arange(first, before + end, device=query.device)  # the keys'
            mask = (at < start[:, None] + self.chunk) & (at >= start[:, None] - self.left_context)
            seen = slice(first, before + end)
            mixed.append(attend(query[:, None, begin:end], key[:, None, seen], value[:, None, seen], mask)[:, 0])
        return torch.cat(mixed, dim=1) if mixed else query


class ConvNeXtBlock(nn.Module):
    """Depthwise convolution, norm and a wide middle, scaled, beside the identity. (B, C, T) both ways."""

    def __init__(self, dim: int, ffn_dim: int, kernel: int, causal: bool, scale: float) -> None:
        super().__init__()
        self.dwconv = StreamingConv1d(dim, dim, kernel, groups=dim, causal=causal)
        self.norm = nn.LayerNorm(dim, eps=NORM_EPS)
        self.pwconv1 = nn.Linear(dim, ffn_dim)
        self.pwconv2 = nn.Linear(ffn_dim, dim)
        self.gamma = nn.Parameter(torch.full((dim,), scale))

    def init_state(self, batch_size: int) -> ConvState:
        return self.dwconv.init_state(batch_size)

    def forward(self, x: Tensor, state: ConvState | None = None) -> Tensor:
        y = self.dwconv(x) if state is None else self.dwconv.step(x, state)
        y = self.pwconv2(F.gelu(self.pwconv1(self.norm(y.transpose(1, 2)))))  # (B, T, C)
        return x + (self.gamma * y).transpose(1, 2)


@dataclass
class VocosState(State):
    """What the causal layers still need, frames of a chunk not yet whole, and the transform's overlap."""

    pending: Tensor  # (B, D_in, < chunk)
    embed: ConvState
    blocks: list[VocosResidualBlockState]
    attention: FrameAttentionState
    layers: list[ConvState]
    istft: ISTFTState


class VocosDecoder(Streaming):
    """(B, D_in, T) -> (B, T * hop)."""

    def __init__(self, config: VocosConfig) -> None:
        super().__init__()
        c = self.config = config
        self.embed = StreamingConv1d(c.in_dim, c.dim, c.kernel, causal=c.causal)
        self.blocks = nn.ModuleList(VocosResidualBlock(c) for _ in range(2 * c.residual_blocks))
        self.attention = FrameAttention(c)
        self.norm_in = GroupNorm(c.groups, c.dim, c.causal)
        self.norm = nn.LayerNorm(c.dim, eps=NORM_EPS)
        self.layers = nn.ModuleList(
            ConvNeXtBlock(c.dim, c.ffn_dim, c.kernel, c.causal, 1 / c.layers) for _ in range(c.layers)
        )
        self.norm_out = nn.LayerNorm(c.dim, eps=NORM_EPS)
        self.head = nn.Linear(c.dim, c.n_fft + 2)
        self.istft = ISTFT(c.n_fft, c.hop)
        for module in self.modules():
            if isinstance(module, (nn.Linear, nn.Conv1d)):
                nn.init.trunc_normal_(module.weight, std=0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        self.rate = Fraction(c.hop)
        self.exact = c.causal
        self.latency = (c.chunk or 1) - 1 + self.istft.latency

    def features(self, x: Tensor, state: VocosState | None = None) -> Tensor:
        """(B, D_in, T) -> what the spectrum is read from, (B, T, D)."""
        x = self.embed(channels_last(x)) if state is None else self.embed.step(x, state.embed)  # (B, D, T)
        half = self.config.residual_blocks
        for i, block in enumerate(self.blocks):
            if i == half:
                x = self._attention(x, state)
            x = block(x, None if state is None else state.blocks[i])
        if not self.blocks:
            x = self._attention(x, state)
        x = self.norm(self.norm_in(x).transpose(1, 2)).transpose(1, 2)
        for i, layer in enumerate(self.layers):
            x = layer(x, None if state is None else state.layers[i])
        return self.norm_out(x.transpose(1, 2))  # (B, T, D)

    def _attention(self, x: Tensor, state: VocosState | None) -> Tensor:
        return self.attention(x, None if state is None else state.attention)

    def spectrum(self, features: Tensor) -> Tensor:
        """(B, T, D) -> complex (B, n_fft / 2 + 1, T); computed in float32."""
        log_magnitude, phase = self.head(features).float().transpose(1, 2).chunk(2, dim=1)
        magnitude = log_magnitude.exp().clamp(max=LOUDEST)
        return torch.complex(magnitude * phase.cos(), magnitude * phase.sin())

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[-1] == 0:
            return self.istft(self.spectrum(x.new_zeros(x.shape[0], 0, self.config.dim)))
        return self.istft(self.spectrum(self.features(x)))  # (B, n)

    def init_state(self, batch_size: int = 1) -> VocosState:
        c = self.config
        if c.chunk is None:
            raise DuologueError("this decoder sees the whole signal at once and cannot be streamed but in windows")
        return VocosState.of(self, batch_size, pending=self.head.weight.new_zeros(batch_size, c.in_dim, 0))

    def step(self, x: Tensor, state: VocosState) -> Tensor:
        assert self.config.chunk is not None
        x = torch.cat([state.pending, x], dim=-1)
        whole = x.shape[-1] // self.config.chunk * self.config.chunk
        state.pending = x[..., whole:].clone()
        return self._decode(x[..., :whole], state)

    def flush(self, state: VocosState) -> Tensor:
        x, state.pending = state.pending, state.pending[..., :0]
        return torch.cat([self._decode(x, state), self.istft.flush(state.istft)], dim=-1)

    def _decode(self, x: Tensor, state: VocosState) -> Tensor:
        """(B, D_in, T) that starts on the chunk grid -> the samples that are complete."""
        if x.shape[-1] == 0:
            return x.new_zeros(x.shape[0], 0)
        return self.istft.step(self.spectrum(self.features(x, state)), state.istft)
