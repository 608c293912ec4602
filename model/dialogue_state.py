"""What a conversation remembers between calls, how the next token is picked, and what one step of a reply returns."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import Self

import torch
from torch import Tensor

from .decoding.ctc_prefix import CTCPrefix
from .errors import DuologueError
from .language_model.causal_lm import LLMState
from .speech_decoder.unit_decoder import CollapseState, UnitDecoderState
from .streaming import ChainState, State
from .tokens import TokenKind


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How a token is picked from the model's distribution."""

    temperature: float = 0.0  # 0: the likeliest token
    top_p: float = 1.0  # sample among the likeliest tokens that together have this probability
    max_tokens: int = 256  # of one reply, what was heard included; then it ends

    def __post_init__(self) -> None:
        if not 0 <= self.temperature < float("inf"):
            raise DuologueError(f"temperature is {self.temperature}; it must be 0 (greedy) or more")
        if not 0 < self.top_p <= 1:
            raise DuologueError(f"top_p is {self.top_p}; it must be above 0 and at most 1")
        if self.max_tokens < 1:
            raise DuologueError(f"max_tokens is {self.max_tokens}; it must be at least 1")


def pick(logits: Tensor, sampling: Sampling, rng: torch.Generator) -> int:
    """The next token from the logits (V,) of one position; greedy picking leaves the generator alone.

    Nucleus sampling: Holtzman et al. (arXiv 1904.09751), section 3.1.
    """
    if sampling.temperature == 0:
        return int(logits.argmax())
    # On the CPU in float32, where the generator lives: the same seed gives the same reply on any device.
    temperature = min(max(sampling.temperature, 1e-6), 1e6)  # beyond these float32 overflows, and nothing differs
    probabilities = (logits.float().cpu() / temperature).softmax(dim=-1)
    if sampling.top_p < 1:
        ordered, order = probabilities.sort(descending=True)
        ordered[1:][(ordered.cumsum(0) - ordered)[1:] >= sampling.top_p] = 0  # the likeliest token always stays
        return int(order[torch.multinomial(ordered, 1, generator=rng)])
    return int(torch.multinomial(probabilities, 1, generator=rng))


class Phase(Enum):
    """Whose turn it is."""

    IDLE = "idle"
    LISTENING = "listening"
    REPLYING = "replying"
    ENDED = "ended"  # the reply's last token has come; its last samples may still be inside


@dataclass
class DialogueState(State):
    """One conversation. Cloning shares the cache (see :mod:`.kv_cache`); the two then go their own ways."""

    llm: LLMState
    rng: torch.Generator
    phase: Phase = Phase.IDLE
    turn: int = 0  # turns begun
    ear: ChainState | None = None  # of the speech segment that is being heard
    heard: list[Tensor] | None = None  # its samples, each (1, n), where the ear cannot stream
    hidden: Tensor | None = None  # (1, 1, D), the last position's state: the next token is read from it
    pending: int | None = None  # the last token picked, which the language model has not been fed yet
    speaking: bool = False  # whether words are now the reply (or the transcript)
    spoken: list[Tensor] = field(default_factory=list)  # what the model predicts at its speech, each (1, t, V)
    ctc: CTCPrefix | None = None  # its transcript so far, as CTC sees it
    draft: list[int] = field(default_factory=list)  # tokens that the transcript is expected to go on with
    foreseen: list[Tensor] = field(default_factory=list)  # (1, 1, D) each, if the language model has been fed them
    judged: Tensor | None = None  # (3,), the monitor's probabilities of VERDICTS at the last place of speech
    read: Tensor | None = None  # (3,), the word monitor's, once the transcript has been written
    unwritten: int = 0  # tokens that the transcript of this turn may still have
    asked: list[int] = field(default_factory=list)  # a written question about the speech, not read yet
    generated: int = 0  # tokens of this turn
    turn_at: int = 0  # the position behind this turn's prefix, where its speech begins
    written_at: int = 0  # the position behind its speech
    written: list[int] = field(default_factory=list)  # the tokens that stand there, or will once they are fed
    unit: UnitDecoderState | None = None
    collapse: CollapseState | None = None
    vocoder: State | None = None

    def clone(self) -> Self:
        """An independent copy, its random generator too."""
        other = super().clone()
        other.rng = self.rng.clone_state()
        return other

    def truncate(self, length: int) -> None:
        """Forget what the language model was fed after its first ``length`` positions; any reply under way is over.

        A step's ``position`` says where its token stands: ``truncate(step.position)`` forgets it and what followed.
        """
        self.llm.truncate(length)
        self.written = self.written[: max(0, length - self.written_at)]
        self.turn_at, self.written_at = min(self.turn_at, length), min(self.written_at, length)
        self.phase = Phase.IDLE
        self.hidden = self.pending = self.ear = self.heard = None
        self.judged = self.read = self.ctc = self.unit = self.collapse = self.vocoder = None
        self.spoken, self.asked, self.draft, self.foreseen = [], [], [], []


@dataclass(frozen=True, kw_only=True)
class ReplyStep:
    """What one generated token brought."""

    token: int
    kind: TokenKind
    position: int  # where the token stands in the language model's sequence
    foreseen: bool  # whether the language model had been fed all that stands before it: it cost next to nothing
    units: Tensor  # (1, M) new speech units, perhaps none
    pcm: Tensor  # (1, n) new samples, perhaps none
