"""The speech decoder as one stage: the language model's states in, samples out; speech units lie between.

    states (1, T, D) -> unit decoder -> CTC collapse -> units (1, U) -> vocoder -> samples (1, n)

The vocoder is a unit vocoder or a codec's decoder. Without one, units are the last output and there are no samples.
The unit decoder reads states alone, embeddings of tokens or their spelling beside them (:meth:`SpeechDecoder.beside`).
``step`` goes all the way; :meth:`SpeechDecoder.units` and :meth:`SpeechDecoder.sound` are its halves, for whoever wants
samples later than units.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fractions import Fraction

import torch
from torch import Tensor

from ..codec.codec_vocoder import CodecVoice
from ..streaming import State, Streaming
from .spelling_decoder import SpellingDecoder, SpellingState
from .unit_decoder import CollapseState, CTCCollapse, UnitDecoder, UnitDecoderState
from .unit_vocoder import UnitVocoder
from .voices import DEFAULT, Speaker, named

SLOWEST, FASTEST = 0.8, 1.25  # speeds at which a voice whose units have durations still sounds like itself


@dataclass
class SpeechDecoderState(State):
    """The states of the three stages; ``vocoder`` is ``None`` where there is none."""

    unit_decoder: UnitDecoderState | SpellingState
    collapse: CollapseState
    vocoder: State | None


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

    def forward(self, x: Tensor, beside: Tensor | None = None) -> Tensor:
        """In the usual voice. ``beside``: of the same tokens, see :meth:`beside`."""
        units = self.collapse(self.unit_decoder(x, beside))
        if isinstance(self.vocoder, UnitVocoder):
            return self.vocoder(units, speaker=next(iter(self.voices.values())))
        return self._silence(units) if self.vocoder is None else self.vocoder(units)

    def init_state(self, batch_size: int = 1, speed: float = 1.0, voice: str | None = None) -> SpeechDecoderState:
        """A reply that has not begun.

        Args:
            speed: within :attr:`speeds`; of batches, 1.
            voice: one of :attr:`voices`; None: the first.

        Raises:
            DuologueError: no such voice.
        """
        speaker = named(self.voices, next(iter(self.voices)) if voice is None else voice)
        vocoder: State | None = None
        if isinstance(self.vocoder, UnitVocoder):
            vocoder = begun = self.vocoder.init_state(batch_size, speaker)
            begun.speed = speed
        elif self.vocoder is not None:
            vocoder = self.vocoder.init_state(batch_size)
        return SpeechDecoderState(
            self.unit_decoder.init_state(batch_size), self.collapse.init_state(batch_size), vocoder
        )

    def step(self, x: Tensor, state: SpeechDecoderState, beside: Tensor | None = None) -> Tensor:
        return self.sound(self.units(x, state, beside), state)

    def flush(self, state: SpeechDecoderState) -> Tensor:
        held = self.sound(self.last_units(state), state)
        if self.vocoder is None or state.vocoder is None:
            return held
        return torch.cat([held, self.vocoder.flush(state.vocoder)], dim=1)  # type: ignore[arg-type]

    def units(self, x: Tensor, state: SpeechDecoderState, beside: Tensor | None = None) -> Tensor:
        """The units (1, U) of the next states (1, t, D)."""
        logits = self.unit_decoder.step(x, state.unit_decoder, beside)  # type: ignore[arg-type]
        return self.collapse.step(logits, state.collapse)

    def last_units(self, state: SpeechDecoderState) -> Tensor:
        """The units (1, U) that the unit decoder has held back; none where it looks nothing ahead."""
        return self.collapse.step(self.unit_decoder.flush(state.unit_decoder), state.collapse)  # type: ignore[arg-type]

    def held(self, state: SpeechDecoderState) -> int:
        """How many of the last tokens have units to come."""
        return self.unit_decoder.held(state.unit_decoder)  # type: ignore[arg-type]

    def sound(self, units: Tensor, state: SpeechDecoderState) -> Tensor:
        """The samples (1, n) that the next units (1, U) bring."""
        if self.vocoder is None or units.shape[1] == 0:
            return self._silence(units)
        return self.vocoder.step(units, state.vocoder)  # type: ignore[arg-type]

    @staticmethod
    def _silence(like: Tensor) -> Tensor:
        return torch.zeros(1, 0, device=like.device)
