"""The neural codec: a waveform <-> discrete codes, one to a few numbers a frame, 40 to 75 frames a second.

Samples (B, n) -> codes (B, K, T), T = ceil(n / hop) -> samples (B, T * hop). An encoder: SEANet, or one that reads
spectra; a quantiser: one codebook, several, or finite scalar quantisation; a decoder: Vocos (WavTokenizer), the
encoder's mirror image (EnCodec), or pulses and noise through filters. One class for the published models and for causal
ones, which stream exactly with at most 80 ms of look-ahead.

Source: Ji et al. 2024, "WavTokenizer" (arXiv 2408.16532); Défossez et al. 2022, "EnCodec" (arXiv 2210.13438); Liu, Chen
and Yu 2020, "Neural Homomorphic Vocoder" (Interspeech 2020).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction

import torch
from torch import Tensor

from ..errors import DuologueError
from ..speech_decoder.source_filter import SourceFilter, SourceFilterConfig
from ..streaming import State, Streaming
from .finite_scalar import FiniteScalarQuantiser
from .quantiser import Quantiser, QuantiserConfig
from .seanet import SEANetConfig, SEANetDecoder, SEANetEncoder
from .spectral_encoder import SpectralEncoder, SpectralEncoderConfig
from .vocos import VocosConfig, VocosDecoder


@dataclass(frozen=True, kw_only=True)
class CodecConfig:
    """Sizes."""

    sample_rate: int = 24000  # Hz
    encoder: SEANetConfig | SpectralEncoderConfig
    quantiser: QuantiserConfig
    decoder: VocosConfig | SourceFilterConfig | None  # None: a SEANet mirrored, as EnCodec

    def __post_init__(self) -> None:
        if self.sample_rate < 1:
            raise DuologueError(f"codec sample_rate must be at least 1 Hz, got {self.sample_rate}")
        if self.encoder.dim != self.quantiser.dim:
            raise DuologueError(
                f"codec encoder and quantiser must be as wide, got {self.encoder.dim} and {self.quantiser.dim}"
            )
        decoder = self.decoder
        if decoder is None:
            if not isinstance(self.encoder, SEANetConfig):
                raise DuologueError("codec decoder is missing: only a SEANet encoder can be mirrored")
            return
        dim = decoder.in_dim if isinstance(decoder, VocosConfig) else self.quantiser.dim
        if (dim, decoder.hop) != (self.quantiser.dim, self.hop):
            raise DuologueError(
                f"codec decoder must take {self.quantiser.dim} channels and give {self.hop} samples a frame, as the "
                f"encoder; got {dim} and {decoder.hop}"
            )

    @property
    def hop(self) -> int:
        """Samples a frame."""
        return self.encoder.hop

    @property
    def frame_rate(self) -> float:
        """Frames a second."""
        return self.sample_rate / self.hop

    def bit_rate(self, codebooks: int | None = None) -> float:
        """Bits a second with so many codebooks (``None``: all)."""
        return self.frame_rate * math.log2(self.quantiser.size) * (codebooks or self.quantiser.codebooks)

    def codebooks_for(self, kbps: float) -> int:
        """How many codebooks fit in so many kilobits a second.

        Raises:
            DuologueError: less than one of them needs.
        """
        each = self.bit_rate(1) / 1000
        if not kbps >= each:  # NaN is not
            raise DuologueError(f"{kbps:g} kbit/s is too little for this codec: one codebook is {each:.3g} kbit/s")
        return min(self.quantiser.codebooks, int(min(kbps / each, 2**31)))


def published(tokens_a_second: int) -> CodecConfig:
    """WavTokenizer as released: 75 tokens a second (strides 2·4·5·8) or 40 (4·5·5·6), 24 kHz, one codebook of 4096."""
    ratios = {75: (2, 4, 5, 8), 40: (4, 5, 5, 6)}
    if tokens_a_second not in ratios:
        raise DuologueError(f"WavTokenizer was published with 75 and 40 tokens a second, not {tokens_a_second}")
    encoder = SEANetConfig(ratios=ratios[tokens_a_second])
    decoder = VocosConfig(n_fft=4 * encoder.hop, hop=encoder.hop)
    return CodecConfig(encoder=encoder, quantiser=QuantiserConfig(), decoder=decoder)


def causal(tokens_a_second: int) -> CodecConfig:
    """The published sizes as an exact stream: 60 ms behind the microphone at 75 tokens a second, 62.5 ms at 40."""
    plain = published(tokens_a_second)
    assert isinstance(plain.encoder, SEANetConfig)
    chunk = 3 if tokens_a_second == 75 else 1
    encoder = SEANetConfig(ratios=plain.encoder.ratios, causal=True, reflect=False)
    decoder = VocosConfig(n_fft=4 * encoder.hop, hop=encoder.hop, causal=True, chunk=chunk, left_context=150)
    return CodecConfig(encoder=encoder, quantiser=plain.quantiser, decoder=decoder)


@dataclass
class CodecState(State):
    """Both halves of one stream."""

    encoder: State
    decoder: State


def make_quantiser(config: QuantiserConfig) -> Quantiser | FiniteScalarQuantiser:
    """The quantiser of those sizes."""
    return FiniteScalarQuantiser(config) if config.levels else Quantiser(config)


def make_decoder(config: VocosConfig | SourceFilterConfig, dim: int, sample_rate: int) -> VocosDecoder | SourceFilter:
    """The decoder of those sizes, for embeddings of ``dim`` channels."""
    return VocosDecoder(config) if isinstance(config, VocosConfig) else SourceFilter(dim, config, sample_rate)


class Codec(Streaming):
    """Samples (B, n) -> codes -> samples (B, ceil(n / hop) * hop), whole or streamed."""

    def __init__(self, config: CodecConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder: Streaming
        self.decoder: Streaming
        if isinstance(config.encoder, SEANetConfig):
            self.encoder = SEANetEncoder(config.encoder)
        else:
            self.encoder = SpectralEncoder(config.encoder)
        self.quantiser = make_quantiser(config.quantiser)
        if config.decoder is None:
            assert isinstance(config.encoder, SEANetConfig)
            self.decoder = SEANetDecoder(config.encoder)
        else:
            self.decoder = make_decoder(config.decoder, config.quantiser.dim, config.sample_rate)
        self.exact = self.decoder.exact
        self.latency = self.encoder.latency + self._decoder_wait()

    def _decoder_wait(self) -> int:
        """Samples that the decoder waits for beyond the frame that it is given."""
        if isinstance(self.decoder, VocosDecoder):
            return self.decoder.istft.pad + ((self.decoder.config.chunk or 1) - 1) * self.config.hop
        return self.decoder.latency * self.config.hop

    @property
    def delay_ms(self) -> float:
        """How far the output of a stream lags behind its input, computing time aside."""
        return 1000 * (self.latency + 1) / self.config.sample_rate

    def encode(self, samples: Tensor, codebooks: int | None = None) -> Tensor:
        """Samples (B, n) in [-1, 1] -> codes (B, K, T) int64 of the first ``codebooks`` codebooks (``None``: all)."""
        return self.quantiser.encode(self.encoder(samples[:, None]), codebooks)

    def decode(self, codes: Tensor) -> Tensor:
        """Codes (B, K, T) of the first K codebooks -> samples (B, T * hop)."""
        return waveform(self.decoder(self.quantiser.decode(codes)))

    def forward(self, x: Tensor) -> Tensor:
        return self.decode(self.encode(x))

    def init_state(self, batch_size: int = 1) -> CodecState:
        return CodecState.of(self, batch_size)

    def step(self, x: Tensor, state: CodecState) -> Tensor:
        embedding = self.encoder.step(x[:, None], state.encoder)
        return waveform(self.decoder.step(self._quantised(embedding), state.decoder))

    def flush(self, state: CodecState) -> Tensor:
        embedding = self._quantised(self.encoder.flush(state.encoder))
        head = self.decoder.step(embedding, state.decoder)
        return waveform(torch.cat([head, self.decoder.flush(state.decoder)], dim=-1))

    def _quantised(self, embedding: Tensor) -> Tensor:
        return self.quantiser.decode(self.quantiser.encode(embedding))


def waveform(samples: Tensor) -> Tensor:
    """(B, 1, n), as convolutions give it, or (B, n) -> (B, n)."""
    return samples[:, 0] if samples.dim() == 3 else samples


class CodecEncoding(Streaming):
    """The first half of a codec as a stage: samples (B, n) -> codes (B, K, T)."""

    def __init__(self, codec: Codec, codebooks: int | None = None) -> None:
        super().__init__()
        self.codec, self.codebooks = codec, codec.quantiser.chosen(codebooks)
        self.rate, self.latency = Fraction(1, codec.config.hop), codec.encoder.latency

    def forward(self, x: Tensor) -> Tensor:
        return self.codec.encode(x, self.codebooks)

    def init_state(self, batch_size: int = 1) -> State:
        return self.codec.encoder.init_state(batch_size)

    def step(self, x: Tensor, state: State) -> Tensor:
        embedding = self.codec.encoder.step(x[:, None], state)
        return self.codec.quantiser.encode(embedding, self.codebooks)

    def flush(self, state: State) -> Tensor:
        embedding = self.codec.encoder.flush(state)
        return self.codec.quantiser.encode(embedding, self.codebooks)


class CodecDecoding(Streaming):
    """The second half of a codec as a stage: codes (B, K, T) -> samples (B, T * hop)."""

    def __init__(self, codec: Codec) -> None:
        super().__init__()
        self.codec = codec
        self.rate, self.latency, self.exact = codec.decoder.rate, codec.decoder.latency, codec.exact

    def forward(self, x: Tensor) -> Tensor:
        return self.codec.decode(x)

    def init_state(self, batch_size: int = 1) -> State:
        return self.codec.decoder.init_state(batch_size)

    def step(self, x: Tensor, state: State) -> Tensor:
        return waveform(self.codec.decoder.step(self.codec.quantiser.decode(x), state))

    def flush(self, state: State) -> Tensor:
        return waveform(self.codec.decoder.flush(state))
