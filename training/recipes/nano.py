"""The sizes of nano, the bundled model: one place that every stage reads."""

from __future__ import annotations

from typing import Any

from ...data_prep.vocabulary import SPECIAL_TOKENS, token_ids
from ...model.adaptor import AdaptorConfig
from ...model.encoder import WhisperEncoderConfig
from ...model.mel import LogMelConfig
from ...model.speech_lm import PromptConfig, SpeechLMConfig
from ...model.tokens import TokenLayout
from ...model.unit_decoder import UnitDecoderConfig
from ...model.vocoder import UnitVocoderConfig

NANO_UNITS = 200
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
NANO_UNIT_DECODER = UnitDecoderConfig(
    in_dim=256,
    dim=256,
    layers=2,
    heads=4,
    ffn_dim=688,
    units=NANO_UNITS,
    upsample=25,
    band=20,
    fuse_token=True,
    sub_position=True,
    blank_bias=-2.0,
)
NANO_VOCODER = UnitVocoderConfig(units=NANO_UNITS, embedding_dim=128, channels=128, resblock_kernels=(3, 7))


def nano_llm() -> dict[str, Any]:
    """nano's LLM as a transformers config: a Llama of 3.4 M parameters over the grammar's words."""
    table = token_ids()
    return {
        "model_type": "llama",
        "vocab_size": len(table),
        "hidden_size": 256,
        "intermediate_size": 688,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "num_key_value_heads": 4,
        "max_position_embeddings": 4096,
        "rope_theta": 10000.0,
        "tie_word_embeddings": True,
        "bos_token_id": table["<bos>"],
        "eos_token_id": table["<eos>"],
        "pad_token_id": table["<pad>"],
    }


def nano_config() -> SpeechLMConfig:
    """The whole model."""
    table = token_ids()
    markers = ("bos", "eos", "pad", "user", "speech", "transcript", "reply", "query", "noise", "wait")
    return SpeechLMConfig(
        mel=NANO_MEL,
        encoder=NANO_ENCODER,
        adaptor=NANO_ADAPTOR,
        llm=nano_llm(),
        unit_decoder=NANO_UNIT_DECODER,
        vocoder=NANO_VOCODER,
        layout=TokenLayout(
            **{name: table[f"<{name}>"] for name in markers},
            text=(len(SPECIAL_TOKENS), len(table)),
            units=NANO_UNITS,
        ),
        prompt=PromptConfig(
            prefix_ids=(table["<bos>"], table["<user>"]),
            suffix_ids=(table["<transcript>"],),
            next_prefix_ids=(table["<eos>"], table["<user>"]),
        ),
    )
