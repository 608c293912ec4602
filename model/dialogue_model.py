"""What assistant, session, server and evaluation need of a model that converses, and nothing else of it.

A turn is heard (``begin_turn``, ``listen``, ``end_turn``) or read (``read_text``); then replied to, a step a token
(decoding/reply.py). What was said lives in a :class:`DialogueState`, which can be cloned and cut.
:class:`.speech_lm.SpeechLM` and :class:`.audio_llm.audio_llm.AudioLLM` are such models.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, Self

import torch
from torch import Tensor

from .decoding.decoder import DecoderConfig
from .decoding.token_times import TokenTimes
from .dialogue_state import DialogueState, ReplyStep, Sampling
from .language_model.chat_template import Message, Tool
from .language_model.tool_calls import CallFormat
from .speech_decoder.speech_decoder import SpeechDecoder
from .speech_decoder.voices import Speaker
from .tokens import TokenLayout


class DialogueModel(Protocol):
    """A model that converses. Methods are for one conversation, batch 1.

    layout: its token ids. decoder: how it finds its words; None: those that are likeliest moment by moment.
    input_rate, output_rate: Hz of what is heard and of what is said.
    longest_s: seconds that it hears at once. clip_s: seconds that it pads or cuts a whole clip to; ``None``: it does
        not.
    history: positions of past turns that a turn may follow.
    """

    layout: TokenLayout

    @property
    def decoder(self) -> DecoderConfig | None: ...
    @property
    def device(self) -> torch.device: ...
    @property
    def input_rate(self) -> int: ...
    @property
    def output_rate(self) -> int: ...
    @property
    def longest_s(self) -> float: ...
    @property
    def clip_s(self) -> float | None: ...
    @property
    def history(self) -> int: ...

    # What it can do.
    @property
    def streams(self) -> bool:
        """Hears while the user speaks."""

    @property
    def hears_sounds(self) -> bool:
        """Hears whole recordings, of speech or not, several in one turn."""

    @property
    def transcribes(self) -> bool:
        """Writes down what it hears before it replies."""

    @property
    def times_words(self) -> bool:
        """Knows when each token of its transcript was said (:meth:`token_times`)."""

    @property
    def takes_decoder(self) -> bool:
        """Lets words be looked for in what it hears."""

    @property
    def hears_words(self) -> bool:
        """Hears words and nothing else: silence and noise are nothing to it, and what it has heard it knows for certain
        only once the turn is over."""

    @property
    def speech(self) -> SpeechDecoder | None:
        """What it speaks with; without a vocoder it makes units alone."""

    @property
    def speaks(self) -> bool:
        """Replies in speech."""

    @property
    def renders_ssml(self) -> bool:
        """Speaks replies in SSML as they say (``ssml`` of its state)."""

    @property
    def judges_turns(self) -> bool:
        """Has a monitor, which tells while the user speaks what is to be answered."""

    @property
    def certain(self) -> tuple[float, ...]:
        """From which probability on each turn state of the monitor counts, in the order of TURN_STATES."""

    @property
    def reads_turn_state(self) -> bool:
        """Has a word monitor, which judges the transcript."""

    @property
    def manners(self) -> tuple[str, ...]:
        """The manners of speaking that it tells apart; none without a head for them."""

    @property
    def follows_instructions(self) -> bool:
        """Whether a system prompt reaches it."""

    @property
    def takes_tools(self) -> bool:
        """Whether it can be told of functions to call."""

    @property
    def calls(self) -> CallFormat | None:
        """How it writes calls of the functions that it is told of; None: it calls none."""

    @property
    def fingerprint(self) -> str:
        """What a saved conversation must have in common with the model that goes on with it."""

    def eval(self) -> Self: ...
    def without_voice(self) -> Self: ...
    def with_voices(self, voices: Mapping[str, Speaker]) -> Self:
        """A view that speaks in these voices of its speech decoder; see speech_decoder/voices.py."""

    def without_replies(self) -> Self:
        """A view for transcripts alone, which are the same; cheaper where they need no language model."""

    def with_decoder(self, config: DecoderConfig | None) -> Self:
        """A view that finds its words by a beam search, with what is known of them; None: without one.

        Raises:
            DuologueError: ``takes_decoder`` is false, or hot words that it cannot spell.
        """

    def spells(self, text: str) -> bool:
        """Whether a hot word can be written with what it hears."""

    def while_speaking(self) -> Self:
        """A view that hears while the user speaks, where the model can: through a window, if its encoder was made for
        whole clips."""

    def with_shared_steps(self, wrap: Callable[[Any, str], Any], longest: int | None = None) -> Self: ...

    # A turn.
    def init_state(self, seed: int = 0, instructions: str = "", tools: Sequence[Tool] = ()) -> DialogueState: ...
    def begin_again(self, state: DialogueState) -> DialogueState:
        """A conversation with the same instructions and tools, in which nothing has been said; sampling goes on."""

    def begin_turn(self, state: DialogueState) -> None: ...
    def listen(self, pcm: Tensor, state: DialogueState) -> None: ...
    def another_recording(self, state: DialogueState) -> None: ...
    def ask_about(self, ids: Sequence[int], state: DialogueState) -> None: ...
    def end_turn(self, state: DialogueState) -> None: ...
    def token_times(self, state: DialogueState) -> TokenTimes | None:
        """After ``end_turn``, before the reply: what tells when the transcript's tokens were said. ``None``: nothing
        was heard, or ``times_words`` is false."""

    def manner_of(self, state: DialogueState) -> dict[str, float] | None:
        """The probability of each manner in which the turn was spoken; ``None``: nothing was heard of it, or nothing
        tells."""

    def read_text(self, ids: Sequence[int], state: DialogueState) -> None: ...
    def read_messages(self, messages: Sequence[Message], state: DialogueState) -> None: ...
    def recall(self, question: Sequence[int], reply: Sequence[int], state: DialogueState) -> None: ...
    def words_take(self, past: Sequence[tuple[Sequence[int], Sequence[int]]]) -> int:
        """Positions of past questions and replies in words, with their markers."""

    def must_fit(self, tokens: int, state: DialogueState) -> None: ...
    def room(self, samples: int | None, tokens: int, state: DialogueState) -> int | None:
        """Tokens that a reply may have behind a question of so many samples (``None``: a written one) and text tokens;
        ``None``: any number.

        Raises:
            DuologueError: the question does not fit behind what was said.
        """

    # The reply.
    def next_logits(self, state: DialogueState) -> Tensor: ...
    def reply_step(
        self, state: DialogueState, sampling: Sampling, aloud: bool = True, forced: int | None = None
    ) -> ReplyStep: ...
    def sound(self, units: Tensor, state: DialogueState) -> Tensor: ...
    def reply_flush(self, state: DialogueState) -> Tensor: ...
