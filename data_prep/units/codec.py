"""A codec's codes as speech units: waveform in, one token a frame out, none merged (model/codec/codec_vocoder.py)."""

from __future__ import annotations

import torch
from torch import Tensor

from ...checkpoints.parts import load_part
from ...model.codec.codec import Codec, CodecConfig
from ...model.codec.codec_vocoder import CodecVoiceConfig


class CodecUnits:
    """What a codec's encoder and its codebook make of a waveform."""

    def __init__(self, codec: Codec) -> None:
        self.codec, self.hop, self.sample_rate = codec.eval(), codec.config.hop, codec.config.sample_rate

    @classmethod
    def load(cls, name: str) -> CodecUnits:
        """The codec of a bundled name, a folder or a hub id.

        Raises:
            DuologueError: there is none, or it cannot be a voice.
        """
        codec = load_part(name, "codec", CodecConfig, Codec)
        CodecVoiceConfig.of(codec.config)
        return cls(codec)

    def __len__(self) -> int:
        return self.codec.config.quantiser.size

    @torch.no_grad()
    def encode(self, waveform: Tensor) -> Tensor:
        """(n,) float32 in [-1, 1] -> tokens (n // hop,) int64."""
        return self.codec.encode(waveform[None])[0, 0, : len(waveform) // self.hop]

    def spoken(self, waveform: Tensor) -> tuple[Tensor, Tensor]:
        """Tokens (U,), repeats included, and what each lasts, (U,) ones."""
        tokens = self.encode(waveform)
        return tokens, torch.ones_like(tokens)
