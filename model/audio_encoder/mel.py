"""Log-mel spectrogram: the first stage of the audio encoder. Samples at 16 kHz in, (B, M, T) at 100 Hz out.

Two normalisations. ``"whisper"`` reproduces openai-whisper (centred frames, floor at the clip's maximum - 8), which
needs the whole clip, so it cannot be streamed. ``"causal"`` looks only backwards: frame t ends at sample (t + 1) * hop,
and the floor is a constant.

Source: Radford et al., "Robust Speech Recognition via Large-Scale Weak Supervision" (arXiv 2212.04356), section 2.2;
mel scale of Slaney's Auditory Toolbox, as librosa computes it.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import DuologueError
from ..streaming import State, Streaming


@dataclass(frozen=True, kw_only=True)
class LogMelConfig:
    """What the spectrogram is made of."""

    sample_rate: int = 16000
    n_mels: int = 80
    n_fft: int = 400  # 25 ms
    hop: int = 160  # 10 ms: 100 Hz
    norm: Literal["causal", "whisper"] = "causal"

    def __post_init__(self) -> None:
        if self.norm not in ("causal", "whisper"):
            raise DuologueError(f"mel norm is {self.norm!r}; it must be 'causal' or 'whisper'")
        if not 0 < self.hop <= self.n_fft:
            raise DuologueError(f"mel hop is {self.hop}; it must be between 1 and n_fft = {self.n_fft}")


def mel_filters(sample_rate: int, n_fft: int, n_mels: int) -> Tensor:
    """Triangular, area-normalised filters on Slaney's mel scale: (n_mels, n_fft // 2 + 1), float32."""
    from transformers.audio_utils import mel_filter_bank

    top = sample_rate / 2
    filters = mel_filter_bank(n_fft // 2 + 1, n_mels, 0.0, top, sample_rate, norm="slaney", mel_scale="slaney")
    return torch.from_numpy(filters.T.astype("float32", order="C"))


@dataclass
class LogMelState(State):
    """The samples that the next frame still needs: (B, n_fft - hop + remainder)."""

    pending: Tensor


class LogMel(Streaming):
    """(B, n) samples in [-1, 1] -> (B, M, T) log-mel, T = n // hop."""

    def __init__(self, config: LogMelConfig) -> None:
        super().__init__()
        self.config = config
        self.rate = Fraction(1, config.hop)
        self.exact = config.norm == "causal"
        self.filters: Tensor
        self.window: Tensor
        self.register_buffer("filters", mel_filters(config.sample_rate, config.n_fft, config.n_mels), persistent=False)
        self.register_buffer("window", torch.hann_window(config.n_fft), persistent=False)

    def power(self, x: Tensor) -> Tensor:
        """(B, n) already padded -> (B, M, T) mel power of every whole frame."""
        c = self.config
        if x.shape[-1] < c.n_fft:
            return x.new_zeros(x.shape[0], c.n_mels, 0)
        with torch.autocast(x.device.type, enabled=False):  # a power spectrum spans more than bf16 resolves
            spectrum = torch.stft(x.float(), c.n_fft, c.hop, window=self.window, center=False, return_complex=True)
            power = spectrum.real.square() + spectrum.imag.square()  # (B, F, T)
            return self.filters @ power  # (B, M, T)

    def forward(self, x: Tensor) -> Tensor:
        c = self.config
        if c.norm == "causal":
            return self._log_causal(self.power(F.pad(x, (c.n_fft - c.hop, 0))))
        padded = F.pad(x[:, None], (c.n_fft // 2, c.n_fft // 2), mode="reflect")[:, 0]
        log = self.power(padded)[..., : x.shape[-1] // c.hop].clamp(min=1e-10).log10()
        log = torch.maximum(log, log.amax(dim=(-2, -1), keepdim=True) - 8.0)
        return (log + 4.0) / 4.0

    @staticmethod
    def _log_causal(power: Tensor) -> Tensor:
        # A constant floor stands in for Whisper's clip-wide one: 1e-7 lies below the noise of a quiet microphone.
        return (power.clamp(min=1e-7).log10() + 4.0) / 4.0

    def init_state(self, batch_size: int = 1) -> LogMelState:
        if self.config.norm != "causal":
            raise DuologueError(
                "mel norm 'whisper' needs the whole clip (its floor is the clip's maximum - 8); "
                "to stream, use norm='causal'"
            )
        return LogMelState(pending=self.window.new_zeros(batch_size, self.config.n_fft - self.config.hop))

    def step(self, x: Tensor, state: LogMelState) -> Tensor:
        samples = torch.cat([state.pending, x], dim=-1)
        frames = max(0, (samples.shape[-1] - self.config.n_fft) // self.config.hop + 1)
        state.pending = samples[:, frames * self.config.hop :]
        used = (frames - 1) * self.config.hop + self.config.n_fft if frames else 0
        return self._log_causal(self.power(samples[:, :used]))

    def flush(self, state: LogMelState) -> Tensor:
        return state.pending.new_zeros(state.pending.shape[0], self.config.n_mels, 0)
