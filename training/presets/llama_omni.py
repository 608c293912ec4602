"""LLaMA-Omni's sizes and schedules (arXiv 2409.06666, section 3): its two stages, with ``llm=`` and ``encoder=``.

Beside them, which it has not: conversations in writing, and a monitor.
"""

from __future__ import annotations

from typing import Any

from ...model.adaptor.stack import StackConfig
from ...model.speech_decoder.unit_decoder import UnitDecoderConfig
from . import nano

# Three epochs of its 200,000 questions and answers.
SCHEDULE: dict[str, Any] = {
    "start": (), "steps": 18750, "warmup": 560, "optimiser": "adamw", "betas": (0.9, 0.999), "weight_decay": 0.0,
}  # fmt: skip
ADAPTOR: dict[str, Any] = {"adaptor": StackConfig(in_dim=192, hidden_dim=2048, out_dim=256, stack=5)}
LLAMA_OMNI: dict[str, dict[str, Any]] = {
    "text_sft": nano.NANO["text_sft"] | SCHEDULE | {"row_tokens": 1024, "lr": 2e-5},
    "duplex": nano.NANO["duplex"] | ADAPTOR | {
        "start": (), "dev_data": (), "optimiser": "adamw", "lr": 1e-3, "steps": 1000, "warmup": 50,
    },
    "dpo": nano.NANO["dpo"] | SCHEDULE | ADAPTOR | {
        "beta": 0.1, "sft_weight": 0.0, "row_tokens": 1024, "steps": 1000, "warmup": 50, "lr": 5e-7, "save_every": 200,
    },
    "reward": nano.NANO["reward"] | SCHEDULE | {"row_tokens": 1024, "steps": 1000, "warmup": 50, "lr": 1e-5},
    "speech_to_text": nano.NANO["speech_to_text"] | SCHEDULE | ADAPTOR | {
        "ctc_weight": 0.0, "text_fraction": 0.0, "augment": "none", "dev_data": (),
        "lr": 2e-5,
    },
    "unit_decoder": nano.NANO["unit_decoder"] | SCHEDULE | {
        "unit_decoder": UnitDecoderConfig(in_dim=256, dim=4096, layers=2, heads=32, ffn_dim=11008, units=1000),
        "history": 0.0, "lr": 2e-4,
    },
}  # fmt: skip
PRESETS = {"llama-omni": LLAMA_OMNI}
