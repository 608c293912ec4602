"""LLaMA-Omni (OmniSpeech2SLlamaForCausalLM), a whole model: Whisper encoder, adaptor, Llama, CTC unit decoder.

Its vocoder is a checkpoint of its own, see :mod:`.code_hifigan`. Source: arXiv 2409.06666 and the released configs.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ...model.adaptor.stack import StackConfig
from ...model.audio_encoder.mel import LogMelConfig
from ...model.errors import DuologueError
from ...model.layers.transformer import RopeScaling
from ...model.speech_decoder.unit_decoder import UnitDecoderConfig
from ...model.speech_lm import PromptConfig, SpeechLM, SpeechLMConfig
from ...model.tokens import TokenLayout
from .. import store
from ..files import expanded, read_object
from ..weights import assign, made
from . import KeyTable, code_hifigan, imported_card, rename_keys, whisper
from .files import read_folder
from .llm import once
from .whisper import encoder_config

SOURCE = "LLaMA-Omni"
ENCODER = "model.speech_encoder."

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

# What its released weights were asked with: the prompt is data of theirs, which any other would change.
TEMPLATE = (
    "<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\nYou are a helpful language and speech assistant. "
    "You are able to understand the speech content that the user provides, and assist the user with a variety of "
    "tasks using natural language.<|eot_id|><|start_header_id|>user<|end_header_id|>\n\n<speech>\nPlease directly "
    "answer the questions in the user's speech.<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n"
)
NEXT = "<|eot_id|><|start_header_id|>user<|end_header_id|>\n\n"

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
            encoder=encoder_config(_below(state_dict, ENCODER), encoder_heads),
            adaptor=StackConfig(
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
    return ours, rename_keys(state_dict, KEYS, SOURCE)


def _below(state_dict: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name[len(prefix) :]: tensor for name, tensor in state_dict.items() if name.startswith(prefix)}


def _shape(state_dict: dict[str, Tensor], key: str) -> torch.Size:
    if key not in state_dict:
        raise DuologueError(f"{SOURCE} checkpoint lacks the tensor {key}")
    return state_dict[key].shape


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


def prompt_of(tokenizer: Any) -> PromptConfig:
    """The chat template's ids around the speech.

    Each side of ``<speech>`` is encoded by itself. The tokenizer puts a BOS before each: it stays on the left, where
    the template has one already, so that there are two; on the right it is taken away. The weights were trained so.

    Raises:
        DuologueError: the tokenizer does not know one of the template's markers.
    """
    vocabulary = tokenizer.get_vocab()
    for marker in set(re.findall(r"<\|\w+\|>", TEMPLATE)):
        if marker not in vocabulary:
            raise DuologueError(f"the tokenizer of this {SOURCE} has no {marker}: it must be Llama 3's")
    left, right = (tokenizer(side).input_ids for side in TEMPLATE.split("<speech>"))
    if left[0] == tokenizer.bos_token_id:
        right = right[1:]
    again = tokenizer(NEXT, add_special_tokens=False).input_ids
    return PromptConfig(prefix_ids=tuple(left), suffix_ids=tuple(right), next_prefix_ids=tuple(again))


@dataclass(frozen=True, kw_only=True)
class Config:
    """
    whisper: the encoder (a .pt of openai-whisper or a folder of transformers), if the shards do not hold it
    vocoder: g_* of the unit vocoder, with config.json beside it, or their folder; without it, units are the last output
    heads: of the encoder, if its source does not say and they are not of 64 channels each
    """

    whisper: str | None = None
    vocoder: str | None = None
    heads: int | None = None


def run(source: Path, dest: Path, config: Config) -> Path:
    """Import a released folder to a model that ``duologue ask --model DEST`` runs."""
    tensors, heads = read_folder(source), config.heads
    if config.whisper is not None:
        encoder, heads = whisper.read_encoder(expanded(config.whisper), heads)
        tensors |= {ENCODER + name: tensor for name, tensor in encoder.items()}
    elif not any(name.startswith(ENCODER) for name in tensors):
        raise DuologueError(f"{source} holds no speech encoder: name its file, whisper=large-v3.pt")
    tokenizer = store.load_tokenizer(source)
    ours, tensors = convert(tensors, read_object(source / "config.json"), prompt_of(tokenizer), heads)
    if config.vocoder is not None:
        vocoder = code_hifigan.build(expanded(config.vocoder))
        ours = replace(ours, vocoder=vocoder.config)
        tensors |= {f"vocoder.{name}": tensor for name, tensor in vocoder.state_dict().items()}
    model = made(lambda: SpeechLM(ours))
    assign(model, once(model, tensors), str(source))
    return store.save(dest, model, tokenizer, card=imported_card(SOURCE, source))
