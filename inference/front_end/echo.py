"""Take the loudspeaker's echo out of the microphone's signal: an acoustic echo canceller, and the first stage of a
session. Microphone and loudspeaker in, microphone without the echo out, frame by frame.

Delay: while the microphone hears something that the filter does not explain, look for the peak of the cross-correlation
of the last three frames with all played samples that may still come back. The spectra are flattened by a power of 0.7.

Filter: behind the delay, 240 ms of the room's impulse response are adapted by a Kalman filter in the frequency domain,
in blocks of 10 ms. Its step size follows from how much of the microphone it expects to be echo, so a person who speaks
over the echo does not spoil it. A new filter first runs over the three frames that the delay was found in. It is used
only if it explains the last of them. So an echo is recognised from its second loud frame on, and a signal without an
echo stays as it is, to the bit.

Sources: Knapp and Carter, IEEE Trans. ASSP 24(4), 1976 (delay); Donohue, Hannemann and Dietz, Signal Processing 87(7),
2007 (power of the flattening); Enzner and Vary, Signal Processing 86(6), 2006, and Kuech, Mabande and Enzner, ICASSP
2014 (Kalman filter, in partitions).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import NamedTuple, Self

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

from ...model.streaming import State

_FRAMES = 3  # that the delay is searched with
_BLOCKS = 8  # a frame
_PARTS = 24  # blocks that the room is heard for
_LEAD = 1  # blocks by which the direct sound may come before the peak
_FLATTEN = 0.7
_PEAK = 8.0  # times the root mean square of the cross-correlation; unrelated speech stays below it 19 times of 20
_SILENCE = 1e-6  # mean square: -60 dBFS; nothing to look for
_BETTER = 0.7  # of the energy left by the filter in use: less must be left by a new one
_START = 0.5  # variance of a new filter's first part, in energies of the echo
_DECAY = 0.06  # of that variance from part to part, in powers of ten: a reverberation time of 1 s
_DRIFT = 0.998**2  # how well the room is as it was a block ago
_KEEP = 0.5  # of the spectrum of what is no echo, from block to block
_FADE = 0.5  # of the echo's level from frame to frame: reverberation beyond the filter


class EchoEstimate(NamedTuple):
    """A frame (F,) without its echo; whether nothing but echo was in it; whether that has just been found out."""

    pcm: Tensor
    echo: bool
    found: bool


@dataclass
class EchoGuard(State):
    """What was heard and played last, and what is known of the way between.

    heard: the last three frames of the microphone, (3 F,).
    played: of the loudspeaker all samples that may still come back, and those that the filter needs before them.
    path: the impulse response behind the delay, (parts, B) for blocks of B samples.
    doubt: the variance of its spectrum, (parts, B + 1).
    noise: power spectrum of the microphone without the echo, (B + 1,).
    delay: samples between playing and hearing; None: no echo was heard yet.
    level: mean square of the echo, with a decay.
    """

    heard: Tensor
    played: Tensor
    path: Tensor
    doubt: Tensor
    noise: Tensor
    delay: int | None = None
    level: float = 0.0

    @classmethod
    def begin(cls, frame: int, reach: int) -> Self:
        """For frames of so many samples (a multiple of 8) and echoes up to ``reach`` samples late."""
        block, zeros = frame // _BLOCKS, torch.zeros
        played = zeros(reach + (_PARTS + 1) * block + _FRAMES * frame)
        path, doubt = zeros(_PARTS, block), zeros(_PARTS, block + 1)
        return cls(zeros(_FRAMES * frame), played, path, doubt, noise=zeros(block + 1))

    def hear(self, pcm: Tensor, echo: float) -> EchoEstimate:
        """Take the echo out of a frame (F,).

        Args:
            echo: a frame is nothing but echo if less than ``1 - echo`` of the echo's energy is left in it; 1: take
                nothing out.
        """
        self.heard = torch.cat([self.heard[len(pcm) :], pcm])
        self.level *= _FADE
        if echo >= 1 or not self.played.any():
            return EchoEstimate(pcm, False, False)
        rest, found = pcm, False
        if self.delay is not None and self._behind(self.delay, len(pcm)).any():
            cancelled = self._cancel(pcm, self.delay)
            assert cancelled is not None
            rest, said = cancelled
            self.level = max(self.level, _power(said))
        if _power(pcm) > _SILENCE and _power(rest) >= (1 - echo) * self.level:
            better = self._found(_power(rest))
            if better is not None:
                rest, found = better, True
        if _power(rest) > _power(pcm):
            rest = pcm
        return EchoEstimate(rest, _power(rest) < (1 - echo) * self.level, found)

    def play(self, pcm: Tensor) -> None:
        """The loudspeaker plays (F,) next."""
        self.played = torch.cat([self.played[len(pcm) :], pcm])

    def _found(self, left: float) -> Tensor | None:
        """The last frame by a new filter at a new delay, if that leaves clearly less than ``left``: then it is used."""
        block = self.path.shape[1]
        delay = self._search(self.played[(_PARTS + 1) * block :])
        if delay is None:
            return None
        end = len(self.played) - delay
        gain = _power(self.heard) / max(_power(self.played[end - len(self.heard) : end]), _SILENCE)
        variance = _START * min(gain, 4.0) * 10 ** (-_DECAY * torch.arange(_PARTS))
        new = replace(self, path=torch.zeros_like(self.path), doubt=variance[:, None].repeat(1, block + 1))
        better = new._cancel(self.heard, delay, _BETTER * left)
        if better is None:
            return None
        rest, said = (x[-_BLOCKS * block :] for x in better)
        self.delay, self.path, self.doubt, self.noise = delay, new.path, new.doubt, new.noise
        self.level = max(self.level, _power(said))
        return rest

    def _search(self, played: Tensor) -> int | None:
        """How many samples ago the last three frames were played, if they were."""
        width, size = len(self.heard), 1 << (len(played) - 1).bit_length()
        # By numpy, whose transforms of this size take a third of the time that torch's take on a CPU.
        spectrum = np.fft.rfft(played.numpy(), size) * np.fft.rfft(self.heard.numpy(), size).conj()
        spectrum[: size // (2 * _BLOCKS * self.path.shape[1])] = 0  # below 6 Hz: offsets, which are no echo
        magnitude = np.abs(spectrum)
        spectrum /= (magnitude + (1e-9 * magnitude.max() + 1e-20)) ** np.float32(_FLATTEN)
        products = np.abs(np.fft.irfft(spectrum, size)[: len(played) - width + 1])  # by where the copy begins
        at = int(products.argmax())
        if float(products[at]) <= _PEAK * float(np.sqrt(np.mean(products * products))):
            return None
        return len(played) - width - at

    def _behind(self, delay: int, count: int) -> Tensor:
        """What was played for the last ``count`` samples of the microphone, and for the filter before them."""
        block = self.path.shape[1]
        end = len(self.played) - max(0, delay - _LEAD * block)
        return self.played[end - count - _PARTS * block : end]

    def _cancel(self, pcm: Tensor, delay: int, most: float = math.inf) -> tuple[Tensor, Tensor] | None:
        """Of the last samples (n,), n a multiple of B: what is no echo, and what is; adapts the filter.

        most: mean square of what is no echo in the last frame; None once there is more.
        """
        block, echoes = self.path.shape[1], []
        frames = pcm.view(-1, block)
        spectra = torch.fft.rfft(self._behind(delay, len(pcm)).unfold(0, 2 * block, block)).flip(0)  # newest first
        conjugates, powers, left = spectra.conj().resolve_conj(), 0.5 * _squared(spectra), most * _BLOCKS * block
        path, doubt, noise = torch.fft.rfft(self.path, 2 * block), self.doubt, self.noise
        for at, frame in enumerate(frames):
            parts = slice(len(frames) - 1 - at, len(frames) - 1 - at + _PARTS)
            power = powers[parts]  # (parts, B + 1)
            echo = torch.fft.irfft((spectra[parts] * path).sum(0))[block:]
            echoes.append(echo)
            rest = frame - echo
            if most < math.inf and at >= len(frames) - _BLOCKS:
                left -= float(rest.dot(rest))
                if left < 0:
                    return None
            error = torch.fft.rfft(pad(rest, (block, 0)))
            noise = _KEEP * noise + (1 - _KEEP) * _squared(error)
            gain = doubt / ((power * doubt).sum(0) + noise + _SILENCE)
            step = torch.fft.irfft(gain * conjugates[parts] * error)[:, :block]  # a part is one block long
            path = path + torch.fft.rfft(step, 2 * block)
            doubt = torch.addcmul(doubt, gain * power, doubt, value=-1).mul_(_DRIFT)
            doubt.add_(_squared(path), alpha=1 - _DRIFT)
        self.path, self.doubt, self.noise = torch.fft.irfft(path)[:, :block], doubt, noise
        said = torch.cat(echoes)
        return pcm - said, said


def _power(pcm: Tensor) -> float:
    return float(pcm.square().mean())


def _squared(spectrum: Tensor) -> Tensor:
    return torch.addcmul(spectrum.real.square(), spectrum.imag, spectrum.imag)
