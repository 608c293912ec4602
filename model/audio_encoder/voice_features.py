"""What an encoder that was trained for words may have lost of how they are said: samples (B, n) in, features (B, T, F)
at 50 Hz out.

Of each 40 ms: log power in bands (level and tilt), how periodic the sound is (voice or whisper), and its pitch.
Frame t ends with sample 320 (t + 1), as an encoder's frame does, and nothing behind it is looked at.

Source: periodicity is the autocorrelation of a windowed frame over the window's own, Boersma 1993 (IFA Proceedings 17).
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

import torch
import torch.nn.functional as F
from torch import Tensor

from ..streaming import State, Streaming
from .mel import mel_filters

BANDS = 24
FEATURES = BANDS + 2
_HOP, _WINDOW, _FFT = 320, 640, 1280  # samples at 16 kHz
_LAGS = (40, 229)  # 400 to 70 Hz
_OCTAVE = 0.02  # a period is worth so much more than two


@dataclass
class VoiceState(State):
    """The samples that the next frame still needs: (B, 320 + remainder)."""

    pending: Tensor


class VoiceFeatures(Streaming):
    """(B, n) samples in [-1, 1] -> (B, n // 320, F). It has no weights."""

    rate = Fraction(1, _HOP)
    time_out = 1

    def __init__(self) -> None:
        super().__init__()
        self.window: Tensor
        self.filters: Tensor
        self.own: Tensor  # (lags,) what the window's own autocorrelation leaves of a sound that repeats exactly
        self.worth: Tensor  # (lags,)
        window = torch.hann_window(_WINDOW, dtype=torch.float32)
        own = torch.fft.irfft(torch.fft.rfft(window, _FFT).abs().square())
        lags = torch.arange(*_LAGS)
        self.register_buffer("window", window, persistent=False)
        self.register_buffer("filters", mel_filters(16_000, _FFT, BANDS), persistent=False)
        self.register_buffer("own", own[lags] / own[0], persistent=False)
        self.register_buffer("worth", _OCTAVE * torch.log2(lags / _LAGS[0]), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return self._features(F.pad(x, (_WINDOW - _HOP, 0)))

    def init_state(self, batch_size: int = 1) -> VoiceState:
        return VoiceState(torch.zeros(batch_size, _WINDOW - _HOP, device=self.window.device))

    def step(self, x: Tensor, state: VoiceState) -> Tensor:
        samples = torch.cat([state.pending, x], dim=1)
        frames = max(0, (samples.shape[1] - _WINDOW) // _HOP + 1)
        state.pending = samples[:, frames * _HOP :].clone()
        return self._features(samples[:, : (frames - 1) * _HOP + _WINDOW if frames else 0])

    def flush(self, state: VoiceState) -> Tensor:
        return state.pending.new_zeros(len(state.pending), 0, FEATURES)

    def _features(self, samples: Tensor) -> Tensor:
        """(B, 640 + 320 k) -> (B, k + 1, F); fewer samples: none."""
        if samples.shape[1] < _WINDOW:
            return samples.new_zeros(len(samples), 0, FEATURES)
        with torch.autocast(samples.device.type, enabled=False):
            frames = samples.float().unfold(1, _WINDOW, _HOP)
            power = torch.fft.rfft((frames - frames.mean(-1, keepdim=True)) * self.window.float(), _FFT).abs().square()
            bands = (power @ self.filters.T.float()).clamp(min=1e-7).log10()  # (B, T, bands)
            again = torch.fft.irfft(power)[..., slice(*_LAGS)] / (power.mean(-1, keepdim=True) + 1e-6) / self.own
            peak, lag = (again - self.worth).max(dim=-1, keepdim=True)
            peak = (peak + self.worth[lag]).clamp(0.0, 1.0)
            pitch = torch.log2(200.0 / (16_000 / (lag + _LAGS[0])))  # octaves below 200 Hz
            return torch.cat([bands / 4 + 1, peak, peak * pitch], dim=-1)
