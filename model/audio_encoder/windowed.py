"""An encoder that was trained on whole clips, run while the user is still speaking: an encoder with a window.

Whisper's frames see every other frame, and its mel is floored by the clip's loudest moment, so its numbers are there
only when the clip is. Here each chunk is encoded with so much sound before it and after it, at its own position, the
mel floored by what has been heard so far; then the window moves on. ``forward`` is the offline encoder, whose numbers
are the released ones; ``step`` and ``flush`` come near them (``exact = False``). How near depends on the weights:
measure it with :func:`interior_error`.

Samples (B, n) at 16 kHz in, frames (B, T, D) at 50 Hz out.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import DuologueError
from ..streaming import State, Streaming
from .encoder import Encoder
from .mel import LogMel


@dataclass(frozen=True, kw_only=True)
class WindowConfig:
    """What a chunk is encoded with. All are multiples of 20 ms; an encoder with chunks of its own rounds them up.

    With these defaults nano, whose encoder was trained in chunks, answers as without windows (see its card); what an
    encoder that was trained on whole clips loses, `duologue bench encoder` measures.
    """

    left_ms: int = 8000  # before the chunk
    chunk_ms: int = 400
    right_ms: int = 400  # after it: how long the encoder lags behind

    def __post_init__(self) -> None:
        for name in ("left_ms", "chunk_ms", "right_ms"):
            value = getattr(self, name)
            if value < 0 or value % 20 or (name == "chunk_ms" and not value):
                raise DuologueError(f"window {name} is {value}; it must be a multiple of 20 (chunk_ms: above 0)")


@dataclass
class WindowedState(State):
    """What the next windows need."""

    pending: Tensor  # samples (B, m) that the next mel frame still needs
    heard: int  # samples so far
    power: Tensor  # log10 of the mel frames in reach, (B, M, W), not yet floored by the clip's loudest
    loudest: Tensor  # (B, 1, 1), of all mel frames so far
    start: int  # number of the first mel frame in ``power``
    done: int  # mel frames whose encoder frames have been given out


class WindowedEncoder(Streaming):
    """Mel and encoder with a window. It has no weights of its own."""

    exact = False
    time_out = 1

    def __init__(self, mel: LogMel, encoder: Encoder, config: WindowConfig) -> None:
        super().__init__()
        self.config = config
        self.parts = (mel, encoder)  # in a tuple, which does not register: they are registered where they belong
        self.clipwise = mel.config.norm == "whisper"  # frames centred on their samples, floored by the loudest of all
        hop_ms = 1000 * mel.config.hop // mel.config.sample_rate
        grid = 2 * (encoder.config.chunk or 1)  # mel frames; a window that begins elsewhere would cut other chunks
        self.left, self.chunk, self.right = (
            -(-ms // (grid * hop_ms)) * grid for ms in (config.left_ms, config.chunk_ms, config.right_ms)
        )  # mel frames
        self.rate = Fraction(1, 2 * mel.config.hop)
        self.latency = (self.chunk + self.right) * mel.config.hop + mel.config.n_fft // 2

    def forward(self, x: Tensor) -> Tensor:
        mel, encoder = self.parts
        return encoder(mel(x))

    def init_state(self, batch_size: int = 1) -> WindowedState:
        c, like = self.parts[0].config, self.parts[0].window
        silence = 0 if self.clipwise else c.n_fft - c.hop  # before a causal mel's first sample
        return WindowedState(
            pending=like.new_zeros(batch_size, silence),
            heard=0,
            power=like.new_zeros(batch_size, c.n_mels, 0),
            loudest=like.new_full((batch_size, 1, 1), -10.0),
            start=0,
            done=0,
        )

    def step(self, x: Tensor, state: WindowedState) -> Tensor:
        before, state.heard = state.heard, state.heard + x.shape[1]
        half = self.parts[0].config.n_fft // 2 if self.clipwise else 0
        state.pending = torch.cat([state.pending, x], dim=1)
        if before <= half < state.heard and half:  # the first frame's middle is the first sample: sound is mirrored
            state.pending = F.pad(state.pending[:, None], (half, 0), mode="reflect")[:, 0]
        if state.heard > half:
            self._add_frames(state)
        return self._encode(state, last=False)

    def flush(self, state: WindowedState) -> Tensor:
        c = self.parts[0].config
        half = c.n_fft // 2
        if self.clipwise and state.heard > half:
            state.pending = F.pad(state.pending[:, None], (0, half), mode="reflect")[:, 0]
            self._add_frames(state)
            whole = state.heard // c.hop - state.start  # as offline: a frame that hangs over the end is dropped
            state.power = state.power[..., :whole]
        return self._encode(state, last=True)

    def _add_frames(self, state: WindowedState) -> None:
        """Turn samples into mel frames, as many as are whole."""
        mel = self.parts[0]
        c = mel.config
        frames = max(0, (state.pending.shape[1] - c.n_fft) // c.hop + 1)
        if frames == 0:
            return
        power = mel.power(state.pending[:, : (frames - 1) * c.hop + c.n_fft]).clamp(
            min=1e-10 if self.clipwise else 1e-7
        )
        power = power.log10()  # (B, M, frames)
        state.pending = state.pending[:, frames * c.hop :].clone()
        state.power = torch.cat([state.power, power], dim=2)
        state.loudest = torch.maximum(state.loudest, power.amax(dim=(1, 2), keepdim=True))

    def _encode(self, state: WindowedState, last: bool) -> Tensor:
        """Encode all whole chunks that have their right context, or all that is left; drop what is out of reach."""
        encoder = self.parts[1]
        batch, end = state.power.shape[0], state.start + state.power.shape[2]
        ready = end - state.done if last else (end - self.right - state.done) // self.chunk * self.chunk
        if ready <= 0:
            return next(encoder.parameters()).new_zeros(batch, 0, encoder.config.width)
        stop = min(end, state.done + ready + self.right)
        window = state.power[..., : stop - state.start]
        if self.clipwise:
            window = torch.maximum(window, state.loudest - 8.0)
        offsets = torch.full((batch,), state.start // 2, device=window.device)
        frames = encoder((window + 4.0) / 4.0, offsets=offsets)  # (B, T', D)
        first = (state.done - state.start) // 2
        state.done += ready
        frames = frames[:, first:] if last else frames[:, first : (state.done - state.start) // 2]
        keep = max(0, state.done - self.left - state.start) // 2 * 2
        state.power = state.power[..., keep:].clone()
        state.start += keep
        return frames


@torch.no_grad()
def interior_error(audio_encoder: WindowedEncoder, waveform: Tensor, edge_ms: int = 400) -> float:
    """Relative error of the stream against the offline encoder on clips (B, n), without so much at either end."""
    state = audio_encoder.init_state(waveform.shape[0])
    pieces = [
        audio_encoder.step(piece, state) for piece in waveform.split(audio_encoder.parts[0].config.hop * 16, dim=1)
    ]
    streamed = torch.cat([*pieces, audio_encoder.flush(state)], dim=1)
    edge = edge_ms // 20
    found, wanted = (frames[:, edge : frames.shape[1] - edge] for frames in (streamed, audio_encoder(waveform)))
    return float((found - wanted).norm() / wanted.norm())
