"""LLaMA-Omni's sizes and schedules (arXiv 2409.06666, section 3): its two stages, with ``llm=`` and ``encoder=``."""

from __future__ import annotations

from typing import Any

from ...model.adaptor.stack import StackConfig
from ...model.speech_decoder.unit_decoder import UnitDecoderConfig
from . import nano

# Three epochs of its 200,000 questions and answers.
SCHEDULE: dict[str, Any] = {
    "start": (), "steps": 18750, "warmup": 560, "optimiser": "adamw", "betas": (0.9, 0.999), "weight_decay": 0.0,
}  # fmt: skip
LLAMA_OMNI = {
    "speech_to_text": nano.NANO["speech_to_text"] | SCHEDULE | {
        "adaptor": StackConfig(in_dim=192, hidden_dim=2048, out_dim=256, stack=5), "ctc_weight": 0.0,
        "text_fraction": 0.0, "augment": "none", "dev_data": (), "lr": 2e-5,
    },
    "unit_decoder": nano.NANO["unit_decoder"] | SCHEDULE | {
        "unit_decoder": UnitDecoderConfig(in_dim=256, dim=4096, layers=2, heads=32, ffn_dim=11008, units=1000),
        "history": 0.0, "lr": 2e-4,
    },
}  # fmt: skip
PRESETS = {"llama-omni": LLAMA_OMNI}
