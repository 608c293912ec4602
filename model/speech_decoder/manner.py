"""How a unit vocoder renders pauses, emphasis and rates (ssml.py): durations, pitch, loudness and silence.

    unit's manner -> its pieces' pitch and gain, which glide from one value to the next -> generator, samples

A pause is silence between the samples of two units, which fade out and in; nothing else of them changes. An emphasised
word is longer, louder and, where the generator has a pitch to be told, higher. A generator's samples come later than
its frames, so what frames ask of samples waits in :class:`MannerState`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ..streaming import State
from .ssml import Manner

# Of strong emphasis; espeak-ng's figures but for the pitch (docs/ssml.md).
LONGER = 1.2  # durations are multiplied by it
LOUDER_DB = 4.0
HIGHER = 0.12  # logarithm of the pitch
_GLIDE = 0.06  # s, from no emphasis to strong, or back
_FADE = 0.01  # s, before and behind a pause


@dataclass
class MannerState(State):
    """How the units of a reply are spoken, from when they are decoded until their samples are out.

    units: manners of units that have no duration yet; one more, with a pause, where nothing followed it.
    emphasis: of the last piece. gains: dB at the end of each piece whose samples have not all come; before: of the one
        before. offset: samples of the first of them that have come.
    pauses: samples of silence, each with how many samples (of speech, not yet out) come before it.
    known: samples of speech, not yet out, that the pieces so far will be. fading: samples that still fade in.
    held: (1, n) samples that may yet fade out.
    """

    held: Tensor
    units: list[Manner] = field(default_factory=list)
    emphasis: float = 0.0
    gains: list[float] = field(default_factory=list)
    before: float = 0.0
    offset: int = 0
    pauses: list[tuple[int, int]] = field(default_factory=list)
    known: int = 0
    fading: int = 0

    def pieces(self, lengths: Sequence[int], piece: int, sample_rate: int) -> list[float]:
        """The next units last so many pieces of ``piece`` samples; returns how much higher each is (logarithm)."""
        manners, self.units = self.units[: len(lengths)], self.units[len(lengths) :]
        most, higher = piece / (_GLIDE * sample_rate), list[float]()
        for manner, length in zip(manners, lengths, strict=True):
            self._pause(manner.pause, sample_rate)
            for _ in range(length):
                change = manner.emphasis - self.emphasis
                self.emphasis += min(most, max(-most, change))
                self.gains.append(LOUDER_DB * self.emphasis)
                higher.append(HIGHER * self.emphasis)
            self.known += length * piece
        return higher

    def _pause(self, seconds: float, sample_rate: int) -> None:
        if seconds:
            self.pauses.append((self.known, round(seconds * sample_rate)))

    def sound(self, pcm: Tensor, piece: int, sample_rate: int, last: bool) -> Tensor:
        """The generator's next samples (1, n) -> what is heard of them, with the pauses."""
        fade = round(_FADE * sample_rate)
        if last:
            for manner in self.units:
                self._pause(manner.pause, sample_rate)
            self.units = []
        pcm, out = torch.cat([self.held, self._louder(pcm, piece)], dim=1), list[Tensor]()
        while self.pauses and self.pauses[0][0] <= pcm.shape[1]:
            at, silence = self.pauses.pop(0)
            speech = self._faded_in(pcm[:, :at], fade)
            tail = min(fade, at)
            speech[:, at - tail :] *= torch.linspace(1, 0, tail + 1, device=pcm.device)[1:]
            out += [speech, pcm.new_zeros(1, silence)]
            pcm, self.known, self.fading = pcm[:, at:], self.known - at, fade
            self.pauses = [(later - at, length) for later, length in self.pauses]
        ready = pcm.shape[1] if last else min(pcm.shape[1], max(0, self._next_pause() - fade))
        self.held = pcm[:, ready:].clone()
        self.known -= ready
        self.pauses = [(later - ready, length) for later, length in self.pauses]
        return torch.cat([*out, self._faded_in(pcm[:, :ready], fade)], dim=1)

    def _next_pause(self) -> int:
        """Samples of speech until a pause may come."""
        return self.pauses[0][0] if self.pauses else self.known

    def _faded_in(self, pcm: Tensor, fade: int) -> Tensor:
        count = min(self.fading, pcm.shape[1])
        if count:
            begun = fade - self.fading
            ramp = torch.linspace(0, 1, fade + 1, device=pcm.device)[begun : begun + count]
            pcm = torch.cat([pcm[:, :count] * ramp, pcm[:, count:]], dim=1)
            self.fading -= count
        return pcm.clone()

    def _louder(self, pcm: Tensor, piece: int) -> Tensor:
        """Each sample by the gain of its piece, which it glides to."""
        count = pcm.shape[1]
        if not count:
            return pcm
        # Generators may give samples in parts of a piece, and what is after the last piece's.
        begun = min(len(self.gains), -(-(self.offset + count) // piece))
        ends = pcm.new_tensor([self.before, *self.gains[:begun]])
        glide = torch.arange(1, piece + 1, device=pcm.device) / piece
        gains = ends[:-1, None] + ends.diff()[:, None] * glide
        gains = gains.flatten()[self.offset : self.offset + count]
        done = (self.offset + count) // piece
        self.before, self.gains, self.offset = float(ends[done]), self.gains[done:], (self.offset + count) % piece
        if not gains.any():
            return pcm
        return (pcm * 10 ** (gains / 20)).clamp(-1, 1)


def durations_in(manners: Sequence[Manner], durations: Sequence[float]) -> list[float]:
    """Frames that units last, by their manners; not rounded."""
    longer = (1 + (LONGER - 1) * manner.emphasis for manner in manners)
    return [duration * by / manner.rate for manner, duration, by in zip(manners, durations, longer, strict=False)]
