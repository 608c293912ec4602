"""LLaMA-Omni (OmniSpeech2SLlamaForCausalLM): Whisper encoder, adaptor, Llama, CTC unit decoder.

Its vocoder is a checkpoint of its own, see :mod:`.code_hifigan`. Source: arXiv 2409.06666 and the released configs.
"""

from __future__ import annotations

import re
from typing import Any

import torch
from torch import Tensor

from ...model.adaptor import AdaptorConfig
from ...model.encoder import WhisperEncoderConfig, sinusoids
from ...model.errors import DuologueError
from ...model.mel import LogMelConfig
from ...model.speech_lm import PromptConfig, SpeechLMConfig
from ...model.tokens import TokenLayout
from ...model.transformer import RopeScaling
from ...model.unit_decoder import UnitDecoderConfig
from . import KeyTable, rename_keys

SOURCE = "LLaMA-Omni"
ENCODER = "model.speech_encoder."
WHISPER_HEAD_DIM = 64  # of every released Whisper

# Theirs -> ours. Of the decoder layers only the prefix changes, because we keep Llama's names.
KEYS: KeyTable = {
    r"model\.speech_encoder\.positional_embedding": None,  # sinusoids, which ours computes; checked below
    r"model\.speech_encoder\.((?:conv1|conv2|ln_post)\.(?:weight|bias))": r"encoder.\1",
    r"model\.speech_encoder\.(blocks\.\d+\.(?:attn\.(?:query|key|value|out)|attn_ln|mlp\.[02]|mlp_ln)\.(?:weight|bias))":
        r"encoder.\1",
    r"model\.speech_projector\.(linear[12]\.(?:weight|bias))": r"adaptor.\1",
    r"model\.((?:embed_tokens|norm)\.weight)": r"llm.lm.model.\1",
    r"model\.(layers\.\d+\.(?:self_attn\.[qkvo]_proj|mlp\.(?:gate|up|down)_proj)\.weight)": r"llm.lm.model.\1",
    r"model\.(layers\.\d+\.(?:input|post_attention)_layernorm\.weight)": r"llm.lm.model.\1",
    r"lm_head\.weight": r"llm.lm.lm_head.weight",
    r"speech_generator\.((?:input_proj|output_proj)\.(?:weight|bias))": r"unit_decoder.\1",
    r"speech_generator\.(layers\.\d+\.(?:self_attn\.[qkvo]_proj|mlp\.(?:gate|up|down)_proj)\.weight)":
        r"unit_decoder.\1",
    r"speech_generator\.(layers\.\d+\.(?:input|post_attention)_layernorm\.weight)": r"unit_decoder.\1",
}  # fmt: skip

LLM_FIELDS = (
    "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads",
    "max_position_embeddings", "hidden_act", "rms_norm_eps", "attention_bias", "mlp_bias", "tie_word_embeddings",
)  # fmt: skip


def convert(
    state_dict: dict[str, Tensor],
    config: dict[str, Any],
    prompt: PromptConfig,
    encoder_heads: int | None = None,
) -> tuple[SpeechLMConfig, dict[str, Tensor]]:
    """LLaMA-Omni's weights and config -> ours; load the result strictly.

    Args:
        state_dict: with the Whisper encoder's tensors under ``model.speech_encoder.`` (add them if the checkpoint does
            not hold them).
        config: the released ``config.json``.
        prompt: the chat template's ids before and after the speech (the released tokenizer puts two BOS in front).
        encoder_heads: of the Whisper encoder; by default as in every released Whisper, 64 channels each.

    Raises:
        DuologueError: a key, a field or a variant that is not known.
    """
    try:
        ours = SpeechLMConfig(
            mel=LogMelConfig(n_mels=_shape(state_dict, ENCODER + "conv1.weight")[1], norm="whisper"),
            encoder=_encoder_config(state_dict, encoder_heads),
            adaptor=AdaptorConfig(
                in_dim=config["speech_encoder_hidden_size"],
                hidden_dim=_shape(state_dict, "model.speech_projector.linear1.weight")[0],
                out_dim=config["hidden_size"],
                stack=config["speech_encoder_ds_rate"],
            ),
            llm=_llm_config(config),
            unit_decoder=_unit_decoder_config(config),
            vocoder=None,
            layout=_layout(config),
            prompt=prompt,
            listen_s=30.0,
        )
    except KeyError as error:
        raise DuologueError(f"{SOURCE} config lacks {error}") from None
    for field, known in (("speech_projector_type", "linear"), ("speech_generator_type", "ctc")):
        if config.get(field) != known:
            raise DuologueError(f"{SOURCE} config has {field} = {config.get(field)!r}; only {known!r} is known")
    _check_positions(state_dict[ENCODER + "positional_embedding"])
    return ours, rename_keys(state_dict, KEYS, SOURCE)


def _shape(state_dict: dict[str, Tensor], key: str) -> torch.Size:
    if key not in state_dict:
        raise DuologueError(f"{SOURCE} checkpoint lacks the tensor {key}")
    return state_dict[key].shape


def _encoder_config(state_dict: dict[str, Tensor], heads: int | None) -> WhisperEncoderConfig:
    """Whisper's dimensions, read from the shapes of its tensors."""
    context, width = _shape(state_dict, ENCODER + "positional_embedding")
    blocks = {found[1] for key in state_dict if (found := re.match(re.escape(ENCODER) + r"blocks\.(\d+)\.", key))}
    return WhisperEncoderConfig(
        n_mels=_shape(state_dict, ENCODER + "conv1.weight")[1],
        n_audio_ctx=context,
        n_audio_state=width,
        n_audio_head=width // WHISPER_HEAD_DIM if heads is None else heads,
        n_audio_layer=len(blocks),
    )


def _check_positions(positions: Tensor) -> None:
    computed = sinusoids(torch.arange(positions.shape[0]), positions.shape[1])
    if (positions.float() - computed).abs().max() > 1e-3:
        raise DuologueError(f"{SOURCE} speech encoder has learnt positions; only Whisper's sinusoids are known")


def _llm_config(config: dict[str, Any]) -> dict[str, Any]:
    """The Llama inside, as transformers 5 writes it."""
    scaling = config["rope_scaling"]
    rope = {"rope_type": "default"} if scaling is None else dict(scaling)
    return {
        "model_type": "llama",
        **{field: config[field] for field in LLM_FIELDS},
        "rope_parameters": {**rope, "rope_theta": config["rope_theta"]},
        "bos_token_id": config["bos_token_id"],
        "eos_token_id": config["eos_token_id"],
        "pad_token_id": None,  # given, it would zero a row of the embeddings
    }


def _unit_decoder_config(config: dict[str, Any]) -> UnitDecoderConfig:
    """``ctc_decoder_config`` is "(layers, width, heads, feed-forward)"; the rest is the Llama's own."""
    found = re.fullmatch(r"\((\d+),\s*(\d+),\s*(\d+),\s*(\d+)\)", config["ctc_decoder_config"])
    if found is None:
        raise DuologueError(
            f"{SOURCE} ctc_decoder_config is {config['ctc_decoder_config']!r}; it must be like '(2,4096,32,11008)'"
        )
    layers, dim, heads, ffn_dim = map(int, found.groups())
    return UnitDecoderConfig(
        in_dim=config["hidden_size"],
        dim=dim,
        layers=layers,
        heads=heads,
        ffn_dim=ffn_dim,
        units=config["unit_vocab_size"],
        upsample=config["ctc_upsample_factor"],
        rope_theta=config["rope_theta"],
        rope_scaling=_rope_scaling(config["rope_scaling"]),
        norm_eps=config["rms_norm_eps"],
    )


def _rope_scaling(scaling: dict[str, Any] | None) -> RopeScaling | None:
    if scaling is None:
        return None
    if scaling["rope_type"] != "llama3":
        raise DuologueError(f"{SOURCE} rope_scaling is of type {scaling['rope_type']!r}; only 'llama3' is known")
    return RopeScaling(
        factor=float(scaling["factor"]),
        low_freq_factor=float(scaling["low_freq_factor"]),
        high_freq_factor=float(scaling["high_freq_factor"]),
        original_max_position=scaling["original_max_position_embeddings"],
    )


def _layout(config: dict[str, Any]) -> TokenLayout:
    """Llama's special tokens; all that the model generates is reply. Words are the larger range beside the specials."""
    eos = config["eos_token_id"]
    eos = eos[-1] if isinstance(eos, list) else eos  # of several, the last ends a chat turn
    bos, pad, vocab = config["bos_token_id"], config["pad_token_id"], config["vocab_size"]
    specials = [bos, eos] if pad is None else [bos, eos, pad]
    if pad is None:  # training masks the padding, so that any unused number does
        pad = next(id_ for id_ in range(max(specials) + 1, vocab))
    below, above = min(specials), vocab - max(*specials, pad) - 1
    text = (0, below) if below >= above else (max(*specials, pad) + 1, vocab)
    return TokenLayout(bos=bos, eos=eos, pad=pad, text=text, units=config["unit_vocab_size"])
