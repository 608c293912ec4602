"""A tiny Qwen2-Audio with random weights, in a folder as transformers saves one."""

from __future__ import annotations

from pathlib import Path

import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    PreTrainedTokenizerFast,
    Qwen2AudioConfig,
    Qwen2AudioForConditionalGeneration,
    Qwen2AudioProcessor,
    WhisperFeatureExtractor,
)


def audio_tokenizer() -> PreTrainedTokenizerFast:
    names = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|AUDIO|>", "<|audio_bos|>", "<|audio_eos|>"]
    vocab = {name: i for i, name in enumerate([*names, *sorted(pre_tokenizers.ByteLevel.alphabet())])}
    made = Tokenizer(models.BPE(vocab=vocab, merges=[]))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    made.add_special_tokens([AddedToken(name, special=True) for name in names])
    return PreTrainedTokenizerFast(tokenizer_object=made, eos_token="<|im_end|>", pad_token="<|endoftext|>")


def tiny_qwen2_audio(path: Path) -> Path:
    """Write it into a folder, which is returned."""
    torch.manual_seed(0)
    words = audio_tokenizer()
    config = Qwen2AudioConfig(
        audio_config={
            "d_model": 16, "encoder_layers": 1, "encoder_attention_heads": 2, "encoder_ffn_dim": 32,
            "num_mel_bins": 128, "max_source_positions": 1500,
        },
        text_config={
            "model_type": "qwen2", "vocab_size": len(words), "hidden_size": 32, "intermediate_size": 48,
            "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 2, "initializer_range": 0.5,
        },
        audio_token_index=3,
    )  # fmt: skip
    model = Qwen2AudioForConditionalGeneration(config).eval()
    model.generation_config.eos_token_id = 2
    torch.nn.init.normal_(model.model.multi_modal_projector.linear.weight)  # or what is heard would hardly matter
    model.save_pretrained(path)
    Qwen2AudioProcessor(WhisperFeatureExtractor(feature_size=128), words).save_pretrained(path)
    return path
