"""The voices that a model speaks in (model/speech_decoder/voices.py): by name, or like a recording's.

A voice like a recording's is not learnt. Of a vocoder with a table of speakers it is the nearest of those that it has;
of a source-filter vocoder it is the model's own, with pitches and formants moved to where the recording has them. What
is compared is the recording and a reply of the model: the median pitch, and the mean cepstrum of voiced frames, whose
warping that correlates best is the formants' factor, as in Lee and Rose 1996, "Speaker normalization using efficient
frequency warping procedures" (ICASSP), with a mean envelope in the place of a recogniser's models. Nothing of the
recording is kept.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from ...data_prep.audio import read_audio
from ...data_prep.speech.pitch import pitch
from ...model.dialogue_model import DialogueModel
from ...model.errors import DuologueError
from ...model.speech_decoder.unit_vocoder import UnitVocoder
from ...model.speech_decoder.voices import DEFAULT, FORMANTS, PITCHES, Speaker, move_formants, named

if TYPE_CHECKING:
    from .assistant import Assistant

CLIP = "clip"  # the name of a voice that is like a recording's
RATE = 16_000  # Hz, at which voices are measured
ENVELOPE = 24  # coefficients of a mean envelope: too few for its harmonics
BAND = (300, 5000)  # Hz in which envelopes are compared
LEAST_S = 0.5  # of voiced speech, in which a voice can be measured
FACTORS = tuple(percent / 100 for percent in range(round(100 * FORMANTS[0]), round(100 * FORMANTS[1]) + 1))
_BINS = 2048
_SAID = "hello"  # what the model is asked, to measure its own voice


@dataclass(frozen=True)
class Measured:
    """What a voice is like. pitch: median, Hz. envelope: (ENVELOPE,) the mean cepstrum of its voiced frames."""

    pitch: float
    envelope: Tensor

    @classmethod
    def of(cls, samples: np.ndarray, what: str) -> Measured:
        """Of samples (n,) at RATE. ``what`` they are, for messages.

        Raises:
            DuologueError: too little of them is voiced.
        """
        hop = RATE // 100
        hertz = pitch(samples, RATE, hop)
        voiced = np.flatnonzero(hertz > 0)
        if len(voiced) < 100 * LEAST_S:
            spoken = f"{what} has {len(voiced) / 100:g} s of voiced speech"
            raise DuologueError(f"{spoken}; at least {LEAST_S:g} s tell what a voice is like")
        window = 3 * hop
        cut = np.lib.stride_tricks.sliding_window_view(np.pad(samples, window), window)
        frames = cut[voiced * hop + hop // 2 + window - window // 2] * np.hanning(window)
        log = np.log(np.abs(np.fft.rfft(frames, _BINS, axis=1)) + 1e-6)
        cepstrum = np.fft.irfft(log.mean(0))[:ENVELOPE]
        return cls(float(np.median(hertz[voiced])), torch.from_numpy(cepstrum).float())

    def becoming(self, other: Measured) -> Speaker:
        """The factors that make this voice most like the other."""
        least, most = PITCHES
        wanted = _gains(other.envelope)
        moved = (_gains(move_formants(self.envelope, factor, 2 * ENVELOPE)) for factor in FACTORS)
        alike = [float(torch.corrcoef(torch.stack([each, wanted]))[0, 1]) for each in moved]
        factor = min(max(other.pitch / self.pitch, least), most)
        return Speaker(pitch=round(factor, 3), formants=FACTORS[int(np.argmax(alike))])


def _gains(cepstrum: Tensor) -> Tensor:
    """Logarithms of the gain in BAND."""
    low, high = (hertz * _BINS // RATE for hertz in BAND)
    return torch.fft.rfft(cepstrum, _BINS).real[low:high]


def voices_of(model: DialogueModel) -> Mapping[str, Speaker]:
    """A model's voices by name, at least one; the first is who speaks where none is asked for."""
    return {DEFAULT: Speaker()} if model.speech is None else model.speech.voices


def check_voice(model: DialogueModel, name: str | None) -> None:
    """Raises DuologueError where a model has no such voice; None: the first."""
    if name is not None:
        named(voices_of(model), name)


def voices_with(assistant: Assistant, voice: Any) -> dict[str, Speaker]:
    """The voices of an assistant, with this one first: a name, or a recording (path, bytes or ``(rate, samples)``).

    Raises:
        DuologueError: neither a voice's name nor a file, or a recording that cannot be used.
    """
    known = voices_of(assistant.model)
    if isinstance(voice, str) and (voice in known or not Path(voice).is_file()):
        return {voice: named(known, voice), **known}
    return {CLIP: like(assistant, voice), **known}


def like(assistant: Assistant, recording: Any) -> Speaker:
    """The voice of a model that is most like a recording's.

    Raises:
        DuologueError: a recording that cannot be used, or a model whose voice cannot be changed.
    """
    vocoder = None if assistant.model.speech is None else assistant.model.speech.vocoder
    if not isinstance(vocoder, UnitVocoder) or not (vocoder.speakers or vocoder.config.source_filter):
        raise DuologueError("this model's voice cannot be like a recording's: that takes a source_filter vocoder, or "
                            "one with a table of speakers")  # fmt: skip
    wanted = Measured.of(read_audio(recording, RATE), "the recording")
    if vocoder.speakers is None:
        return _measured(assistant, Speaker()).becoming(wanted)

    def change(speaker: Speaker) -> float:
        needed = _measured(assistant, speaker).becoming(wanted)
        return abs(math.log(needed.pitch)) + abs(math.log(needed.formants))

    return min(voices_of(assistant.model).values(), key=change)


def _measured(assistant: Assistant, speaker: Speaker) -> Measured:
    """What one of the model's voices is like, by a reply in it."""
    reply = assistant.speaking_in({DEFAULT: speaker}).ask(text=_SAID)
    return Measured.of(read_audio((reply.sample_rate, reply.waveform), RATE), "the model's own reply")
