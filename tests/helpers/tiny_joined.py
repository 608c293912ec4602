"""A language model and a Whisper of tiny sizes and random weights, joined: what a user of their own parts brings."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from tiny_assistant import Loudness
from tiny_chat import chat_tokenizer

from duologue.inference.assistant.assistant import Assistant
from duologue.model.adaptor.stack import StackConfig
from duologue.model.audio_encoder.mel import LogMelConfig
from duologue.model.audio_encoder.whisper import WhisperEncoderConfig
from duologue.model.speech_decoder.unit_decoder import UnitDecoderConfig
from duologue.model.speech_decoder.unit_vocoder import UnitVocoderConfig
from duologue.model.speech_lm import SpeechLM
from duologue.training.data.chat_tokens import joined_config

WIDTH, UNITS = 32, 20


def tiny_llm(vocab_size: int, kind: str = "llama") -> dict[str, Any]:
    """The config of a language model."""
    return {
        "model_type": kind, "vocab_size": vocab_size, "hidden_size": WIDTH, "intermediate_size": 48,
        "num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 2, "head_dim": 16,
        "max_position_embeddings": 2048, "pad_token_id": None,
    }  # fmt: skip


def tiny_joined(template: str = "chatml", *, voice: bool = True, kind: str = "llama") -> Assistant:
    """It hears whole clips, writes no transcript, and replies in text (and in noise, with ``voice``)."""
    torch.manual_seed(0)
    words = chat_tokenizer(template)
    speaking: dict[str, Any] = {
        "unit_decoder": UnitDecoderConfig(in_dim=WIDTH, dim=WIDTH, layers=1, heads=2, ffn_dim=48, units=UNITS),
        "vocoder": UnitVocoderConfig(units=UNITS, embedding_dim=16, channels=32, resblock_kernels=(3,),
                                     duration_hidden=16),
    }  # fmt: skip
    with TemporaryDirectory() as folder:
        words.save_pretrained(folder)
        config = joined_config(
            folder,
            mel=LogMelConfig(n_mels=16, norm="whisper"),
            encoder=WhisperEncoderConfig(n_mels=16, n_audio_state=16, n_audio_head=2, n_audio_layer=1),
            adaptor=StackConfig(in_dim=16, hidden_dim=WIDTH, out_dim=WIDTH, stack=5),
            llm=tiny_llm(len(words), kind),
            **(speaking if voice else {}),
        )
        model = SpeechLM(config)
    if voice:
        _babble(model)
    return Assistant(model, words, Path("tiny"), vad=Loudness())


@torch.no_grad()
def _babble(model: SpeechLM) -> None:
    """Let the unit decoder say many different units, each of 20 ms (at random it says one)."""
    assert model.unit_decoder is not None and model.vocoder is not None
    model.unit_decoder.output_proj.weight.normal_()
    model.vocoder.duration.proj.bias.fill_(0.7)  # exp(0.7) - 1: 1 frame of 20 ms
