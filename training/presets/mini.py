"""mini, open domain: what its stages train around a language model and an encoder from elsewhere (``llm=FOLDER``)."""

from __future__ import annotations

from typing import Any

from ...model.speech_decoder.spelling_decoder import SpellingDecoderConfig
from . import nano

# 3.2 M parameters beside a language model 896 wide.
UNIT_DECODER = SpellingDecoderConfig(in_dim=896, dim=256, convs=5, ffn_dim=688, units=200, blank_bias=-2.0)
MINI: dict[str, dict[str, Any]] = {
    "unit_decoder": nano.UNIT_DECODER_STAGE | {
        "unit_decoder": UNIT_DECODER, "start": (), "history": 0.0, "state_dropout": 0.5, "batch_size": 16, "lr": 1e-3,
    },
}  # fmt: skip
PRESETS = {"mini": MINI}
