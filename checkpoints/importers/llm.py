"""Any causal language model of transformers, with its tokenizer: shards of safetensors or of pickled tensors."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ...model.errors import DuologueError
from ...model.language_model.causal_lm import LLM
from ..files import read_object
from ..parts import save_part
from ..source import one_line
from ..store import load_tokenizer
from ..weights import assign, made
from . import KeyTable, imported_card, rename_keys
from .files import read_folder

SOURCE = "transformers"
NOT_OF_THE_MODEL = ("architectures", "dtype", "torch_dtype", "_name_or_path", "transformers_version", "auto_map")

KEYS: KeyTable = {
    r".*\.rotary_emb\.inv_freq": None,  # a table that old versions stored
    r"(.*)": r"lm.\1",
}


@dataclass(frozen=True, kw_only=True)
class Config:
    """Nothing is needed besides."""


def convert(state_dict: dict[str, Tensor], config: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """A transformers causal LM's weights and ``config.json`` -> :class:`LLM`'s config and tensors.

    Raises:
        DuologueError: the family is unknown to transformers, or twice-stored tied weights differ.
    """
    from transformers import AutoConfig

    fields = {name: value for name, value in config.items() if name not in NOT_OF_THE_MODEL}
    kind = fields.pop("model_type", None)
    try:
        settings = AutoConfig.for_model(kind, **fields).to_diff_dict()
    except (ValueError, TypeError, KeyError) as error:
        raise DuologueError(f"{SOURCE} config of model_type {kind!r} is not accepted: {one_line(error)}") from None
    ours = {name: value for name, value in settings.items() if name not in NOT_OF_THE_MODEL}
    return {"model_type": kind, **ours}, rename_keys(state_dict, KEYS, SOURCE)


def once(model: nn.Module, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors with tied weights once, under the first of their names, however often and as what they were stored.

    Raises:
        DuologueError: two tensors that the model ties are not equal.
    """
    first: dict[int, str] = {}
    kept = dict(tensors)
    for name, parameter in sorted(model.state_dict(keep_vars=True).items()):
        main = first.setdefault(id(parameter), name)
        if name == main or name not in kept:
            continue
        twin = kept.pop(name)
        if main in kept and not twin.is_meta and not torch.equal(kept[main], twin):
            raise DuologueError(f"{SOURCE} config ties {main!r} and {name!r}, but their numbers differ")
        kept.setdefault(main, twin)
    return kept


def run(source: Path, dest: Path, config: Config) -> Path:
    """Import a model folder of transformers to a folder that a recipe takes by ``llm=DEST``."""
    sizes, tensors = convert(read_folder(source), read_object(source / "config.json"))
    model = made(lambda: LLM(sizes))
    assign(model, once(model, tensors), str(source))
    tokenizer = load_tokenizer(source)
    return save_part(dest, "llm", model, sizes, imported_card("language model", source), tokenizer)
