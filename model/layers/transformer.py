"""Llama's decoder layer, streamed: RMSNorm, rotary positions, SwiGLU, causal attention over all frames or over a band.

Parameter names are Llama's, so that foreign weights need only a change of prefix.

Sources: Touvron et al., "LLaMA" (arXiv 2302.13971), section 2.2; rotary positions: Su et al. (arXiv 2104.09864);
their stretching for long contexts: Llama 3.1, as transformers' ``rope_type="llama3"``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..audio_encoder.whisper import attend
from ..errors import DuologueError
from .kv_cache import KVBuffer


@dataclass(frozen=True, kw_only=True)
class RopeScaling:
    """How Llama 3.1 stretches the wave lengths of its positions."""

    factor: float = 8.0
    low_freq_factor: float = 1.0
    high_freq_factor: float = 4.0
    original_max_position: int = 8192


def rotary_frequencies(dim: int, theta: float, scaling: RopeScaling | None) -> Tensor:
    """Radians a position turns, for each pair of a head's channels: (dim / 2,)."""
    frequencies = 1.0 / theta ** (torch.arange(0, dim, 2, dtype=torch.int64).float() / dim)
    if scaling is None:
        return frequencies
    turns = scaling.original_max_position * frequencies / (2 * math.pi)  # in the original context
    smooth = (turns - scaling.low_freq_factor) / (scaling.high_freq_factor - scaling.low_freq_factor)
    smooth = smooth.clamp(0.0, 1.0)  # 0: stretched in full; 1: left alone
    return (1 - smooth) * frequencies / scaling.factor + smooth * frequencies


def rotary_angles(frequencies: Tensor, positions: Tensor) -> tuple[Tensor, Tensor]:
    """Cosines and sines for positions (T,), or of each row (B, T): (1, T, dim), or (B, 1, T, dim), each."""
    angles = positions.float()[..., None, :, None] * frequencies.float()  # (…, 1, T, dim / 2)
    angles = torch.cat([angles, angles], dim=-1)
    return angles.cos(), angles.sin()


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn (B, H, T, d) by the angles of its positions; channel i is paired with channel i + d / 2."""
    low, high = x.chunk(2, dim=-1)
    return (x * cos + torch.cat([-high, low], dim=-1) * sin).to(x.dtype)


def band_mask(queries: int, keys: int, cell: int, band: int | None, device: torch.device) -> Tensor:
    """(queries, keys) bool; the last query belongs to the last key, and keys begin at a multiple of ``cell``.

    Causal; with a band, a query sees only the keys of its own cell of ``cell`` frames and of the band - 1 cells before.
    """
    past = keys - queries
    mask = torch.ones(queries, keys, dtype=torch.bool, device=device).tril(past)
    if band is not None and keys > band * cell:
        first_cell = torch.arange(past, keys, device=device) // cell - band + 1  # (queries,)
        mask &= torch.arange(keys, device=device) >= first_cell[:, None] * cell
    return mask


def banded_attention(query: Tensor, key: Tensor, value: Tensor, cell: int, band: int) -> Tensor:
    """Attention of whole sequences in time linear in their length: (B, H, T, d) each -> (B, H, T, d).

    Blocks of ``band`` cells of queries look at their own and the preceding block of keys, 2 · band cells for a query.
    """
    batch, _, frames, _ = query.shape
    width = band * cell
    if frames <= width:  # the band is wider than the sequence
        return attend(query, key, value, band_mask(frames, frames, cell, None, query.device))
    blocks = -(-frames // width)
    extra = blocks * width - frames

    def pairs(x: Tensor) -> Tensor:  # each block of keys behind its predecessor; the first behind zeros, masked below
        x = F.pad(x, (0, 0, width, extra)).unflatten(2, (blocks + 1, width))
        x = torch.cat([x[:, :, :-1], x[:, :, 1:]], dim=3)  # (B, H, S, 2 W, d)
        return x.transpose(1, 2).flatten(0, 1)  # (B S, H, 2 W, d)

    query = F.pad(query, (0, 0, 0, extra)).unflatten(2, (blocks, width)).transpose(1, 2).flatten(0, 1)
    mask = band_mask(width, 2 * width, cell, band, query.device).expand(blocks, -1, -1).clone()  # (S, W, 2 W)
    mask[0, :, :width] = False
    mixed = attend(query, pairs(key), pairs(value), mask.repeat(batch, 1, 1)[:, None])
    mixed = mixed.unflatten(0, (batch, blocks)).transpose(1, 2).flatten(2, 3)  # (B, H, S W, d)
    return mixed[:, :, :frames]


class RMSNorm(nn.Module):
    """Scale (…, D) to a root mean square of 1, then by a learnt weight; computed in float32."""

    def __init__(self, dim: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(dim))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        wide = x.float()
        return self.weight * (wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + self.eps)).to(x.dtype)


class DecoderAttention(nn.Module):
    """Causal multi-head attention over all frames or a band of cells, whole or with a buffer of what came before."""

    def __init__(self, dim: int, heads: int, kv_heads: int) -> None:
        super().__init__()
        if dim % heads or heads % kv_heads:
            raise DuologueError(f"width {dim}, heads {heads}, kv_heads {kv_heads}: each must divide the one before")
        self.heads, self.kv_heads, self.head_dim = heads, kv_heads, dim // heads
        self.q_proj = nn.Linear(dim, dim, bias=False)
        self.k_proj = nn.Linear(dim, kv_heads * self.head_dim, bias=False)
        self.v_proj = nn.Linear(dim, kv_heads * self.head_dim, bias=False)
        self.o_proj = nn.Linear(dim, dim, bias=False)

    def forward(
        self,
        x: Tensor,
        angles: tuple[Tensor, Tensor],
        cell: int,
        band: int | None,
        buffer: KVBuffer | None = None,
        mask: Any = None,
    ) -> Tensor:
        """(B, T, D) -> (B, T, D). With a buffer, ``mask`` is as its ``attend`` takes it."""
        batch, frames, _ = x.shape
        query = self.q_proj(x).view(batch, frames, self.heads, self.head_dim).transpose(1, 2)  # (B, H, T, d)
        key = self.k_proj(x).view(batch, frames, self.kv_heads, self.head_dim).transpose(1, 2)
        value = self.v_proj(x).view(batch, frames, self.kv_heads, self.head_dim).transpose(1, 2)
        query, key = rotate(query, *angles), rotate(key, *angles)
        if buffer is not None:
            mixed = buffer.attend(query, key, value, mask)
            return self.o_proj(mixed.transpose(1, 2).flatten(2))  # (B, T, D)
        if self.kv_heads != self.heads:
            key, value = (x.repeat_interleave(self.heads // self.kv_heads, dim=1) for x in (key, value))
        if band is None:
            mixed = F.scaled_dot_product_attention(query, key, value, is_causal=True)
        else:
            mixed = banded_attention(query, key, value, cell, band)
        return self.o_proj(mixed.transpose(1, 2).flatten(2))  # (B, T, D)


class SwiGLU(nn.Module):
    """Gated feed-forward: (…, D) -> (…, D)."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(dim, hidden, bias=False)
        self.up_proj = nn.Linear(dim, hidden, bias=False)
        self.down_proj = nn.Linear(hidden, dim, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


class DecoderLayer(nn.Module):
    """Llama's pre-norm layer: (B, T, D) -> (B, T, D)."""

    def __init__(self, dim: int, heads: int, kv_heads: int, ffn_dim: int, norm_eps: float) -> None:
        super().__init__()
        self.input_layernorm = RMSNorm(dim, norm_eps)
        self.self_attn = DecoderAttention(dim, heads, kv_heads)
        self.post_attention_layernorm = RMSNorm(dim, norm_eps)
        self.mlp = SwiGLU(dim, ffn_dim)

    def forward(
        self,
        x: Tensor,
        angles: tuple[Tensor, Tensor],
        cell: int,
        band: int | None,
        buffer: KVBuffer | None = None,
        mask: Any = None,
    ) -> Tensor:
        x = x + self.self_attn(self.input_layernorm(x), angles, cell, band, buffer, mask)
        return x + self.mlp(self.post_attention_layernorm(x))
