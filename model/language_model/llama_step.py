"""A step of a Llama-like model of transformers by its own layers, without what its modules do beside the arithmetic.

Masks, caches and attention are looked up anew for every layer of every step there, which takes a small model a third of
a step's time. Conversations that share a step attend each to its own keys, and none are padded.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..layers.kv_cache import KVBuffer
from ..layers.transformer import rotate

_FAMILIES = ("LlamaModel", "Qwen2Model")  # pre-norm, rotary positions, all frames attended to


def takes(base: Any, embeds: Tensor) -> bool:
    """Whether :func:`step` says what the base model says: a family whose layers it knows, and all in one place."""
    if type(base).__name__ not in _FAMILIES or embeds.dtype is not torch.float32:
        return False
    kinds = getattr(base.config, "layer_types", None) or ("full_attention",)
    if set(kinds) != {"full_attention"}:
        return False
    # Hooks bring a layer what is elsewhere; accelerate's take the place of its forward.
    hooks = ("_forward_pre_hooks", "_forward_hooks", "_hf_hook")
    return not any(getattr(layer, name, None) for layer in base.layers for name in hooks)


def step(base: Any, embeds: Tensor, buffers: list[Any]) -> Tensor:
    """Feed embeddings (B, t, D) behind what the layers' buffers hold; return their last-layer states (B, t, D).

    buffers: of each layer one of layers/kv_cache.py, :class:`KVBuffer` or for rows of different lengths ``KVRows``.
    """
    batch, frames, _ = embeds.shape
    positions = buffers[0].positions(frames, embeds.device)
    cos, sin = base.rotary_emb(embeds, positions if positions.ndim == 2 else positions[None])  # (B or 1, t, d)
    cos, sin = cos[:, None], sin[:, None]
    masks = buffers[0].each(lambda buffer: _mask(buffer, embeds))
    x = embeds
    for layer, buffer in zip(base.layers, buffers, strict=True):
        attention, y = layer.self_attn, layer.input_layernorm(x)
        query, key, value = (
            projection(y).view(batch, frames, -1, attention.head_dim).transpose(1, 2)  # (B, H, t, d)
            for projection in (attention.q_proj, attention.k_proj, attention.v_proj)
        )
        mixed = buffer.attend(rotate(query, cos, sin), rotate(key, cos, sin), value, masks)
        x = x + attention.o_proj(mixed.transpose(1, 2).flatten(2))
        x = x + layer.mlp(layer.post_attention_layernorm(x))
    states: Tensor = base.norm(x)
    return states


def _mask(buffer: KVBuffer, x: Tensor) -> Tensor | None:
    """Who sees whom among the frames that the buffer holds and the new ones; None: all is seen."""
    new = x.shape[1]
    return None if new == 1 else F.pad(x.new_full((new, new), float("-inf")).triu(1), (buffer.kept, 0))
