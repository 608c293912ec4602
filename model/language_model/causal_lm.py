"""Language model: any causal LM of transformers, fed embeddings (B, T, D); logits (B, T, V) and states (B, T, D) out.

Text tokens and speech embeddings enter alike, as embeddings, a chunk at a time while the user speaks and one token at a
time while the model answers. The cache of keys and values is a state: cloned without copying, cut in no time
(:mod:`..layers.kv_cache`). Sliding-window layers keep all frames and mask them, so that any cut is exact.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn

from ..errors import DuologueError
from ..layers.kv_cache import KVBuffer, KVRows
from ..streaming import State
from . import llama_step

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class LLMOutput(NamedTuple):
    """What the model says at each position."""

    logits: Tensor  # (B, T, V)
    hidden: Tensor  # (B, T, D), last layer after the final norm: what the output layer reads


@dataclass
class LLMState(State):
    """The keys and values of everything fed so far, one buffer a layer. All rows of a batch are of one length, unless
    conversations were put together for a step (see :mod:`..layers.batching`)."""

    layers: list[KVBuffer]

    @property
    def length(self) -> int:
        """Positions fed so far."""
        return self.layers[0].length

    def truncate(self, length: int) -> None:
        """Forget everything after the first ``length`` positions, as if it had never been fed. O(1)."""
        for layer in self.layers:
            layer.truncate(length)


class LLM(nn.Module):
    """A causal language model from a plain config, e.g. ``{"model_type": "llama", "hidden_size": 256, …}``.

    Raises:
        DuologueError: no or unknown ``model_type``, fields that transformers refuses, or a family whose layers keep
            other states than keys and values.
    """

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__()
        from transformers import AutoConfig, AutoModelForCausalLM

        fields = dict(config)
        kind = fields.pop("model_type", None)
        if not isinstance(kind, str):
            raise DuologueError(
                f"llm config has model_type {kind!r}; it must name a family of transformers, e.g. 'llama'"
            )
        try:
            hf_config = AutoConfig.for_model(kind, **fields)
            self.lm: PreTrainedModel = AutoModelForCausalLM.from_config(hf_config, dtype=torch.float32)
        except Exception as error:  # many kinds, some of several lines
            reason = " ".join(str(error).split())
            raise DuologueError(f"llm config of family {kind!r} is not accepted by transformers: {reason}") from None
        settings = hf_config.to_dict()
        others = set(settings.get("layer_types") or ()) - {"full_attention", "sliding_attention"}
        if others:
            raise DuologueError(
                f"llm family {kind!r} has layers of type {sorted(others)}; they must be attention layers"
            )
        # What some families do to the logits behind the output layer (Cohere; Granite; Gemma 2).
        self.logit_scale = (settings.get("logit_scale") or 1.0) / (settings.get("logits_scaling") or 1.0)
        self.logit_cap: float | None = settings.get("final_logit_softcapping")
        self.hidden_size: int = hf_config.hidden_size
        self.vocab_size: int = hf_config.vocab_size
        self.layers: int = hf_config.num_hidden_layers
        # Positions that it was made for; None: it does not say.
        self.context: int | None = getattr(hf_config, "max_position_embeddings", None)
        self._inside: torch.dtype | None = None  # see compute_in
        self._outside: torch.dtype | None = None

    def compute_in(self, dtype: torch.dtype) -> None:
        """Convert the weights and compute in ``dtype``. What is given to others, embeddings, states and logits, keeps
        the dtype that it had, so that they need not know."""
        self._inside, self._outside = dtype, next(self.lm.parameters()).dtype
        self.lm.to(dtype)

    def embed(self, ids: Tensor) -> Tensor:
        """Token ids (…) -> embeddings (…, D)."""
        return _as(self.lm.get_input_embeddings()(ids), self._outside)

    def head(self, hidden: Tensor) -> Tensor:
        """Last-layer states (…, D) -> logits (…, V)."""
        logits = _as(self.lm.get_output_embeddings()(_as(hidden, self._inside)), self._outside)
        if self.logit_scale != 1:
            logits = logits * self.logit_scale
        return logits if self.logit_cap is None else torch.tanh(logits / self.logit_cap) * self.logit_cap

    def forward(
        self, embeds: Tensor, attention_mask: Tensor | None = None, segments: Tensor | None = None
    ) -> LLMOutput:
        """Whole sequences (training): :meth:`states` and their logits."""
        hidden = self.states(embeds, attention_mask, segments)
        return LLMOutput(logits=self.head(hidden), hidden=hidden)

    def states(
        self, embeds: Tensor, attention_mask: Tensor | None = None, segments: Tensor | None = None
    ) -> Tensor:
        """Last-layer states (B, T, D) of whole sequences.

        Args:
            embeds: (B, T, D).
            attention_mask: (B, T) with 0 for padding on the right.
            segments: (B, T) numbers, in the place of a mask, where a row is several sequences one after the other: each
                sees itself alone and counts its positions from 0. Not for attention that needs a mask of its own kind.
        """
        hidden, positions = embeds, None
        embeds = _as(embeds, self._inside)
        if segments is not None:
            attention_mask, positions = _apart(segments, embeds.dtype)
        if embeds.shape[1]:
            hidden = self.lm.base_model(
                inputs_embeds=embeds, attention_mask=attention_mask, position_ids=positions, use_cache=False
            )[0]
        return _as(hidden, self._outside)

    def init_state(self, batch_size: int = 1) -> LLMState:
        """The state of a conversation in which nothing has been fed; any batch size fits it."""
        return LLMState(layers=[KVBuffer() for _ in range(self.layers)])

    @torch.no_grad()
    def extend(self, embeds: Tensor, state: LLMState) -> Tensor:
        """Feed embeddings (B, t, D) behind what the state holds; return their last-layer states (B, t, D)."""
        if embeds.shape[1] == 0:
            return embeds
        base, inside = self.lm.base_model, _as(embeds, self._inside)
        if llama_step.takes(base, inside):
            return _as(llama_step.step(base, inside, state.layers), self._outside)
        cache, first = transformers_cache(state.layers), state.layers[0]
        rows: dict[str, Tensor] = {}
        if isinstance(first, KVRows):  # shorter rows are padded on the left, as when a batch is generated from prompts
            positions = first.positions(embeds.shape[1], embeds.device)  # (B, t)
            slots = torch.arange(int(positions.max()) + 1, device=embeds.device)  # (longest + t,)
            rows = {"position_ids": positions, "attention_mask": (slots >= positions.max() - positions[:, -1:]).long()}
        hidden: Tensor = base(inputs_embeds=inside, past_key_values=cache, use_cache=True, **rows)[0]
        return _as(hidden.to(embeds.device), self._outside)  # the last layers may be elsewhere

    @torch.no_grad()
    def step(self, embeds: Tensor, state: LLMState) -> LLMOutput:
        """Feed embeddings (B, t, D), as :meth:`extend`; return their logits too."""
        hidden = self.extend(embeds, state)
        return LLMOutput(logits=self.head(hidden), hidden=hidden)


def _as(tensor: Tensor, dtype: torch.dtype | None) -> Tensor:
    return tensor if dtype is None else tensor.to(dtype)


def _apart(segments: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Segments (B, T) -> what is added to attention scores (B, 1, T, T), positions within each segment (B, T)."""
    at = torch.arange(segments.shape[1], device=segments.device)
    sees = (segments[:, :, None] == segments[:, None, :]) & (at[:, None] >= at)  # (B, T, T)
    mask = torch.zeros(sees.shape, dtype=dtype, device=segments.device).masked_fill(~sees, torch.finfo(dtype).min)
    first = torch.ones_like(segments, dtype=torch.bool)
    first[:, 1:] = segments[:, 1:] != segments[:, :-1]
    starts = torch.where(first, at, 0).cummax(dim=1).values  # (B, T)
    return mask[:, None], at - starts


_cache_class: type | None = None


def transformers_cache(layers: list[KVBuffer]) -> Any:
    """The buffers as a transformers ``Cache``, made anew for each step, because the state must stay a value."""
    global _cache_class
    if _cache_class is None:
        _cache_class = _make_cache_class()
    return _cache_class(layers)


def _make_cache_class() -> type:
    """Defined on first use: importing transformers takes seconds."""
    from transformers.cache_utils import Cache, CacheLayerMixin

    class BufferLayer(CacheLayerMixin):
        """One layer's buffer behind the interface that attention layers and mask makers use."""

        is_sliding = False

        def __init__(self, buffer: KVBuffer) -> None:
            self.buffer = buffer
            self.is_initialized = True

        def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
            return self.buffer.append(key_states, value_states)

        def get_seq_length(self) -> int:
            return self.buffer.length

        def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
            return self.buffer.length + query_length, 0

        def get_max_length(self) -> int:
            return -1  # none

        def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
            return None

    class BufferCache(Cache):
        def __init__(self, layers: list[KVBuffer]) -> None:
            super().__init__(layers=[BufferLayer(layer) for layer in layers])

    return BufferCache
