"""The sizes of nano, the bundled model: one place that every stage reads."""

from __future__ import annotations

from ...model.encoder import WhisperEncoderConfig
from ...model.mel import LogMelConfig

NANO_MEL = LogMelConfig(n_mels=80, norm="causal")
NANO_ENCODER = WhisperEncoderConfig(
    n_mels=80,
    n_audio_ctx=1500,
    n_audio_state=192,
    n_audio_head=3,
    n_audio_layer=5,
    chunk=8,  # 160 ms
    left_context=496,  # 9.92 s
    causal_conv=True,
)
