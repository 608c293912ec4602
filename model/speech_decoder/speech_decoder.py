"""The speech decoder as one stage: the language model's states in, samples out; speech units lie between.

    states (1, T, D) -> unit decoder -> CTC collapse -> units (1, U) -> vocoder -> samples (1, n)

The vocoder is a unit vocoder or a codec's decoder. Without one, units are the last output and there are no samples.
The unit decoder reads states alone, embeddings of tokens or their spelling beside them (:meth:`SpeechDecoder.beside`).
``step`` goes all the way; :meth:`SpeechDecoder.units` and :meth:`SpeechDecoder.sound` are its halves, for whoever wants
samples later than units.

Of a reply in SSML each token comes with its text. Tags are not spoken; each unit is spoken in the manner of the
character (or the token) whose frames its predecessor begins in.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from fractions import Fraction

import torch
from torch import Tensor

from ..codec.codec_vocoder import CodecVoice
from ..streaming import State, Streaming
from .manner import MannerState
from .spelling_decoder import SpellingDecoder, SpellingState
from .ssml import PLAIN, Manner, Run, SSMLReader
from .unit_decoder import CollapseState, CTCCollapse, UnitDecoder, UnitDecoderState
from .unit_vocoder import UnitVocoder, VocoderState
from .voices import DEFAULT, Speaker, named

SLOWEST, FASTEST = 0.8, 1.25  # speeds at which a voice whose units have durations still sounds like itself


@dataclass
class MarkedToken(State):
    """A token of which some text may be part of a tag.

    x, beside: as :meth:`SpeechDecoder.units` takes them, of one token. length: characters of its text. unread: of those
        and of tags before it, that may be part of a tag. text: what is spoken of it, and the manner of each character.
    """

    x: Tensor
    beside: Tensor | None
    length: int
    unread: int
    text: str = ""
    manners: list[Manner] = field(default_factory=list)

    @property
    def silent(self) -> bool:
        """Whether tags are all that it is, but for spaces."""
        return len(self.text) < self.length and not self.text.strip()


@dataclass
class MarkedState(State):
    """What a reply in SSML has accumulated.

    waiting: tokens that the unit decoder has not been given. manners: of the characters (or tokens) that it has, and
        has not spoken; passed: of how many of them the pause is in ``pause``, seconds before the next unit.
        pending: seconds before the next token. late: the manner of the last unit's place, which the next one's is.
    """

    reader: SSMLReader = field(default_factory=SSMLReader)
    waiting: list[MarkedToken] = field(default_factory=list)
    manners: list[Manner] = field(default_factory=list)
    passed: int = 0
    pause: float = 0.0
    pending: float = 0.0
    late: Manner | None = None

    def push(self, runs: list[Run]) -> list[MarkedToken]:
        """What the reader says of the tokens' text; returns those that are read to their end."""
        for run in runs:
            at, manners = 0, run.manners()
            for token in self.waiting:
                count = min(token.unread, len(run.text) - at)
                token.unread -= count
                if run.manner is not None:
                    token.text += run.text[at : at + count]
                    token.manners += manners[at : at + count]
                at += count
        whole = next((at for at, token in enumerate(self.waiting) if token.unread), len(self.waiting))
        ready, self.waiting = self.waiting[:whole], self.waiting[whole:]
        return ready

    def spoken(self, place: int) -> Manner:
        """How a unit that begins in the frames of a character (or token) is spoken: as the place of the unit before it
        says, for a word's first is mostly the end of the last word's sound. A reply's first: as its own place says."""
        self.pass_by(place + 1)
        manner, self.pause = replace(self.manners[place], pause=self.pause), 0.0
        before, self.late = self.late, manner
        if before is None:
            before, self.late = manner, replace(manner, pause=0.0)
        return before

    def pass_by(self, count: int) -> None:
        """Add up the pauses before what comes behind ``count`` of the manners."""
        self.pause += sum(manner.pause for manner in self.manners[self.passed : count])
        self.passed = max(self.passed, count)

    def forget(self, count: int) -> None:
        """So many are spoken."""
        self.pass_by(count)
        self.manners, self.passed = self.manners[count:], self.passed - count


@dataclass
class SpeechDecoderState(State):
    """The states of the three stages; ``vocoder`` is ``None`` where there is none, ``marked`` where the reply is not in
    SSML."""

    unit_decoder: UnitDecoderState | SpellingState
    collapse: CollapseState
    vocoder: State | None
    marked: MarkedState | None = None


class SpeechDecoder(Streaming):
    """States (1, T, D) -> samples (1, n). How many samples come out is up to the input.

    voices: by name, at least one; the first is who speaks where none is asked for.
    """

    time_in = 1
    rate = Fraction(0)

    def __init__(
        self, unit_decoder: UnitDecoder | SpellingDecoder, vocoder: UnitVocoder | CodecVoice | None,
        voices: Mapping[str, Speaker] | None = None,
    ) -> None:  # fmt: skip
        """``voices``: in the place of the vocoder's own."""
        super().__init__()
        self.unit_decoder, self.vocoder = unit_decoder, vocoder
        own = vocoder.config.speakers if isinstance(vocoder, UnitVocoder) else {DEFAULT: Speaker()}
        self.voices: dict[str, Speaker] = dict(voices or own)
        self.collapse = CTCCollapse(unit_decoder.config.units)

    def beside(self, ids: Tensor, embed: Callable[[Tensor], Tensor]) -> Tensor | None:
        """What the unit decoder reads beside the states that predicted the tokens ``ids`` (1, T). ``embed``: ids to the
        language model's embeddings (1, T, D)."""
        return self.unit_decoder.beside(ids, embed)

    @property
    def speeds(self) -> tuple[float, float]:
        """The slowest and the fastest that it speaks; 1 and 1 where units have no durations."""
        return (SLOWEST, FASTEST) if isinstance(self.vocoder, UnitVocoder) else (1.0, 1.0)

    def with_voices(self, voices: Mapping[str, Speaker]) -> SpeechDecoder:
        """The same weights with these voices by name."""
        return SpeechDecoder(self.unit_decoder, self.vocoder, voices)

    @property
    def renders_ssml(self) -> bool:
        """Whether it speaks replies in SSML: its units have durations."""
        return isinstance(self.vocoder, UnitVocoder)

    def forward(self, x: Tensor, beside: Tensor | None = None) -> Tensor:
        """In the usual voice. ``beside``: of the same tokens, see :meth:`beside`."""
        units = self.collapse(self.unit_decoder(x, beside))
        if isinstance(self.vocoder, UnitVocoder):
            return self.vocoder(units, speaker=next(iter(self.voices.values())))
        return self._silence(units) if self.vocoder is None else self.vocoder(units)

    def init_state(
        self, batch_size: int = 1, speed: float = 1.0, voice: str | None = None, ssml: bool = False
    ) -> SpeechDecoderState:
        """A reply that has not begun.

        Args:
            speed: within :attr:`speeds`; of batches, 1.
            voice: one of :attr:`voices`; None: the first.
            ssml: it is in SSML, if :attr:`renders_ssml`; batch 1.

        Raises:
            DuologueError: no such voice.
        """
        speaker = named(self.voices, next(iter(self.voices)) if voice is None else voice)
        vocoder: State | None = None
        marked = None
        if isinstance(self.vocoder, UnitVocoder):
            vocoder = begun = self.vocoder.init_state(batch_size, speaker)
            begun.speed = speed
            if ssml:
                device = next(self.unit_decoder.parameters()).device
                begun.manner, marked = MannerState(torch.zeros(1, 0, device=device)), MarkedState()
        elif self.vocoder is not None:
            vocoder = self.vocoder.init_state(batch_size)
        return SpeechDecoderState(
            self.unit_decoder.init_state(batch_size), self.collapse.init_state(batch_size), vocoder, marked
        )

    def step(self, x: Tensor, state: SpeechDecoderState, beside: Tensor | None = None) -> Tensor:
        return self.sound(self.units(x, state, beside), state)

    def flush(self, state: SpeechDecoderState) -> Tensor:
        held = self.sound(self.last_units(state), state)
        if self.vocoder is None or state.vocoder is None:
            return held
        return torch.cat([held, self.vocoder.flush(state.vocoder)], dim=1)  # type: ignore[arg-type]

    def units(
        self,
        x: Tensor,
        state: SpeechDecoderState,
        beside: Tensor | None = None,
        text: str = "",
        tags: str = "",
    ) -> Tensor:
        """The units (1, U) of the next states (1, t, D). Of a reply in SSML: of one token's, t = 1, with its text, and
        tags that stand before it and are no part of it."""
        if state.marked is None:
            logits = self.unit_decoder.step(x, state.unit_decoder, beside)  # type: ignore[arg-type]
            return self.collapse.step(logits, state.collapse)
        state.marked.waiting.append(MarkedToken(x, beside, len(text), len(tags) + len(text)))
        return self._speak(state.marked.push(state.marked.reader.push(tags + text)), state)

    def last_units(self, state: SpeechDecoderState, tags: str = "") -> Tensor:
        """The units (1, U) that the unit decoder has held back; none where it looks nothing ahead. ``tags``: behind the
        last token of a reply in SSML."""
        marked = state.marked
        if marked is None:
            return self.collapse.step(self.unit_decoder.flush(state.unit_decoder), state.collapse)  # type: ignore[arg-type]
        units = self._speak(marked.push(marked.reader.push(tags) + marked.reader.end()), state)
        logits = self.unit_decoder.flush(state.unit_decoder)  # type: ignore[arg-type]
        units = torch.cat([units, self._in_manner(logits, 0, state)], dim=1)
        rest = marked.pause + marked.pending + marked.reader.pause + (marked.late.pause if marked.late else 0.0)
        marked.pause = marked.pending = marked.reader.pause = 0.0
        marked.late = None
        if rest and isinstance(state.vocoder, VocoderState) and state.vocoder.manner is not None:
            state.vocoder.manner.units.append(Manner(pause=rest))
        return units

    def _speak(self, tokens: list[MarkedToken], state: SpeechDecoderState) -> Tensor:
        """The units (1, U) of tokens of a reply in SSML."""
        marked, decoder = state.marked, self.unit_decoder
        beside: list[str] | Tensor | None = None
        assert marked is not None
        if isinstance(decoder, SpellingDecoder):
            marked.manners += [manner for token in tokens for manner in token.manners]
            beside = [token.text for token in tokens]
        else:
            for token in tokens:
                pause = sum(manner.pause for manner in token.manners)
                if token.silent:
                    marked.pending += pause
                else:
                    word = next((m for m, sign in zip(token.manners, token.text, strict=True) if sign.strip()), PLAIN)
                    marked.manners.append(replace(word, pause=pause + marked.pending))
                    marked.pending = 0.0
            tokens = [token for token in tokens if not token.silent]
            besides = [token.beside for token in tokens if token.beside is not None]
            beside = torch.cat(besides, dim=1) if besides else None
        if not tokens:
            return torch.zeros(1, 0, dtype=torch.long, device=state.collapse.last.device)
        x = torch.cat([token.x for token in tokens], dim=1)
        logits = decoder.step(x, state.unit_decoder, beside)  # type: ignore[arg-type]
        return self._in_manner(logits, len(tokens), state)

    def _in_manner(self, logits: Tensor, tokens: int, state: SpeechDecoderState) -> Tensor:
        """The units (1, U) of logits (1, λn, units + 1); the vocoder is told how each is spoken."""
        marked, vocoder = state.marked, state.vocoder
        assert marked is not None and isinstance(vocoder, VocoderState) and vocoder.manner is not None
        labels, begun = self.collapse.begun(logits, state.collapse)
        places, left = self.unit_decoder.places(state.unit_decoder, tokens)  # type: ignore[arg-type]
        for frame in begun[0].nonzero()[:, 0].tolist():
            vocoder.manner.units.append(marked.spoken(places[frame // self.unit_decoder.config.upsample]))
        marked.forget(len(marked.manners) - left)
        return labels[begun][None]

    def held(self, state: SpeechDecoderState) -> int:
        """How many of the last tokens have units to come."""
        waiting = 0 if state.marked is None else len(state.marked.waiting)
        return waiting + self.unit_decoder.held(state.unit_decoder)  # type: ignore[arg-type]

    def sound(self, units: Tensor, state: SpeechDecoderState) -> Tensor:
        """The samples (1, n) that the next units (1, U) bring."""
        if self.vocoder is None or units.shape[1] == 0:
            return self._silence(units)
        return self.vocoder.step(units, state.vocoder)  # type: ignore[arg-type]

    @staticmethod
    def _silence(like: Tensor) -> Tensor:
        return torch.zeros(1, 0, device=like.device)
