"""The voices of one vocoder: a name each, and what sets it apart.

A voice may be a row of a learnt table of speaker embeddings, which are added to those of the units (Polyak et al. 2021,
arXiv 2104.00355, section 3.3), and it may be the same speaker changed: pitches times a factor, and the frequencies of
the formants times another, as vocal tract length normalisation changes them. The second kind needs no training, only a
generator that has a pitch and an envelope (source_filter.py).

Formants are moved by a first-order all-pass in the place of each delay of the envelope's cepstrum. A linear map of
cepstra, it is exact in a stream, and a minimum phase stays one.

Source: Oppenheim and Johnson 1972, "Discrete representation of signals" (Proc. IEEE 60(6)), section III; as vocal tract
length normalisation: Pitz and Ney 2005, "Vocal Tract Normalization Equals Linear Transformation in Cepstral Space"
(IEEE Trans. Speech Audio Process. 13(5)).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from ..errors import DuologueError

PITCHES, FORMANTS = (0.5, 2.0), (0.7, 1.4)  # the least and the largest factor
DEFAULT = "default"  # the voice of a vocoder whose config names none
_GRID = 4096  # frequencies at which the all-pass is computed


@dataclass(frozen=True, kw_only=True)
class Speaker:
    """What a voice is."""

    row: int | None = None  # of the table of speaker embeddings; None: there is no table
    pitch: float = 1.0  # pitches are multiplied by it
    formants: float = 1.0  # and the formants' frequencies, low ones by all of it

    @property
    def changed(self) -> bool:
        """Whether pitch or formants are other than the vocoder learnt them."""
        return (self.pitch, self.formants) != (1.0, 1.0)

    def __post_init__(self) -> None:
        for name, (least, most) in {"pitch": PITCHES, "formants": FORMANTS}.items():
            if not least <= getattr(self, name) <= most:
                raise DuologueError(f"a voice's {name} is {getattr(self, name)}; it must be {least} to {most}")


def rows_of(voices: Mapping[str, Speaker]) -> int:
    """The rows of their table; 0: they have none.

    Raises:
        DuologueError: some voices have a row and some none, or there are rows of nobody.
    """
    rows = {speaker.row for speaker in voices.values()}
    if rows <= {None}:
        return 0
    if rows != set(range(len(rows))):
        shown = ", ".join(f"{name}: {speaker.row}" for name, speaker in voices.items())
        raise DuologueError(f"voices have the rows {shown}; each needs one, and they must be 0 to the last")
    return len(rows)


def named(voices: Mapping[str, Speaker], name: str) -> Speaker:
    """The voice of this name.

    Raises:
        DuologueError: there is none.
    """
    if name not in voices:
        raise DuologueError(f"there is no voice {name[:40]!r}; this model has: {', '.join(voices)}")
    return voices[name]


def move_formants(cepstra: Tensor, factor: float, longest: int) -> Tensor:
    """Cepstra (..., C) of a minimum phase -> those (..., C') with formants at ``factor`` times their frequencies, C' at
    most ``longest``."""
    return cepstra @ _warp(factor, cepstra.shape[-1], longest).to(cepstra.device)


@lru_cache(maxsize=64)
def _warp(factor: float, cepstrum: int, longest: int) -> Tensor:
    """(C, C'): row k is the response of k all-passes in a row."""
    a = (1 - factor) / (1 + factor)
    turns = torch.linspace(0, math.pi, _GRID // 2 + 1, dtype=torch.float64)
    phase = turns + 2 * torch.atan2(a * turns.sin(), 1 - a * turns.cos())
    order = torch.arange(cepstrum, dtype=torch.float64)[:, None]
    responses = torch.fft.irfft(torch.polar(torch.ones_like(order * phase), -order * phase), _GRID)
    return responses[:, : min(longest, math.ceil(1.5 * cepstrum))].float()
