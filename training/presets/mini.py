"""mini, open domain: what its stages train around a language model and an encoder from elsewhere (``llm=FOLDER``,
``encoder=FOLDER``)."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from ...model.adaptor.ctc import CTCAdaptorConfig
from ...model.audio_encoder.mel import LogMelConfig
from ...model.audio_encoder.whisper import WhisperEncoderConfig
from ...model.speech_decoder.spelling_decoder import SpellingDecoderConfig
from . import nano

MEL = LogMelConfig(n_mels=80, norm="whisper")
ENCODER = WhisperEncoderConfig(n_mels=80, n_audio_state=512, n_audio_head=8, n_audio_layer=6)  # Whisper base
CTC_ADAPTOR: dict[str, Any] = {  # 4.0 M parameters
    "mel": MEL, "encoder": ENCODER, "adaptor": CTCAdaptorConfig(in_dim=512), "llm": {}, "learn": ("adaptor",),
    "augment": "light", "steps": 6000, "batch_size": 32, "lr": 1e-3, "warmup": 300, "precision": "auto",
    "data": (), "echo": 3, "pool": 512, "save_every": 500,
}  # fmt: skip
# 3.2 M parameters beside a language model 896 wide.
UNIT_DECODER = SpellingDecoderConfig(in_dim=896, dim=256, convs=5, ffn_dim=688, units=200, blank_bias=-2.0)
# nano's, its blocks narrower inside: 1.5 M parameters.
VOCODER = replace(nano.VOCODER, source_filter=replace(nano.SOURCE_FILTER, ffn_dim=360))
MINI: dict[str, dict[str, Any]] = {
    "ctc_adaptor": CTC_ADAPTOR,
    "mwer": CTC_ADAPTOR | {"steps": 1200, "lr": 2e-4, "warmup": 50},  # with adaptor=
    "unit_decoder": nano.UNIT_DECODER_STAGE | {
        "unit_decoder": UNIT_DECODER, "start": (), "history": 0.0, "state_dropout": 0.5, "batch_size": 16, "lr": 1e-3,
    },
    "unit_vocoder": nano.NANO["unit_vocoder"] | {"vocoder": VOCODER},
}  # fmt: skip
PRESETS = {"mini": MINI}
