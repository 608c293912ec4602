"""Whisper's encoder, from openai-whisper's .pt files or transformers' folders; the decoder is left behind.

Our encoder has openai-whisper's names and numbers, so that a transformers folder is all that needs a table.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from ...model.audio_encoder.mel import LogMelConfig
from ...model.audio_encoder.whisper import WhisperEncoder, WhisperEncoderConfig, sinusoids
from ...model.errors import DuologueError
from ..files import read_object
from ..parts import EncoderPart, save_part
from ..weights import assign, made
from . import KeyTable, imported_card, rename_keys
from .files import as_state_dict, read_folder, read_tensors
from .pickles import load_tensors

SOURCE = "Whisper"
HEAD_DIM = 64  # of every released Whisper

OPENAI: KeyTable = {r"encoder\.(.*)": r"\1", r"decoder\..*": None}

_ENCODER, _LAYER = r"(?:model\.)?encoder\.", r"(?:model\.)?encoder\.layers\.(\d+)\."
TRANSFORMERS: KeyTable = {
    rf"{_ENCODER}embed_positions\.weight": r"positional_embedding",
    rf"{_ENCODER}(conv[12]\.(?:weight|bias))": r"\1",
    rf"{_ENCODER}layer_norm\.(weight|bias)": r"ln_post.\1",
    rf"{_LAYER}self_attn\.q_proj\.(weight|bias)": r"blocks.\1.attn.query.\2",
    rf"{_LAYER}self_attn\.k_proj\.weight": r"blocks.\1.attn.key.weight",
    rf"{_LAYER}self_attn\.v_proj\.(weight|bias)": r"blocks.\1.attn.value.\2",
    rf"{_LAYER}self_attn\.out_proj\.(weight|bias)": r"blocks.\1.attn.out.\2",
    rf"{_LAYER}self_attn_layer_norm\.(weight|bias)": r"blocks.\1.attn_ln.\2",
    rf"{_LAYER}fc1\.(weight|bias)": r"blocks.\1.mlp.0.\2",
    rf"{_LAYER}fc2\.(weight|bias)": r"blocks.\1.mlp.2.\2",
    rf"{_LAYER}final_layer_norm\.(weight|bias)": r"blocks.\1.mlp_ln.\2",
    r"(?:model\.)?decoder\..*": None,
    r"proj_out\.weight": None,
}

# Under openai-whisper's names; the positions, which ours computes, are checked and dropped.
KEYS: KeyTable = {
    r"positional_embedding": None,
    r"((?:conv1|conv2|ln_post)\.(?:weight|bias))": r"\1",
    r"(blocks\.\d+\.(?:attn\.(?:query|key|value|out)|attn_ln|mlp\.[02]|mlp_ln)\.(?:weight|bias))": r"\1",
}


@dataclass(frozen=True, kw_only=True)
class Config:
    """
    heads: of the encoder, if the source does not say (a bare state dict) and they are not of 64 channels each
    """

    heads: int | None = None


def encoder_config(state_dict: dict[str, Tensor], heads: int | None = None) -> WhisperEncoderConfig:
    """Whisper's dimensions, read from the shapes of its tensors under openai-whisper's names.

    Raises:
        DuologueError: one of them is missing, or the positions are not Whisper's sinusoids.
    """
    for name in ("positional_embedding", "conv1.weight"):
        if name not in state_dict:
            raise DuologueError(f"{SOURCE} encoder lacks the tensor {name}")
    positions = state_dict["positional_embedding"]
    context, width = positions.shape
    if not positions.is_meta:
        computed = sinusoids(torch.arange(context), width)
        if (positions.float() - computed).abs().max() > 4e-3:  # bfloat16 is off by half of it
            raise DuologueError(f"{SOURCE} encoder has learnt positions; only Whisper's sinusoids are known")
    blocks = {found[1] for name in state_dict if (found := re.match(r"blocks\.(\d+)\.", name))}
    return WhisperEncoderConfig(
        n_mels=state_dict["conv1.weight"].shape[1],
        n_audio_ctx=context,
        n_audio_state=width,
        n_audio_head=width // HEAD_DIM if heads is None else heads,
        n_audio_layer=len(blocks),
    )


def convert(state_dict: dict[str, Tensor], heads: int | None = None) -> tuple[WhisperEncoderConfig, dict[str, Tensor]]:
    """The encoder's tensors under openai-whisper's names -> ours; load the result strictly.

    Raises:
        DuologueError: an unknown tensor, or one that the sizes are read from is missing.
    """
    return encoder_config(state_dict, heads), rename_keys(state_dict, KEYS, SOURCE)


def read_encoder(source: Path, heads: int | None = None) -> tuple[dict[str, Tensor], int | None]:
    """The encoder's tensors under openai-whisper's names, and its number of heads if the source says it.

    source: a ``.pt`` of openai-whisper, a folder of transformers, or a file with the encoder's bare state dict.
    """
    if source.is_dir():
        heads = read_object(source / "config.json").get("encoder_attention_heads", heads)
        return rename_keys(read_folder(source), TRANSFORMERS, SOURCE), heads
    if source.suffix == ".safetensors":
        return read_tensors(source), heads
    found = load_tensors(source)
    if isinstance(found, dict) and {"dims", "model_state_dict"} <= found.keys():
        tensors = as_state_dict(found["model_state_dict"], str(source))
        return rename_keys(tensors, OPENAI, SOURCE), found["dims"]["n_audio_head"]
    return as_state_dict(found, str(source)), heads


def run(source: Path, dest: Path, config: Config) -> Path:
    """Import an encoder to a folder that a recipe takes by ``start=encoder=DEST``, with its mel."""
    return save(dest, *read_encoder(source, config.heads), source)


def save(dest: Path, tensors: dict[str, Tensor], heads: int | None, source: Path) -> Path:
    """Write the part ``encoder`` from tensors under openai-whisper's names; ``source`` is for the card and errors.

    Raises:
        DuologueError: they are not those of a Whisper encoder.
    """
    sizes, ours = convert(tensors, heads)
    model = made(lambda: WhisperEncoder(sizes))
    assign(model, ours, str(source))
    encoder = EncoderPart(mel=LogMelConfig(n_mels=sizes.n_mels, norm="whisper"), encoder=sizes)
    return save_part(dest, "encoder", model, encoder, imported_card(f"{SOURCE} encoder", source))
