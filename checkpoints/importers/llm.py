"""Any causal language model of transformers, with its tokenizer. transformers itself reads the folder, for it knows how
each family's files become its modules (the experts of a mixture are one tensor each there); nothing may be missing or
left over."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
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
from . import imported_card
from .files import read_folder

SOURCE = "transformers"
NOT_OF_THE_MODEL = (
    "architectures", "dtype", "torch_dtype", "_name_or_path", "_model_name_or_path", "transformers_version", "auto_map",
    "model_type", "quantization_config",
)  # fmt: skip
DROPPED = ".rotary_emb.inv_freq"  # a table that old versions stored


@dataclass(frozen=True, kw_only=True)
class Config:
    """Nothing is needed besides."""


def run(source: Path, dest: Path, config: Config) -> Path:
    """Import a model folder of transformers to a folder that a recipe takes by ``llm=DEST``.

    Raises:
        DuologueError: the folder cannot be read or lacks weights, or a family that cannot be fed as Duologue does.
    """
    sizes, model = read(source)
    return save_part(dest, "llm", model, sizes, imported_card("language model", source), load_tokenizer(source))


def read(source: Path) -> tuple[dict[str, Any], LLM]:
    """The config and the language model of a model folder of transformers. Raises as :func:`run`."""
    kind = str(read_object(source / "config.json").get("model_type"))
    read_folder(source)  # names the shard that is missing or damaged; pickles are looked into before they are loaded
    return converted(loaded(source, source, kind, dtype="auto"), source)


def converted(theirs: Any, source: Path) -> tuple[dict[str, Any], LLM]:
    """The config of a causal LM of transformers, and ours with its very tensors; ``source`` is for errors.

    Raises:
        DuologueError: a family that cannot be fed as Duologue does.
    """
    settings = theirs.config.to_diff_dict()
    kind = theirs.config.model_type
    sizes = {"model_type": kind, **{key: value for key, value in settings.items() if key not in NOT_OF_THE_MODEL}}
    model = made(lambda: LLM(sizes))
    assign(model, once(model, {f"lm.{name}": tensor for name, tensor in theirs.state_dict().items()}), str(source))
    check_family(model, kind)
    return sizes, model


def loaded(folder: Path, source: Path, kind: str, **options: Any) -> Any:
    """transformers' own model of a folder. ``options`` go to ``from_pretrained``; ``source`` and ``kind`` to errors.

    Raises:
        DuologueError: it cannot be loaded, or a tensor is missing, left over or misshapen.
    """
    from transformers import AutoModelForCausalLM

    try:
        with quiet():
            model, found = AutoModelForCausalLM.from_pretrained(
                folder, output_loading_info=True, local_files_only=True, ignore_mismatched_sizes=True, **options
            )
    except Exception as error:  # of many kinds: no such family, a damaged file, a quantisation without its package
        raise DuologueError(f"{source}: {SOURCE} cannot load a model of type {kind!r}: {one_line(error)}") from None
    extra = [name for name in found["unexpected_keys"] if not name.endswith(DROPPED)]
    for names, fault in (
        (found["missing_keys"], "is missing"),
        (extra, "has no place in the model"),
        ([name for name, *_ in found["mismatched_keys"]], "has another shape than the config says"),
    ):
        if names:
            more = f" (and {len(names) - 1} more)" if len(names) > 1 else ""
            raise DuologueError(f"{source}: tensor {min(names)!r} {fault}{more}")
    return model


@contextmanager
def quiet() -> Iterator[None]:
    """What transformers reports in many lines, an error says in one."""
    from transformers.utils import logging

    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()


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


@torch.no_grad()
def check_family(model: LLM, kind: str) -> None:
    """Raises DuologueError unless four positions give the logits of transformers' own code: at once, in two steps, and
    as two packed rows. A family whose layers keep other states than keys and values cannot be fed a chunk at a time."""
    embeds = model.eval().embed(torch.arange(1, 5)[None] * model.vocab_size // 6)
    try:
        whole, second = (model.lm(inputs_embeds=each, use_cache=False).logits for each in (embeds, embeds[:, 2:]))
        state = model.init_state()
        stepped = torch.cat([model.step(piece, state).logits for piece in embeds.split(2, dim=1)], dim=1)
        packed = model(embeds, segments=torch.tensor([[0, 0, 1, 1]])).logits
        alike = [_alike(model(embeds).logits, whole), _alike(stepped, whole), _alike(packed[:, 2:], second)]
    except Exception as error:  # whatever a family's code makes of states and masks that it does not know
        reason = one_line(error)
    else:
        if all(alike):
            return
        reason = "in chunks it gives other logits than at once"
    raise DuologueError(f"llm family {kind!r} is not supported; its layers must keep keys and values alone: {reason}")


def _alike(one: Tensor, other: Tensor) -> bool:
    """Up to rounding, of bfloat16 too."""
    return bool((one.float() - other.float()).norm() <= 0.05 * other.float().norm())
