"""CTC unit decoder: states of the language model in, speech units out, without autoregression.

Each state (B, T, D), one a text token, becomes λ frames; a few causal Llama layers give the logits (B, λT, units + 1)
of unit or blank; argmax, collapsing of repeats and dropping of blanks give the units. Attention is causal, so the
frames of a token can be computed as soon as its state is there: :meth:`UnitDecoder.step` keeps keys and values instead
of running over the whole prefix again. With a band, a frame sees the frames of its own and the last ``band - 1``
tokens, in training as in streaming; the state is then bounded and the cost of a reply linear in its length.

Source: LLaMA-Omni (arXiv 2409.06666), section 2.4; the gate that fuses in the emitted token: LLaMA-Omni2 (arXiv
2505.02625). Band, sub-positions and blank bias are ours; without them this is LLaMA-Omni's decoder.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import DuologueError
from ..layers.kv_cache import KVBuffer
from ..layers.transformer import DecoderLayer, RopeScaling, band_mask, rotary_angles, rotary_frequencies
from ..streaming import State, Streaming


@dataclass(frozen=True, kw_only=True)
class UnitDecoderConfig:
    """Sizes of the decoder. The defaults of the flags are LLaMA-Omni's."""

    in_dim: int  # D, width of the language model's states and embeddings
    dim: int
    layers: int = 2
    heads: int = 4
    kv_heads: int | None = None  # None: as many as heads
    ffn_dim: int
    units: int  # the blank is class number ``units``, the last
    upsample: int = 25  # λ, frames a token
    band: int | None = None  # tokens that a frame sees, its own included; None: all before it
    fuse_token: bool = False  # mix in the embedding of the token that the state predicted, by a learned gate
    sub_position: bool = False  # a learned embedding of a frame's place among its token's λ frames
    blank_bias: float | None = None  # start of the blank's output bias (-2 keeps training from all blanks)
    rope_theta: float = 10000.0
    rope_scaling: RopeScaling | None = None
    norm_eps: float = 1e-5

    def __post_init__(self) -> None:
        for name in ("in_dim", "dim", "layers", "heads", "ffn_dim", "units", "upsample"):
            if getattr(self, name) < 1:
                raise DuologueError(f"unit decoder {name} is {getattr(self, name)}; it must be at least 1")
        kv_heads = self.heads if self.kv_heads is None else self.kv_heads
        if kv_heads < 1 or self.dim % (2 * self.heads) or self.heads % kv_heads:
            raise DuologueError(
                f"unit decoder width {self.dim} must be a multiple of 2 x heads ({self.heads}), and heads of kv_heads "
                f"({kv_heads})"
            )
        if self.band is not None and self.band < 1:
            raise DuologueError(f"unit decoder band is {self.band} tokens; it must be at least 1, or None for all")

    def build(self) -> UnitDecoder:
        """A decoder of these sizes."""
        return UnitDecoder(self)


@dataclass
class UnitDecoderState(State):
    """Keys and values of each layer: of the last ``band - 1`` tokens' frames, or of all."""

    batch: int
    layers: list[KVBuffer]


class UnitDecoder(Streaming):
    """States (B, T, D) -> logits (B, λT, units + 1)."""

    time_in, time_out = 1, 1

    def __init__(self, config: UnitDecoderConfig) -> None:
        super().__init__()
        c = self.config = config
        self.rate = Fraction(c.upsample)
        self.blank = c.units
        self.input_proj = nn.Linear(c.in_dim, c.dim)
        if c.fuse_token:
            self.token_proj = nn.Linear(c.in_dim, c.dim)
            self.gate = nn.Linear(2 * c.dim, c.dim)
        if c.sub_position:
            self.sub_position = nn.Parameter(torch.randn(c.upsample, c.dim) * 0.02)
        kv_heads = c.heads if c.kv_heads is None else c.kv_heads
        self.layers = nn.ModuleList(
            DecoderLayer(c.dim, c.heads, kv_heads, c.ffn_dim, c.norm_eps) for _ in range(c.layers)
        )
        self.output_proj = nn.Linear(c.dim, c.units + 1)
        if c.blank_bias is not None:
            with torch.no_grad():
                self.output_proj.bias[self.blank] = c.blank_bias
        self.frequencies: Tensor
        self.register_buffer(
            "frequencies", rotary_frequencies(c.dim // c.heads, c.rope_theta, c.rope_scaling), persistent=False
        )

    def beside(self, ids: Tensor, embed: Callable[[Tensor], Tensor]) -> Tensor | None:
        """What it reads beside states: the embeddings (B, T, D) of the tokens ``ids`` (B, T) that they predicted, if it
        fuses them."""
        return embed(ids) if self.config.fuse_token else None

    def positions(self, replies: Sequence[Sequence[int]]) -> list[int]:
        """Tokens of each reply, given as ids: it has λ frames for each."""
        return [len(reply) for reply in replies]

    def forward(
        self,
        hidden: Tensor,
        token_embeds: Tensor | None = None,
        lengths: Tensor | None = None,
        frames: Tensor | None = None,
    ) -> Tensor:
        """Whole replies, as in training; the cost is linear in T with a band, quadratic without.

        Args:
            hidden: (B, T, D) states that predicted the reply's tokens.
            token_embeds: (B, T, D) embeddings of those tokens, if the decoder fuses them.
            lengths: (B,) real tokens of each reply, padding to their right. ``None``: T.
            frames: (B,) frames of each reply, where a text is too short for its speech; its states are then spread
                evenly over them. ``None``: λ · lengths.

        Returns:
            (B, F, units + 1), F = λT or the largest of ``frames``. Frames of padding mean nothing.
        """
        x = self._tokens(hidden, token_embeds)
        if frames is None:
            x = self._frames(x)
        else:
            x = self._stretched(x, lengths, frames)
        angles = rotary_angles(self.frequencies, torch.arange(x.shape[1], device=x.device))
        for layer in self.layers:
            x = layer(x, angles, self.config.upsample, self.config.band)
        return self.output_proj(x)

    def init_state(self, batch_size: int = 1) -> UnitDecoderState:
        c = self.config
        window = None if c.band is None else (c.band - 1) * c.upsample
        return UnitDecoderState(batch=batch_size, layers=[KVBuffer(window) for _ in range(c.layers)])

    @torch.no_grad()
    def step(self, x: Tensor, state: UnitDecoderState, token_embeds: Tensor | None = None) -> Tensor:
        """The next states (B, t, D), and their tokens' embeddings if the decoder fuses them -> (B, λt, units + 1)."""
        most = self.config.band or x.shape[1] or 1
        if x.shape[1] > most:  # a long piece in pieces of the band's size, or its cost would be quadratic
            parts = range(0, x.shape[1], most)
            embeds = [None if token_embeds is None else token_embeds[:, i : i + most] for i in parts]
            pieces = [self.step(x[:, i : i + most], state, e) for i, e in zip(parts, embeds, strict=True)]
            return torch.cat(pieces, dim=1)
        x = self._frames(self._tokens(x, token_embeds))
        if x.shape[1] == 0:
            return self.output_proj(x)
        frames, before = x, state.layers[0]
        angles = rotary_angles(self.frequencies, before.positions(x.shape[1], x.device))
        mask = before.each(lambda row: self._step_mask(row, frames))
        for layer, buffer in zip(self.layers, state.layers, strict=True):
            x = layer(x, angles, self.config.upsample, self.config.band, buffer, mask)
        return self.output_proj(x)

    def flush(self, state: UnitDecoderState) -> Tensor:
        bias = self.output_proj.bias
        return bias.new_zeros(state.batch, 0, bias.shape[0])

    def held(self, state: UnitDecoderState) -> int:
        """How many of the last tokens have speech to come: none."""
        return 0

    def places(self, state: UnitDecoderState, tokens: int) -> tuple[list[int], int]:
        """Of the last step, to which ``tokens`` came: for each λ of its frames the token that they speak; and how many
        are unread now: none."""
        return list(range(tokens)), 0

    def _step_mask(self, buffer: KVBuffer, x: Tensor) -> Tensor:
        """Who sees whom among the frames that the buffer will return and the new ones (B, n, dim)."""
        c, new, kept = self.config, x.shape[1], buffer.kept
        # An additive mask: from a boolean one, attention would compute it again in every layer.
        if c.band is None or kept + new <= c.band * c.upsample:  # all that is kept is seen
            return F.pad(x.new_full((new, new), float("-inf")).triu(1), (kept, 0))
        seen = band_mask(new, kept + new, c.upsample, c.band, x.device)
        return torch.zeros_like(seen, dtype=x.dtype).masked_fill_(~seen, float("-inf"))

    def _tokens(self, hidden: Tensor, token_embeds: Tensor | None) -> Tensor:
        """(B, T, D) -> (B, T, dim), one vector a token."""
        if self.config.fuse_token != (token_embeds is not None):
            wanted = "needs" if self.config.fuse_token else "takes no"
            raise DuologueError(f"this unit decoder {wanted} token embeddings (fuse_token={self.config.fuse_token})")
        x = self.input_proj(hidden)
        if token_embeds is None:
            return x
        token = self.token_proj(token_embeds)
        gate = self.gate(torch.cat([x, token], dim=-1)).sigmoid()
        return gate * x + (1 - gate) * token

    def _frames(self, x: Tensor) -> Tensor:
        """(B, T, dim) -> (B, λT, dim)."""
        x = x[:, :, None].expand(-1, -1, self.config.upsample, -1)
        if self.config.sub_position:
            x = x + self.sub_position
        return x.flatten(1, 2)

    def _stretched(self, x: Tensor, lengths: Tensor | None, frames: Tensor) -> Tensor:
        """(B, T, dim) -> (B, F, dim): frame f of a reply of n tokens and m frames is a copy of token f n // m."""
        upsample = self.config.upsample
        if lengths is None:
            lengths = torch.full_like(frames, x.shape[1])
        place = torch.arange(int(frames.max()), device=x.device)[None] * lengths[:, None]  # (B, F)
        spread = frames[:, None].clamp(min=1)
        token = (place // spread).clamp(max=x.shape[1] - 1)
        y = x.gather(1, token[..., None].expand(-1, -1, x.shape[2]))
        if self.config.sub_position:
            y = y + self.sub_position[(place * upsample // spread) % upsample]
        return y


@dataclass
class CollapseState(State):
    """The label of the last frame, (B,); -1 before the first."""

    last: Tensor


class CTCCollapse(Streaming):
    """Logits (B, N, units + 1) -> units (B, U): the best label a frame, repeats merged, blanks dropped.

    Rows of a batch yield different numbers of units; shorter rows are filled up with -1 on the right.
    """

    time_in, time_out = 1, 1
    rate = Fraction(0)  # how many units come out is up to the input

    def __init__(self, blank: int) -> None:
        super().__init__()
        self.blank = blank

    def forward(self, x: Tensor) -> Tensor:
        return self.step(x, self.init_state(x.shape[0]))

    def init_state(self, batch_size: int = 1) -> CollapseState:
        return CollapseState(last=torch.full((batch_size,), -1))

    def step(self, x: Tensor, state: CollapseState) -> Tensor:
        labels, new = self.begun(x, state)
        if labels.shape[0] == 1:
            return labels[new][None]
        rows = [row[keep] for row, keep in zip(labels, new, strict=True)]
        return nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=-1)

    def begun(self, x: Tensor, state: CollapseState) -> tuple[Tensor, Tensor]:
        """Logits (B, N, units + 1) -> the best label of each frame, and whether a unit begins in it, (B, N) each."""
        labels = x.argmax(dim=-1)
        if labels.shape[1] == 0:
            return labels, labels.bool()
        state.last = state.last.to(labels.device)
        before = torch.cat([state.last[:, None], labels[:, :-1]], dim=1)
        state.last = labels[:, -1]
        return labels, (labels != before) & (labels != self.blank)

    def flush(self, state: CollapseState) -> Tensor:
        return state.last.new_zeros(state.last.shape[0], 0)
