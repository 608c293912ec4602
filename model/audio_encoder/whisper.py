"""Whisper encoder, whole or in chunks. Log-mel (B, M, T) at 100 Hz in, (B, T', D) at 50 Hz out.

With ``chunk=None`` it is openai-whisper's encoder, parameter for parameter: every frame sees every other. With a chunk
(nano: 8 frames, 160 ms) a frame sees its own chunk and at most ``left_context`` frames before that chunk, so that
keys and values can be kept and nothing is ever computed twice. The chunk grid is absolute within a speech segment.

Source: Radford et al. (arXiv 2212.04356), section 2.2. Chunk-wise masks: Zhang et al., "Unified Streaming and
Non-streaming Two-pass End-to-end Model" (arXiv 2012.05481), section 3.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import DuologueError
from ..layers.conv import ConvState, StreamingConv1d
from ..layers.kv_cache import KVBuffer
from ..streaming import State
from .encoder import Encoder


@dataclass(frozen=True, kw_only=True)
class WhisperEncoderConfig:
    """Sizes by openai-whisper's names, and what makes it a stream."""

    n_mels: int = 80
    n_audio_ctx: int = 1500  # positions that training covered
    n_audio_state: int = 384  # D
    n_audio_head: int = 6
    n_audio_layer: int = 4
    chunk: int | None = None  # frames at 50 Hz that see each other; None: all (Whisper's own)
    left_context: int = 500  # frames before its chunk that a frame sees; a multiple of the chunk
    causal_conv: bool = False  # True: the two convolutions look only backwards

    @property
    def width(self) -> int:
        """D."""
        return self.n_audio_state

    @property
    def heads(self) -> int:
        """Of its attention."""
        return self.n_audio_head

    @property
    def positions(self) -> int:
        """Frames that training covered."""
        return self.n_audio_ctx

    def build(self) -> WhisperEncoder:
        """The encoder of these sizes, untrained."""
        return WhisperEncoder(self)

    def __post_init__(self) -> None:
        if self.n_audio_state % self.n_audio_head:
            raise DuologueError(
                f"encoder width {self.n_audio_state} is not a multiple of its {self.n_audio_head} heads"
            )
        if self.chunk is not None and (self.chunk < 1 or self.left_context % self.chunk):
            raise DuologueError(
                f"encoder left_context is {self.left_context}; it must be a multiple of the chunk ({self.chunk})"
            )


def sinusoids(positions: Tensor, dim: int) -> Tensor:
    """Whisper's position embedding: (T,) positions -> (T, D), sines before cosines."""
    step = math.log(10000.0) / (dim // 2 - 1)
    scales = torch.exp(-step * torch.arange(dim // 2, device=positions.device, dtype=torch.float32))
    angles = positions.float()[..., None] * scales  # (..., T, D / 2)
    return torch.cat([angles.sin(), angles.cos()], dim=-1)


def attend(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
    """Attention over (B, H, T, d). Training on a CPU writes it out: torch's fused kernel is 2 to 3 times slower."""
    if query.device.type != "cpu" or not query.requires_grad:
        return F.scaled_dot_product_attention(query, key, value, attn_mask=mask)
    scores = query * query.shape[-1] ** -0.5 @ key.transpose(-1, -2)  # (B, H, T, S)
    if mask is not None:
        scores = scores.masked_fill(~mask, -torch.inf)
    return scores.softmax(-1).to(value.dtype) @ value


class Attention(nn.Module):
    """Multi-head self-attention with openai-whisper's parameter names."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(dim, dim)
        self.key = nn.Linear(dim, dim, bias=False)
        self.value = nn.Linear(dim, dim)
        self.out = nn.Linear(dim, dim)

    def forward(self, x: Tensor, mask: Any, buffer: KVBuffer | None = None) -> Tensor:
        """(B, T, D) -> (B, T, D); with a buffer of what came before, attends to that too."""
        query, key, value = (
            layer(x).unflatten(-1, (self.heads, -1)).transpose(1, 2)  # (B, H, T, D / H)
            for layer in (self.query, self.key, self.value)
        )
        if buffer is None:
            mixed = attend(query, key, value, mask)
        else:
            mixed = buffer.attend(query, key, value, mask)
        return self.out(mixed.transpose(1, 2).flatten(2))  # (B, T, D)


class Block(nn.Module):
    """Pre-norm transformer block."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.attn = Attention(dim, heads)
        self.attn_ln = nn.LayerNorm(dim)
        self.mlp = nn.Sequential(nn.Linear(dim, 4 * dim), nn.GELU(), nn.Linear(4 * dim, dim))
        self.mlp_ln = nn.LayerNorm(dim)

    def forward(self, x: Tensor, mask: Any, buffer: KVBuffer | None = None) -> Tensor:
        x = x + self.attn(self.attn_ln(x), mask, buffer)
        return x + self.mlp(self.mlp_ln(x))


@dataclass
class WhisperEncoderState(State):
    """The convolutions' states, frames of a chunk not yet whole, each layer's keys and values of the left context."""

    conv1: ConvState
    conv2: ConvState
    pending: Tensor  # (B, < chunk, D)
    layers: list[KVBuffer]


class WhisperEncoder(Encoder):
    """(B, M, T) -> (B, ceil(T / 2), D)."""

    config: WhisperEncoderConfig

    def __init__(self, config: WhisperEncoderConfig) -> None:
        super().__init__()
        c = self.config = config
        self.conv1 = StreamingConv1d(c.n_mels, c.n_audio_state, 3, causal=c.causal_conv)
        self.conv2 = StreamingConv1d(c.n_audio_state, c.n_audio_state, 3, stride=2, causal=c.causal_conv)
        self.blocks = nn.ModuleList(Block(c.n_audio_state, c.n_audio_head) for _ in range(c.n_audio_layer))
        self.ln_post = nn.LayerNorm(c.n_audio_state)
        for conv, gain in ((self.conv1, 1.0), (self.conv2, 4.0)):
            # Frames must not start out drowned by the position embedding, whose entries are as large as 1.
            nn.init.kaiming_normal_(conv.weight, nonlinearity="relu")
            conv.weight.data.mul_(gain)
        self.exact = c.chunk is not None
        if c.chunk is not None:
            # The last frame of a chunk lets the whole chunk out; symmetrical convolutions wait for 1 + 1 more frames.
            self.latency = 2 * c.chunk - 1 + (0 if c.causal_conv else 2)

    def forward(
        self, mel: Tensor, lengths: Tensor | None = None, offsets: Tensor | None = None, layer: int | None = None
    ) -> Tensor:
        """Encode whole clips.

        Args:
            mel: (B, M, T) at 100 Hz.
            lengths: (B,) mel frames of each clip; frames after them are not attended to. ``None``: all are real.
            offsets: (B,) first position of each clip, in 50 Hz frames (trained at random, so that a segment may
                start anywhere). ``None``: 0.
            layer: return the output of this many blocks, without the final norm. ``None``: all of it.

        Returns:
            (B, ceil(T / 2), D) at 50 Hz.
        """
        x = F.gelu(self.conv1(mel.to(self.conv1.weight.dtype)))
        x = F.gelu(self.conv2(x)).transpose(1, 2)  # (B, T', D)
        positions = torch.arange(x.shape[1], device=x.device)
        if offsets is not None:
            positions = positions + offsets[:, None]  # (B, T')
        x = x + sinusoids(positions, x.shape[2]).to(x.dtype)
        mask = self._mask(x.shape[1], 0, x.device)
        if lengths is not None:
            real = torch.arange(x.shape[1], device=x.device) < (lengths[:, None] + 1) // 2  # (B, T')
            # A padded frame attends to something all the same: a row without any key would be NaN.
            real = real[:, None, None, :] | ~real[:, None, :, None]  # (B, 1, T', T')
            mask = real if mask is None else mask & real
        blocks = self.blocks if layer is None else self.blocks[:layer]
        for block in blocks:
            x = block(x, mask)
        return self.ln_post(x) if layer is None else x

    def _mask(self, frames: int, cached: int, device: torch.device) -> Tensor | None:
        """(T', cached + T') True where a frame may look; the first new frame starts a chunk. None: everywhere."""
        chunk = self.config.chunk
        if chunk is None or (frames <= chunk and cached <= self.config.left_context):
            return None
        start = torch.arange(frames, device=device) // chunk * chunk  # (T',) where each frame's chunk begins
        key = torch.arange(-cached, frames, device=device)  # (cached + T',)
        return (key < start[:, None] + chunk) & (key >= start[:, None] - self.config.left_context)

    def init_state(self, batch_size: int = 1) -> WhisperEncoderState:
        c = self.config
        if c.chunk is None:
            raise DuologueError(
                "an encoder without chunks sees the whole clip at once and cannot be streamed; "
                "set its chunk (8 frames = 160 ms)"
            )
        pending = self.conv1.weight.new_zeros(batch_size, 0, c.n_audio_state)
        layers = [KVBuffer(c.left_context) for _ in self.blocks]
        return WhisperEncoderState.of(self, batch_size, pending=pending, layers=layers)

    def step(self, x: Tensor, state: WhisperEncoderState) -> Tensor:
        x = F.gelu(self.conv1.step(x.to(self.conv1.weight.dtype), state.conv1))
        x = F.gelu(self.conv2.step(x, state.conv2))
        assert self.config.chunk is not None
        x = torch.cat([state.pending, x.transpose(1, 2)], dim=1)
        whole = x.shape[1] // self.config.chunk * self.config.chunk
        state.pending = x[:, whole:]
        return self._encode(x[:, :whole], state)

    def flush(self, state: WhisperEncoderState) -> Tensor:
        tail = F.gelu(self.conv1.flush(state.conv1))
        tail = torch.cat([self.conv2.step(tail, state.conv2), self.conv2.flush(state.conv2)], dim=-1)
        x = torch.cat([state.pending, F.gelu(tail).transpose(1, 2)], dim=1)
        state.pending = x[:, x.shape[1] :]
        return self._encode(x, state)

    def _encode(self, x: Tensor, state: WhisperEncoderState) -> Tensor:
        """(B, T', D) that starts on the chunk grid -> (B, T', D), through all blocks."""
        if x.shape[1] == 0:
            return x
        frames, before = x.shape[1], state.layers[0]
        x = x + sinusoids(before.positions(frames, x.device), x.shape[2]).to(x.dtype)
        mask = before.each(lambda row: self._mask(frames, row.kept, x.device))
        for block, buffer in zip(self.blocks, state.layers, strict=True):
            x = block(x, mask, buffer)
        return self.ln_post(x)
