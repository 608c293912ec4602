"""A codec's decoder as the voice of a language model: codec tokens -> waveform, where a unit vocoder might stand.

Last stage of a spoken reply. Tokens (B, U) of the codec's one codebook in, samples (B, U * hop) in [-1, 1] out. A token
is a frame: nothing is merged and nothing has a duration. A sound that lasts is the same token again and again, which
the unit decoder writes as CTC does anyway, with blanks between. (Semantic units are merged and their durations guessed
again; a codec's tokens would lose by that what they are for, the sound as it was.)

Source: acoustic tokens of one codebook for language models, Ji et al. 2024, "WavTokenizer" (arXiv 2408.16532).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from torch import Tensor

from ..errors import DuologueError
from ..speech_decoder.source_filter import SourceFilterConfig
from ..streaming import State, Streaming
from .codec import Codec, CodecConfig, make_decoder, make_quantiser, waveform
from .quantiser import QuantiserConfig
from .seanet import SEANetDecoder
from .vocos import VocosConfig


@dataclass(frozen=True, kw_only=True)
class CodecVoiceConfig:
    """The half of a codec that speaks."""

    sample_rate: int  # Hz
    quantiser: QuantiserConfig
    decoder: VocosConfig | SourceFilterConfig

    def build(self) -> CodecVoice:
        """The voice of these sizes, untrained."""
        return CodecVoice(self)

    def __post_init__(self) -> None:
        if self.sample_rate < 1:
            raise DuologueError(f"codec voice sample_rate must be at least 1 Hz, got {self.sample_rate}")
        if self.quantiser.codebooks != 1:
            raise DuologueError(
                f"a codec of {self.quantiser.codebooks} codebooks cannot be a voice: a reply is one row of tokens"
            )
        if not isinstance(self.decoder, VocosConfig):
            return
        if self.decoder.in_dim != self.quantiser.dim:
            raise DuologueError(
                f"codec voice: the decoder takes {self.decoder.in_dim} channels, the quantiser has {self.quantiser.dim}"
            )
        if not self.decoder.causal:
            raise DuologueError("this codec's decoder hears the whole clip; a voice must stream: take a causal codec")

    @property
    def units(self) -> int:
        """Size of the vocabulary."""
        return self.quantiser.size

    @property
    def hop(self) -> int:
        """Samples a token."""
        return self.decoder.hop

    @classmethod
    def of(cls, codec: CodecConfig) -> Self:
        """The voice of a codec.

        Raises:
            DuologueError: it cannot be one.
        """
        if codec.decoder is None:
            raise DuologueError("a codec whose decoder mirrors its encoder cannot be a voice; one with another can")
        return cls(sample_rate=codec.sample_rate, quantiser=codec.quantiser, decoder=codec.decoder)


class CodecVoice(Streaming):
    """Tokens (B, U) -> samples (B, U * hop)."""

    def __init__(self, config: CodecVoiceConfig) -> None:
        super().__init__()
        self.config = config
        self.quantiser = make_quantiser(config.quantiser)
        self.decoder: Streaming = make_decoder(config.decoder, config.quantiser.dim, config.sample_rate)
        self.rate, self.latency = self.decoder.rate, self.decoder.latency

    @classmethod
    def of(cls, codec: Codec) -> Self:
        """The voice of a codec, which shares its weights."""
        voice = cls(CodecVoiceConfig.of(codec.config))
        assert not isinstance(codec.decoder, SEANetDecoder)
        voice.quantiser, voice.decoder = codec.quantiser, codec.decoder
        return voice

    def embed(self, units: Tensor) -> Tensor:
        """Tokens (B, U) -> entries of the codebook (B, D, U)."""
        return self.quantiser.decode(units[:, None])

    def forward(self, x: Tensor) -> Tensor:
        return waveform(self.decoder(self.embed(x)))

    def init_state(self, batch_size: int = 1) -> State:
        return self.decoder.init_state(batch_size)

    def step(self, x: Tensor, state: State) -> Tensor:
        return waveform(self.decoder.step(self.embed(x), state))

    def flush(self, state: State) -> Tensor:
        return waveform(self.decoder.flush(state))
