"""The unit vocoder: discrete speech units -> waveform, through predicted durations and a generator.

Last stage of a spoken reply. Units with repeats merged (B, U) in, samples (B, n) in [-1, 1] out: each unit lasts a
whole number of frames, each frame is ``hop`` samples (320 at 16 kHz: 50 Hz). After Polyak et al. 2021, "Speech
Resynthesis from Discrete Disentangled Self-Supervised Representations", section 3.3, and fairseq's CodeGenerator, whose
numbers it reproduces; or with a source-filter generator (``source_filter.py``) in the place of HiFi-GAN's. It may speak
in several voices (``voices.py``).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from fractions import Fraction

import torch
from torch import Tensor, nn

from ..errors import DuologueError
from ..layers.conv import AlignState, feed
from ..streaming import Composite, State
from .duration import DurationPredictor, DurationState, durations_from_log
from .hifigan import Generator, GeneratorState
from .manner import MannerState, durations_in
from .source_filter import SourceFilter, SourceFilterConfig, SourceFilterState
from .voices import DEFAULT, Speaker, rows_of


@dataclass(frozen=True, kw_only=True)
class UnitVocoderConfig:
    """Sizes of a unit vocoder."""

    units: int  # size of the unit vocabulary
    embedding_dim: int = 128
    channels: int = 512  # of the first layer; halved at every upsampling
    upsample_rates: tuple[int, ...] = (5, 4, 4, 2, 2)
    upsample_kernels: tuple[int, ...] = (11, 8, 8, 4, 4)
    resblock_kernels: tuple[int, ...] = (3, 7, 11)
    resblock_dilations: tuple[int, ...] = (1, 3, 5)  # the same for every kernel
    duration_hidden: int = 128
    duration_kernel: int = 3
    sample_rate: int = 16000  # Hz
    source_filter: SourceFilterConfig | None = None  # this generator, and not HiFi-GAN's of the sizes above
    # By name; the first is who speaks where none is asked for. {}: there is one voice.
    voices: dict[str, Speaker] = field(default_factory=dict, metadata={"newer": True})

    @property
    def hop(self) -> int:
        """Samples a frame."""
        return math.prod(self.upsample_rates) if self.source_filter is None else self.source_filter.hop

    @property
    def speakers(self) -> dict[str, Speaker]:
        """Its voices by name, at least one; the first is who speaks where none is asked for."""
        return self.voices or {DEFAULT: Speaker()}

    def build(self) -> UnitVocoder:
        """The vocoder of these sizes, untrained."""
        return UnitVocoder(self)

    def __post_init__(self) -> None:
        sizes = {
            "units": (self.units,), "embedding_dim": (self.embedding_dim,), "channels": (self.channels,),
            "upsample_rates": self.upsample_rates, "upsample_kernels": self.upsample_kernels,
            "resblock_kernels": self.resblock_kernels, "resblock_dilations": self.resblock_dilations,
            "duration_hidden": (self.duration_hidden,), "sample_rate": (self.sample_rate,),
        }  # fmt: skip
        for name, values in sizes.items():
            if not values or min(values) < 1:
                raise DuologueError(f"vocoder {name} must be at least 1, got {getattr(self, name)}")
        if len(self.upsample_rates) != len(self.upsample_kernels):
            raise DuologueError(
                f"vocoder upsample_rates and upsample_kernels must be as many, got {len(self.upsample_rates)} and "
                f"{len(self.upsample_kernels)}"
            )
        for rate, kernel in zip(self.upsample_rates, self.upsample_kernels, strict=True):
            if kernel < rate or (kernel - rate) % 2:
                raise DuologueError(
                    f"a vocoder upsampling kernel must exceed its rate by an even number, got {kernel} for {rate}"
                )
        if self.channels % 2 ** len(self.upsample_rates):
            raise DuologueError(
                f"vocoder channels must be divisible by {2 ** len(self.upsample_rates)} "
                f"(halved {len(self.upsample_rates)} times), got {self.channels}"
            )
        if any(kernel % 2 == 0 for kernel in (*self.resblock_kernels, self.duration_kernel)):
            raise DuologueError(
                f"vocoder kernels must be odd, got {self.resblock_kernels} and duration_kernel {self.duration_kernel}"
            )
        rows_of(self.voices)
        changed = [name for name, speaker in self.voices.items() if speaker.changed]
        if changed and self.source_filter is None:
            raise DuologueError(
                f"the voice {changed[0]!r} has a pitch or formants of its own, which only a source_filter generator "
                "can change; with HiFi-GAN's they must be 1"
            )


@dataclass
class VocoderState(State):
    """Units whose duration is not known yet, and the convolutions of the predictor and the generator.

    speed: durations are divided by it. owed: pieces by which the units so far should have lasted longer for that.
    row: of the table of speaker embeddings, if there is one. manner: how each unit is spoken; None: all alike.
    """

    duration: DurationState
    waiting: AlignState  # embeddings (B, C, *) beside log-durations (B, 1, *)
    generator: GeneratorState | SourceFilterState
    speed: float = 1.0
    owed: float = 0.0
    row: int = 0
    manner: MannerState | None = None

    def lengths(self, durations: list[int], pieces: int) -> list[int]:
        """Pieces of a frame that the next units last at the state's speed and in their manner, at least one; what
        rounding takes from one, the next ones get."""
        lengths = []
        for duration in durations if self.manner is None else durations_in(self.manner.units, durations):
            wanted = duration * pieces / self.speed + self.owed
            lengths.append(max(1, round(wanted)))
            self.owed = wanted - lengths[-1]
        return lengths


class UnitVocoder(Composite):
    """Units (B, U) -> samples (B, sum of durations * hop).

    ``rate`` and ``latency`` are the worst case, every unit one frame long; units last longer in speech, so more samples
    come out, sooner. A stream whose durations are predicted carries one conversation (batch 1), because the rows of a
    batch would put out different numbers of samples.
    """

    def __init__(self, config: UnitVocoderConfig) -> None:
        super().__init__()
        self.config = config
        self.embedding = nn.Embedding(config.units, config.embedding_dim)
        rows = rows_of(config.voices)
        self.speakers = nn.Embedding(rows, config.embedding_dim) if rows else None
        if self.speakers is not None:
            nn.init.normal_(self.speakers.weight, std=0.1)  # alike at first
        self.duration = DurationPredictor(config.embedding_dim, config.duration_hidden, config.duration_kernel)
        self.generator: Generator | SourceFilter
        if config.source_filter is not None:
            self.generator = SourceFilter(config.embedding_dim, config.source_filter, config.sample_rate)
        else:
            self.generator = Generator(
                config.embedding_dim,
                config.channels,
                config.upsample_rates,
                config.upsample_kernels,
                config.resblock_kernels,
                config.resblock_dilations,
            )
        self.rate = Fraction(config.hop)
        self.latency = self.duration.latency + self.generator.latency

    @property
    def usual(self) -> Speaker:
        """Who speaks where no voice is asked for."""
        return next(iter(self.config.speakers.values()))

    def embed(self, units: Tensor, rows: Tensor | int | None = None) -> Tensor:
        """Units (B, U) -> embeddings (B, C, U).

        rows: of the table of speaker embeddings: one, or (B, U); None: the usual one.
        """
        x: Tensor = self.embedding(units)
        if self.speakers is not None:
            rows = self.usual.row if rows is None else rows
            x = x + self.speakers(torch.as_tensor(rows, device=units.device))
        return x.transpose(1, 2)

    def predict_durations(self, units: Tensor, row: int | None = None) -> Tensor:
        """Units (B, U) -> frames each unit lasts, (B, U) int64, at least 1."""
        return durations_from_log(self.duration(self.embed(units, row))[:, 0])

    def _expand(self, x: Tensor, durations: Tensor) -> Tensor:
        """Repeat each unit's embedding for as many frames as it lasts: (B, C, U) -> (B, C, T)."""
        totals = durations.sum(dim=1).tolist()
        if len(set(totals)) > 1:
            raise DuologueError(f"rows of a batch must last equally many frames, got {totals}: synthesise one by one")
        return torch.stack([row.repeat_interleave(d, dim=-1) for row, d in zip(x, durations, strict=True)])

    def forward(self, units: Tensor, durations: Tensor | None = None, speaker: Speaker | None = None) -> Tensor:
        """Samples (B, n). ``durations`` (B, U) in frames (0 for padding); predicted when ``None``. ``speaker``: who
        speaks, as :meth:`init_state` takes it."""
        speaker = speaker or self.usual
        if durations is None:
            durations = self.predict_durations(units, speaker.row)
        elif durations.shape != units.shape:
            raise DuologueError(
                f"durations must be shaped as the units, {tuple(units.shape)}, got {tuple(durations.shape)}"
            )
        frames = self._expand(self.embed(units, speaker.row), durations)
        if isinstance(self.generator, SourceFilter):
            return self.generator(frames, speaker)[:, 0]
        return self.generator(frames)[:, 0]

    def init_state(self, batch_size: int = 1, speaker: Speaker | None = None) -> VocoderState:
        """A stream that has not begun. ``speaker``: a voice of the config's or another of the same kind; None: the
        usual one."""
        speaker, generator = speaker or self.usual, self.generator
        waiting = AlignState.empty(self.embedding.weight, batch_size, [self.config.embedding_dim, 1])
        begun: GeneratorState | SourceFilterState
        if isinstance(generator, SourceFilter):
            begun = generator.init_state(batch_size, speaker)
        else:
            begun = generator.init_state(batch_size)
        own = {"waiting": waiting, "generator": begun, "speed": 1.0, "owed": 0.0, "row": speaker.row or 0}
        return VocoderState.of(self, batch_size, **own, manner=None)

    def run(self, units: Tensor, state: VocoderState, last: bool) -> Tensor:
        x = self.embed(units, state.row)  # (B, C, U)
        log_durations = feed(self.duration, x, state.duration, last)  # (B, 1, U)
        x, log_durations = state.waiting.push(x, log_durations)
        durations = durations_from_log(log_durations[:, 0])
        manner, timed = state.manner, state.generator
        if state.speed == 1 and manner is None:
            return feed(self.generator, self._expand(x, durations), timed, last)[:, 0]  # (B, n)
        pieces = self.generator.config.pieces if isinstance(self.generator, SourceFilter) else 1
        own, piece = durations[0].tolist(), self.config.hop // pieces
        lengths = state.lengths(own, pieces)
        higher = None if manner is None else manner.pieces(lengths, piece, self.config.sample_rate)
        if isinstance(timed, SourceFilterState):
            timed.last([frames * pieces for frames in own], lengths, higher)
        else:
            durations = durations.new_tensor([lengths])
        pcm = feed(self.generator, self._expand(x, durations), timed, last)[:, 0]
        return pcm if manner is None else manner.sound(pcm, piece, self.config.sample_rate, last)

    def flush(self, state: VocoderState) -> Tensor:
        held = state.waiting.held[0]
        return self.run(torch.zeros(held.shape[0], 0, dtype=torch.long, device=held.device), state, last=True)
