"""What every adaptor is: encoder frames (B, T, D) at 50 Hz in, embeddings (B, T', D_llm) of the language model out.

:class:`GroupAdaptor` makes one embedding of every k neighbouring frames; a kind says in ``forward`` how. Other kinds
give as many embeddings as they hear words (:mod:`.ctc`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, Self

import torch
from torch import Tensor

from ..streaming import State, Streaming

if TYPE_CHECKING:
    from ..decoding.decoder import Decoder
    from ..decoding.labels import Labels


class AdaptorSizes(Protocol):
    """What an adaptor's config says, whatever else it holds."""

    @property
    def in_dim(self) -> int:
        """D, the encoder's width."""

    @property
    def out_dim(self) -> int:
        """D_llm."""


@dataclass(frozen=True, kw_only=True)
class HeardToken:
    """A token that an adaptor has heard by itself.

    start, end: in frames where the adaptor says it, in seconds from the beginning of the turn where ``Hearing``
        does.
    confidence: mean probability of the token while it lasts.
    """

    token: int  # of the language model
    start: float
    end: float
    confidence: float


@dataclass(frozen=True, kw_only=True)
class HeardText:
    """A text that an adaptor may have heard.

    score: of CTC and of all that is known of texts, in nats. ctc: its log-probability under CTC alone.
    """

    tokens: list[HeardToken]
    score: float
    ctc: float


class HeardClips(NamedTuple):
    """Clips as embeddings.

    embeddings: (B, N, D_llm), padded to the right. counts: (B,) how many of each clip are real.
    given: (B, N) frames after which each embedding is given out by a stream.
    """

    embeddings: Tensor
    counts: Tensor
    given: Tensor


class Adaptor(Streaming):
    """(B, T, D) -> (B, T', D_llm).

    Attributes:
        most: embeddings that a frame becomes, at most.
        even: whether all clips of so many frames become the same number of embeddings, so that clips can be heard in
            one batch.
        transcribes: whether it hears words by itself (:meth:`tokens_of`).
    """

    time_in, time_out = 1, 1
    config: AdaptorSizes
    most: Fraction
    even = True
    transcribes = False

    def bind(self, embed: Callable[[Tensor], Tensor]) -> None:
        """Read the language model's input embeddings by ``embed``: ids (…) -> (…, D_llm). Most adaptors do not."""

    def vocabulary(self) -> list[int] | None:
        """The V ids of the tokens that it hears by CTC, so that a decoder can choose its texts; None: none can."""
        return None

    def spelt_by(self, labels: Callable[[], Labels]) -> None:
        """Take how its tokens spell words, once it is asked for. Most adaptors hear no tokens."""

    def decoded_by(self, decoder: Decoder | None) -> Self:
        """A view of the same weights that finds its words so; None: those that are likeliest frame by frame."""
        raise NotImplementedError(f"{type(self).__name__} has no posteriors to search")

    def n_best(self, x: Tensor) -> list[HeardText]:
        """The texts that its decoder finds in a whole clip (1, T, D), the best first; times in frames."""
        raise NotImplementedError(f"{type(self).__name__} has no posteriors to search")

    def clips(self, x: Tensor, lengths: Tensor) -> HeardClips:
        """Whole clips (B, T, D) of (B,) real frames, as in training."""
        raise NotImplementedError

    def tokens_of(self, state: Any) -> list[HeardToken]:
        """The tokens that a stream has heard so far, their times in frames."""
        return []


class GroupSizes(AdaptorSizes, Protocol):
    """Of an adaptor that makes one embedding of k frames."""

    @property
    def stack(self) -> int:
        """k, frames to one embedding."""


@dataclass
class AdaptorState(State):
    """The frames of a group that is not yet whole: (B, < k, D)."""

    pending: Tensor


class GroupAdaptor(Adaptor):
    """(B, T, D) -> (B, T // k, D_llm); a remainder of fewer than k frames is dropped."""

    config: GroupSizes

    def __init__(self, config: GroupSizes) -> None:
        super().__init__()
        self.config = config
        self.rate = self.most = Fraction(1, config.stack)

    def groups(self, x: Tensor) -> Tensor:
        """(B, T, D) -> (B, T // k, k, D), the remainder dropped."""
        whole = x.shape[1] // self.config.stack
        return x[:, : whole * self.config.stack].unflatten(1, (whole, self.config.stack))

    def clips(self, x: Tensor, lengths: Tensor) -> HeardClips:
        embeddings, stack = self(x), self.config.stack
        given = stack * torch.arange(1, embeddings.shape[1] + 1, device=x.device)
        return HeardClips(embeddings, lengths // stack, given.expand(len(x), -1))

    def init_state(self, batch_size: int = 1) -> AdaptorState:
        return AdaptorState(pending=next(self.parameters()).new_zeros(batch_size, 0, self.config.in_dim))

    def step(self, x: Tensor, state: AdaptorState) -> Tensor:
        x = torch.cat([state.pending, x], dim=1)
        state.pending = x[:, x.shape[1] // self.config.stack * self.config.stack :]
        return self(x)

    def flush(self, state: AdaptorState) -> Tensor:
        return state.pending.new_zeros(state.pending.shape[0], 0, self.config.out_dim)
