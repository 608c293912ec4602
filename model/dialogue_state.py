"""What a conversation remembers between calls, how the next token is picked, and what one step of a reply returns."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from itertools import pairwise
from typing import Any, Self

import torch
from torch import Tensor

from .adaptor.adaptor import HeardToken
from .audio_encoder.hearing import HearingState
from .audio_encoder.manner import MannerState
from .decoding.transcript import TranscriptState
from .errors import DuologueError
from .language_model.causal_lm import LLMState
from .language_model.messages import Message
from .language_model.tool_calls import CallState
from .speech_decoder.speech_decoder import SpeechDecoderState
from .streaming import State
from .tokens import TokenKind


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How a token is picked from the model's distribution."""

    temperature: float = 0.0  # 0: the likeliest token
    top_p: float = 1.0  # sample among the likeliest tokens that together have this probability
    max_tokens: int = 256  # of one reply, what was heard included; then it ends
    # Of a model that was told of functions: one that the reply must call ("": any), and whether it may call any.
    must_call: str | None = None
    may_call: bool = True

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


@dataclass
class Picked(State):
    """A token that was picked for a reply, with the state (1, 1, D) that predicted it."""

    token: int
    kind: TokenKind
    position: int
    foreseen: bool
    hidden: Tensor


class Phase(Enum):
    """Whose turn it is."""

    IDLE = "idle"
    LISTENING = "listening"
    REPLYING = "replying"
    ENDED = "ended"  # the reply's last token has come; its last samples may still be inside


@dataclass
class ChatState(State):
    """A conversation that is written by a chat template.

    system: its system prompt. tools: JSON schemas of functions that the model may call.
    began: when, in seconds since 1970: a template that writes the date writes that of this time to the end.
    messages: those that are over, each with the position at which it begins; a reply is one once the next turn begins.
    fed: the id at each position of the language model, SPEECH for an embedding of speech.
    turn_start, reply_start: where the turn, and the reply under way, begin; None: there is none.
    """

    system: str = ""
    tools: list[dict[str, Any]] = field(default_factory=list)
    began: float | None = None
    messages: list[tuple[int, Message]] = field(default_factory=list)
    fed: list[int] = field(default_factory=list)
    turn_start: int = 0
    reply_start: int | None = None

    def truncate(self, length: int) -> None:
        """Forget what stands behind the first ``length`` positions, and every message that does not end there."""
        under_way = self.turn_start if self.reply_start is None else self.reply_start
        ends = dict(pairwise(sorted({under_way, *(start for start, _ in self.messages)})))
        self.messages = [one for one in self.messages if ends.get(one[0], 0) <= length]
        del self.fed[length:]
        if self.reply_start is not None and self.reply_start > length:
            self.reply_start = None
        self.turn_start = min(self.turn_start, length)


@dataclass
class DialogueState(State):
    """One conversation. Cloning shares the cache (see :mod:`.layers.kv_cache`); the two then go their own ways.

    hearing: of the turn that is being heard. speech: of the reply that is being spoken.
    hidden: (1, 1, D), the last position's state: the next token is read from it.
    pending: the last token picked, which the language model has not been fed yet.
    speaking: whether words are now the reply, not the transcript.
    turn_state: (3,) turn-state probabilities (see duplex/monitor.py) at the last position of speech.
    word_turn_state: (3,) the word monitor's, once the transcript has been written.
    generated: tokens of this turn.
    turn_start, text_start: positions at which the turn's speech begins, and behind it.
    written: the tokens that stand there, or will once they are fed.
    chat: of a model that reads turns by its chat template.
    calls: of the reply under way, where functions may be called. picked: its tokens that no step has brought yet.
    empty: nothing was said in the turn, as far as the model can tell: there is no reply to it.
    manner: what the head for the manner of speaking has gathered of a turn that is over.
    speed: at which replies that begin from now on are spoken, within the speech decoder's ``speeds``.
    voice: in which they are, one of the speech decoder's ``voices``; None: the first of them.
    ssml: whether they are in SSML (speech_decoder/ssml.py), of a model with ``renders_ssml``. tags: before each of the
        next tokens of the reply, where tags are not among them; they are used up.
    """

    llm: LLMState
    rng: torch.Generator
    phase: Phase = Phase.IDLE
    turn: int = 0  # turns begun
    hearing: HearingState | None = None
    transcript: TranscriptState = field(default_factory=TranscriptState)
    speech: SpeechDecoderState | None = None
    hidden: Tensor | None = None
    pending: int | None = None
    speaking: bool = False
    turn_state: Tensor | None = None
    word_turn_state: Tensor | None = None
    generated: int = 0
    turn_start: int = 0
    text_start: int = 0
    written: list[int] = field(default_factory=list)
    chat: ChatState | None = None
    calls: CallState | None = None
    picked: list[Picked] = field(default_factory=list)
    empty: bool = False
    speed: float = 1.0
    voice: str | None = None
    ssml: bool = False
    tags: list[str] = field(default_factory=list)
    manner: MannerState | None = None

    def speak_as(self, other: DialogueState) -> None:
        """Speak replies as ``other`` does."""
        self.speed, self.voice, self.ssml = other.speed, other.voice, other.ssml

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
        if self.chat is not None:
            self.chat.truncate(length)
        self.written = self.written[: max(0, length - self.text_start)]
        self.turn_start, self.text_start = min(self.turn_start, length), min(self.text_start, length)
        self.phase, self.transcript = Phase.IDLE, TranscriptState()
        self.hidden = self.pending = self.hearing = self.speech = self.turn_state = self.word_turn_state = None
        self.calls, self.picked = None, []


@dataclass(frozen=True, kw_only=True)
class ReplyStep:
    """What one generated token brought."""

    token: int
    kind: TokenKind
    position: int  # where the token stands in the language model's sequence
    foreseen: bool  # whether the language model had been fed all that stands before it: it cost next to nothing
    units: Tensor  # (1, U) new speech units, perhaps none
    pcm: Tensor  # (1, n) new samples, perhaps none
    heard: HeardToken | None = None  # of a transcript's token that the adaptor heard: its time and its probability
    held: int = 0  # how many of the last tokens, this one included, have speech to come with later steps
