"""UTMOS22's strong learner, a judge of naturalness (duologue evaluate), as SpeechMOS publishes it: one file."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from ...model.errors import DuologueError
from ...model.quality.utmos import UTMOS, UTMOSConfig
from ..parts import save_part
from ..weights import assign, made
from . import KeyTable, imported_card, rename_keys
from .fairseq_wav2vec2 import key_table
from .files import read_tensors

SOURCE = "UTMOS22-strong"
PREFIX = "wav2vec2."
HEAD_DIM = 64  # of wav2vec 2.0

KEYS: KeyTable = {
    **key_table(re.escape(PREFIX), PREFIX),
    r"((?:domain|judge)_emb)": r"\1",
    r"(blstm\.(?:weight|bias)_[ih]h_l0(?:_reverse)?)": r"\1",
    r"(projection\.[02]\.(?:weight|bias))": r"\1",
}


def convert(state_dict: dict[str, Tensor], heads: int | None = None) -> tuple[UTMOSConfig, dict[str, Tensor]]:
    """UTMOS22-strong's weights -> ours; load the result strictly. Sizes are read from the shapes.

    Args:
        heads: of wav2vec 2.0; by default as in the released one, 64 channels each.

    Raises:
        DuologueError: an unknown tensor, or one that the sizes are read from is missing.
    """

    def size(key: str, dim: int) -> int:
        if key not in state_dict or state_dict[key].dim() <= dim:
            raise DuologueError(f"{SOURCE} checkpoint lacks the tensor {key}")
        return state_dict[key].shape[dim]

    hidden = size(PREFIX + "post_extract_proj.weight", 0)
    numbers = {found[1] for key in state_dict if (found := re.match(r"wav2vec2\.encoder\.layers\.(\d+)\.", key))}
    config = UTMOSConfig(
        conv_channels=size(PREFIX + "post_extract_proj.weight", 1),
        hidden=hidden,
        ffn=size(PREFIX + "encoder.layers.0.fc1.weight", 0),
        heads=hidden // HEAD_DIM if heads is None else heads,
        layers=len(numbers),
        pos_conv_kernel=size(PREFIX + "encoder.pos_conv.0.weight_v", 2),
        pos_conv_groups=hidden // size(PREFIX + "encoder.pos_conv.0.weight_v", 1),
        domain_emb=size("domain_emb", 1),
        judge_emb=size("judge_emb", 1),
        lstm=size("blstm.weight_hh_l0", 1),
        projection=size("projection.0.weight", 0),
    )
    return config, rename_keys(state_dict, KEYS, SOURCE)


@dataclass(frozen=True, kw_only=True)
class Config:
    """
    heads: of wav2vec 2.0, if they are not of 64 channels each
    """

    heads: int | None = None


def run(source: Path, dest: Path, config: Config) -> Path:
    """Import ``utmos22_strong_step7459_v1.pt`` (or the same tensors as safetensors) to a folder for ``load_part``."""
    sizes, tensors = convert(read_tensors(source), config.heads)
    model = made(lambda: UTMOS(sizes))
    assign(model, tensors, str(source))
    return save_part(dest, "utmos", model, sizes, imported_card(SOURCE, source))
