"""A source-filter generator: frames of features -> waveform, by pulses and noise through filters that change with time.

Frames (B, C, T) at sample_rate / hop Hz in, samples (B, 1, T * hop) out. A causal stack of ConvNeXt blocks that runs
``ahead`` frames behind its input says, ``pieces`` times a frame, how high the voice is, whether there is one, and the
cepstra of two minimum-phase filters: one for a band-limited train of pulses, one for noise. A thousandth of the
arithmetic of a generator of waveforms goes into a sample, and harmonics are harmonic from the first step of training.

With a filter for each source a voice can be lost in training: while envelopes are still wrong, noise is the better
guess, and once pulses are far weaker than it the spectra hardly change with their gain, so that no gradient brings them
back, and the voice whispers. With ``bands`` there is one envelope, and the fraction of its power that is periodic in
each band, which is learnt from the recording: pulses are as loud as the envelope is.

Whether there is a voice is a threshold, and pitches are rounded: where rounding errors decide, which depend on how a
stream is cut, the pulses differ from then on. With ``pitch_dim`` a small stack of its own says both, in float64, whose
errors are so small that this does not happen.

Source: Liu, Chen and Yu 2020, "Neural Homomorphic Vocoder" (Interspeech 2020), sections 2.1 to 2.3; the classical form:
Oppenheim 1969, "Speech Analysis-Synthesis System Based on Homomorphic Filtering"; one envelope:
periodicity.py; ConvNeXt blocks as in Siuzdak 2023, "Vocos" (arXiv 2306.00814).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..codec.vocos import NORM_EPS, ConvNeXtBlock
from ..errors import DuologueError
from ..layers.conv import ConvState, StreamingConv1d, channels_last
from ..streaming import State, Streaming
from .periodicity import Periodicity
from .voices import Speaker, move_formants

NOISE = 1 << 15  # samples of noise before it comes again
MIDDLE_HZ = 120.0  # the pitch that a head of zeros says
STEP_HZ = 1 / 8  # pitches are multiples of it, or how a stream is cut would change their last bits, and phases drift
LOUDEST = math.log(1e2)  # no filter's gain exceeds it
SAME = Speaker()


@dataclass(frozen=True, kw_only=True)
class SourceFilterConfig:
    """Sizes."""

    dim: int = 256
    ffn_dim: int = 768
    layers: int = 6
    kernel: int = 7  # frames
    ahead: int = 6  # frames of look-ahead
    hop: int = 320  # samples a frame
    pieces: int = 2  # of a frame; each has filters of its own
    cepstrum: int = 80  # coefficients of the filter of the pulses
    noise_cepstrum: int = 40  # of the noise; not used with bands
    # Bands in which one envelope is shared out by what is periodic of them; None: each source has a filter of its own.
    bands: int | None = field(default=None, metadata={"newer": True})
    n_fft: int = 1024  # samples: a piece and the response of its filter
    pitch_dim: int | None = None  # width of a stack of its own for pitch and voice; None: there is one stack for all
    pitch_layers: int = 2

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if value is not None and value < (name != "ahead"):
                raise DuologueError(f"source_filter {name} is {value}; it must be at least {int(name != 'ahead')}")
        if self.hop % self.pieces:
            raise DuologueError(f"source_filter pieces is {self.pieces}; the hop, {self.hop}, must be a multiple of it")
        longest = self.n_fft - self.hop // self.pieces
        if longest < max(self.cepstrum, self.noise_cepstrum) or self.n_fft % 2:
            raise DuologueError(
                f"source_filter n_fft is {self.n_fft}; it must be even, and exceed a piece "
                f"({self.hop // self.pieces} samples) by the longer cepstrum at least"
            )


@dataclass
class Controls:
    """What the stack says of each of S pieces."""

    log_f0: Tensor  # (B, S): the logarithm of the pitch over MIDDLE_HZ
    voiced: Tensor  # (B, S): logits
    pulses: Tensor  # (B, S, cepstrum); with bands the envelope of both sources
    noise: Tensor  # (B, S, noise_cepstrum); with bands none
    periodic: Tensor  # (B, S, bands): logits; without bands none

    @property
    def f0(self) -> Tensor:
        """Hz (B, S), 0 where there is no voice."""
        hertz = MIDDLE_HZ * self.log_f0.clamp(-2, 2).exp()
        return torch.where(self.voiced > 0, (hertz / STEP_HZ).round() * STEP_HZ, 0.0).float()


@dataclass
class SourceState(State):
    """Where the sources and filters are."""

    position: int  # samples made
    phase: Tensor  # (B,) of the pulses, in cycles, float64
    f0: Tensor  # (B, 0 or 1): the last piece's
    pulses: Tensor  # (B, 0 or 1, cepstrum): the last piece's
    noise: Tensor  # (B, 0 or 1, noise_cepstrum)
    overlap: Tensor  # (B, n_fft - piece): what its filters' responses still add
    speaker: Speaker = SAME


class Source(nn.Module):
    """Controls of S pieces -> samples (B, S * piece): the two sources, their filters, and nothing to learn."""

    def __init__(self, config: SourceFilterConfig, sample_rate: int) -> None:
        super().__init__()
        self.n_fft, self.piece, self.sample_rate = config.n_fft, config.hop // config.pieces, sample_rate
        self.cepstra = (config.cepstrum, config.cepstrum if config.bands else config.noise_cepstrum)
        self.white: Tensor
        self.fade: Tensor
        noise = torch.randn(NOISE, generator=torch.Generator().manual_seed(0))
        self.register_buffer("white", noise, persistent=False)
        fade = torch.hann_window(2 * self.piece)[: self.piece]
        self.register_buffer("fade", fade, persistent=False)  # from the last piece's filter to this one's

    def init_state(self, batch_size: int, speaker: Speaker = SAME) -> SourceState:
        """Of a stream that has not begun."""
        none = self.white.new_zeros(batch_size, 0)
        return SourceState(
            position=0,
            phase=none.new_zeros(batch_size, dtype=torch.float64),
            f0=none,
            pulses=none.new_zeros(batch_size, 0, self.cepstra[0]),
            noise=none.new_zeros(batch_size, 0, self.cepstra[1]),
            overlap=none.new_zeros(batch_size, self.n_fft - self.piece),
            speaker=speaker,
        )

    def forward(self, f0: Tensor, pulses: Tensor, noise: Tensor, state: SourceState) -> Tensor:
        """f0 (B, S) in Hz, 0 for none, cepstra (B, S, ·), S at least 1 -> samples (B, S * piece)."""
        if state.speaker.changed:
            f0, (pulses, noise) = f0 * state.speaker.pitch, (self._moved(each, state) for each in (pulses, noise))
        train = self._pulses(f0, state)  # (B, S, piece)
        samples = f0.shape[1] * self.piece
        at = torch.arange(state.position, state.position + samples, device=f0.device) % NOISE
        hiss = self.white[at].view(1, -1, self.piece).expand_as(train)
        spectrum = self._filtered(train, pulses, state.pulses) + self._filtered(hiss, noise, state.noise)
        parts = torch.fft.irfft(spectrum, self.n_fft)  # (B, S, n_fft)
        length = samples - self.piece + self.n_fft
        sums = F.fold(parts.transpose(1, 2), (1, length), (1, self.n_fft), stride=(1, self.piece))[:, 0, 0]
        held = state.overlap.shape[-1]
        sums = torch.cat([sums[:, :held] + state.overlap, sums[:, held:]], dim=1)
        state.position += samples
        state.overlap = sums[:, samples:].clone()
        state.pulses, state.noise = pulses[:, -1:].clone(), noise[:, -1:].clone()
        return sums[:, :samples].clamp(-1, 1)

    def _moved(self, cepstra: Tensor, state: SourceState) -> Tensor:
        return move_formants(cepstra, state.speaker.formants, self.n_fft - self.piece)

    def _pulses(self, f0: Tensor, state: SourceState) -> Tensor:
        """Cosines of every harmonic below half the sample rate, of unit power together: (B, S, piece)."""
        before = torch.cat([state.f0, f0], dim=1)[:, -f0.shape[1] - 1 : -1]
        if before.shape[1] < f0.shape[1]:  # nothing came before the first piece
            before = torch.cat([f0[:, :1], before], dim=1)
        before = torch.where((before > 0) & (f0 > 0), before, f0)  # a voice sets in at its pitch
        ramp = torch.arange(1, self.piece + 1, device=f0.device, dtype=torch.float64) / self.piece
        hertz = before.double()[..., None] * (1 - ramp) + f0.double()[..., None] * ramp  # (B, S, piece)
        phase = state.phase[:, None] + (hertz / self.sample_rate).flatten(1).cumsum(1)  # (B, S * piece)
        state.phase, state.f0 = phase[:, -1] % 1, f0[:, -1:].clone()
        phase = (phase % 1).view_as(hertz)
        highest = torch.maximum(before, f0).clamp(min=1.0)[..., None].double()
        harmonics = (self.sample_rate / 2 / highest).floor().clamp(min=1)
        low = (math.pi * phase).sin()
        ratio = (math.pi * (2 * harmonics + 1) * phase).sin() / torch.where(low.abs() < 1e-9, 1e-9, low)
        sums = torch.where(low.abs() < 1e-9, harmonics, (ratio - 1) / 2)
        return torch.where(f0[..., None] > 0, sums * (2 / harmonics).sqrt(), 0.0).float()

    def _filtered(self, source: Tensor, cepstra: Tensor, before: Tensor) -> Tensor:
        """Spectra (B, S, n_fft / 2 + 1) of a source (B, S, piece) that passes from each filter to the next."""
        cepstra = torch.cat([before, cepstra] if before.shape[1] else [cepstra[:, :1], cepstra], dim=1)
        log = torch.fft.rfft(cepstra, self.n_fft)  # (B, 1 + S, bins): of a minimum phase, being causal
        response = torch.polar(log.real.clamp(max=LOUDEST).exp(), log.imag)
        coming, going = (torch.fft.rfft(source * fade, self.n_fft) for fade in (self.fade, 1 - self.fade))
        return coming * response[:, 1:] + going * response[:, :-1]


@dataclass
class StackState(State):
    """Its convolutions."""

    embed: ConvState
    blocks: list[ConvState]


class Stack(nn.Module):
    """Causal ConvNeXt blocks and a head."""

    def __init__(self, in_dim: int, dim: int, ffn_dim: int, layers: int, kernel: int, outputs: int) -> None:
        super().__init__()
        self.embed = StreamingConv1d(in_dim, dim, kernel, causal=True)
        self.blocks = nn.ModuleList(ConvNeXtBlock(dim, ffn_dim, kernel, True, 1 / layers) for _ in range(layers))
        self.norm = nn.LayerNorm(dim, eps=NORM_EPS)
        self.head = nn.Linear(dim, outputs)
        with torch.no_grad():
            self.head.weight.mul_(0.1)
            self.head.bias.zero_()

    def begin(self, batch_size: int) -> StackState:
        """The state of a stream that has seen nothing."""
        return StackState.of(self, batch_size)

    def run(self, x: Tensor, state: StackState) -> Tensor:
        """Frames (B, C, T) -> (B, T, outputs)."""
        y = self.embed.step(channels_last(x), state.embed)  # (B, D, T)
        for block, held in zip(self.blocks, state.blocks, strict=True):
            y = block(y, held)
        out: Tensor = self.head(self.norm(y.transpose(1, 2)))
        return out


class PreciseStack(Stack):
    """The same in float64; in training, where no threshold hangs on it, in float32."""

    def run(self, x: Tensor, state: StackState) -> Tensor:
        if self.training:
            return super().run(x, state)
        weights = {name: parameter.double() for name, parameter in self.named_parameters()}
        out: Tensor = torch.func.functional_call(self, weights, (x.double(), state))
        return out

    def forward(self, x: Tensor, state: StackState) -> Tensor:
        return super().run(x, state)


@dataclass
class SourceFilterState(State):
    """The stack, the frames by which it still has to fall behind, the stack of the pitch, and the sources.

    sounding: the pieces that are heard, in order, of those that the stack has not said: each by its number among them,
        and how much higher it is (logarithm); None: each once, as it is. unsaid: how many of those are known.
    """

    stack: StackState
    skip: int
    pitch: StackState | None
    source: SourceState
    sounding: list[tuple[int, float]] | None = None
    unsaid: int = 0

    def last(self, pieces: Sequence[int], lengths: Sequence[int], higher: Sequence[float] | None = None) -> None:
        """Let sounds of so many ``pieces``, which come next, last ``lengths`` pieces each: some pieces, evenly spaced,
        are heard again or left out. ``higher``: of each piece that is heard (logarithm)."""
        nearest = list[int]()
        for count, length in zip(pieces, lengths, strict=True):
            nearest += (self.unsaid + (2 * i + 1) * count // (2 * length) for i in range(length))
            self.unsaid += count
        self.sounding = (self.sounding or []) + list(zip(nearest, higher or [0.0] * len(nearest), strict=True))


class SourceFilter(Stack, Streaming):
    """(B, in_dim, T) -> (B, 1, T * hop)."""

    def __init__(self, in_dim: int, config: SourceFilterConfig, sample_rate: int) -> None:
        c, own = config, 0 if config.pitch_dim else 2  # what the stack itself says of pitch and voice
        self.said = (c.cepstrum, 0, c.bands) if c.bands else (c.cepstrum, c.noise_cepstrum, 0)  # and of filters
        super().__init__(in_dim, c.dim, c.ffn_dim, c.layers, c.kernel, c.pieces * (own + sum(self.said)))
        self.config = config
        self.pitch: PreciseStack | None = None
        if c.pitch_dim:
            self.pitch = PreciseStack(in_dim, c.pitch_dim, 2 * c.pitch_dim, c.pitch_layers, c.kernel, 2 * c.pieces)
        self.source = Source(c, sample_rate)
        self.periodicity = Periodicity(c.bands, c.cepstrum) if c.bands else None
        with torch.no_grad():
            bias = self.head.bias.view(c.pieces, -1)
            bias[:, [own] if c.bands else [own, own + c.cepstrum]] = -4.0  # quiet at first
        self.rate = Fraction(c.hop)
        self.latency = c.ahead

    def _controls(self, x: Tensor, state: SourceFilterState) -> Controls:
        """Frames (B, C, T) -> controls of as many frames, but for those by which the stack has still to fall behind."""
        c = self.config
        out = self.run(x, state.stack).float()  # (B, T, pieces * ·)
        out = out.unflatten(-1, (c.pieces, -1))
        if self.pitch is None:
            said, out = out[..., :2], out[..., 2:]
        else:
            assert state.pitch is not None
            said = self.pitch.run(x, state.pitch).unflatten(-1, (c.pieces, 2))
        skipped = min(state.skip, x.shape[-1])
        state.skip -= skipped
        said, out = (part[:, skipped:].flatten(1, 2) for part in (said, out))  # (B, T' * pieces, ·)
        pulses, noise, periodic = out.split(self.said, dim=-1)
        return Controls(log_f0=said[..., 0], voiced=said[..., 1], pulses=pulses, noise=noise, periodic=periodic)

    def controls(self, x: Tensor) -> Controls:
        """Frames (B, C, T) -> controls of T * pieces pieces."""
        return self._controls(F.pad(x, (0, self.config.ahead)), self.init_state(x.shape[0]))

    def sound(
        self, controls: Controls, f0: Tensor, state: SourceState | None = None, periodic: Tensor | None = None
    ) -> Tensor:
        """Controls, and Hz (B, S) -> samples (B, 1, S * piece). In training pitch and periodicity are the recording's.

        ``periodic`` (B, S, bands): logits in the place of the controls'.
        """
        if f0.shape[1] == 0:
            return f0.new_zeros(f0.shape[0], 1, 0)
        with torch.autocast(f0.device.type, enabled=False):
            state = self.source.init_state(f0.shape[0]) if state is None else state
            pulses, noise = controls.pulses, controls.noise
            if self.periodicity is not None:
                pulses, noise = self.periodicity(pulses, controls.periodic if periodic is None else periodic, f0)
            return self.source(f0, pulses, noise, state)[:, None]

    def forward(self, x: Tensor, speaker: Speaker = SAME) -> Tensor:
        controls = self.controls(x)
        return self.sound(controls, controls.f0, self.source.init_state(x.shape[0], speaker))

    def init_state(self, batch_size: int = 1, speaker: Speaker = SAME) -> SourceFilterState:
        return SourceFilterState(
            stack=self.begin(batch_size),
            skip=self.config.ahead,
            pitch=None if self.pitch is None else self.pitch.begin(batch_size),
            source=self.source.init_state(batch_size, speaker),
        )

    def step(self, x: Tensor, state: SourceFilterState) -> Tensor:
        controls = self._controls(x, state)
        if state.sounding is not None:
            said = controls.log_f0.shape[1]
            now = [(at, higher) for at, higher in state.sounding if at < said]
            state.sounding = [(at - said, higher) for at, higher in state.sounding[len(now) :]]
            state.unsaid -= said
            heard = [at for at, _ in now]
            controls = Controls(**{name: part[:, heard] for name, part in vars(controls).items()})
            controls.log_f0 = controls.log_f0 + controls.log_f0.new_tensor([higher for _, higher in now])
        return self.sound(controls, controls.f0, state.source)

    def flush(self, state: SourceFilterState) -> Tensor:
        held = state.stack.embed.held
        return self.step(held.new_zeros(held.shape[0], self.embed.in_channels, self.config.ahead), state)
