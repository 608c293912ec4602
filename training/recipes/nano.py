"""The sizes of nano, the bundled model: one place that every stage reads."""

from __future__ import annotations

from typing import Any

from ...data_prep.vocabulary import token_ids
from ...model.adaptor import AdaptorConfig
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
NANO_ADAPTOR = AdaptorConfig(in_dim=192, hidden_dim=512, out_dim=256, stack=4)  # 80 ms an embedding


def nano_llm() -> dict[str, Any]:
    """nano's LLM as a transformers config: a Llama of 5 M parameters over the grammar's words."""
    table = token_ids()
    return {
        "model_type": "llama",
        "vocab_size": len(table),
        "hidden_size": 256,
        "intermediate_size": 688,
        "num_hidden_layers": 6,
        "num_attention_heads": 4,
        "num_key_value_heads": 4,
        "max_position_embeddings": 4096,
        "rope_theta": 10000.0,
        "tie_word_embeddings": True,
        "bos_token_id": table["<bos>"],
        "eos_token_id": table["<eos>"],
        "pad_token_id": table["<pad>"],
    }
