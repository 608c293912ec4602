"""A part of a model: in the run that trained it, in a whole checkpoint, or (an encoder, a language model, a judge that
came from elsewhere) in a folder of its own:

folder/config.json          which part it is, and its config
folder/model.safetensors    its tensors under the part's name ("encoder.conv1.weight"), as in a whole checkpoint, so
                            that a recipe takes it by start=encoder=FOLDER
folder/README.md            where it came from; the same in card.json
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from ..model.audio_encoder.encoder import Encoder
from ..model.audio_encoder.manner import MannerHead
from ..model.audio_encoder.mel import LogMel, LogMelConfig
from ..model.errors import DuologueError
from ..model.language_model.causal_lm import LLM
from ..model.speech_lm_config import EncoderConfig, SpeechLMConfig, parts_of
from .base.cache import weights_of
from .cards.facts import Card
from .cards.render import write_card
from .config_io import config_from_dict, config_to_dict, read_value
from .files import expanded, read_object
from .folders import replaceable, replacing
from .source import CONFIG, WEIGHTS, one_line, resolve
from .store import load_tokenizer, read_model_config
from .weights import fill, made, named_tensors

FORMAT = "duologue-part/1"
RECIPE = "recipe.json"  # a training run's folder holds it, a checkpoint's does not
C = TypeVar("C")
M = TypeVar("M", bound=nn.Module)


@dataclass(frozen=True, kw_only=True)
class StoredPart:
    """What config.json holds."""

    format: str  # FORMAT
    part: str
    config: dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class EncoderPart:
    """The config of a part ``encoder``: an encoder means nothing without the spectrogram that it was trained on."""

    mel: LogMelConfig
    encoder: EncoderConfig


def save_part(folder: str | Path, part: str, module: nn.Module, config: Any, card: Card, tokenizer: Any = None) -> Path:
    """Write a part, so that readers see the old folder or the new one, never half of one.

    Args:
        part: its name in a whole model ("encoder"), or what it is elsewhere ("utmos").
        config: its dataclass, or plain JSON values.
        card: where it came from, and what else is known of it.
        tokenizer: a transformers tokenizer, for a language model.
    Raises:
        DuologueError: ``folder`` is something other than a model folder, or the config has no JSON form.
    """
    folder = replaceable(folder)
    values = config if isinstance(config, dict) else config_to_dict(config)
    stored = config_to_dict(StoredPart(format=FORMAT, part=part, config=values))
    tensors = {f"{part}.{name}": tensor.detach().contiguous() for name, tensor in named_tensors(module).items()}
    with replacing(folder) as beside:
        save_file(tensors, beside / WEIGHTS, metadata={"format": "pt"})
        if tokenizer is not None:
            tokenizer.save_pretrained(beside)
        (beside / CONFIG).write_text(json.dumps(stored, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        write_card(beside, replace(card, name=folder.name))
    return folder


def read_part(folder: str | Path, part: str) -> dict[str, Any]:
    """The config of a part's folder (or hub id).

    Raises:
        DuologueError: no such folder, or it holds something else.
    """
    path = resolve(folder) / CONFIG
    if not path.is_file():
        raise DuologueError(f"{folder} is not a folder of an imported {part}: it has no {CONFIG}")
    found = read_object(path)
    try:
        stored = config_from_dict(StoredPart, found)
    except DuologueError as error:
        raise DuologueError(f"{path} is not that of an imported {part} (duologue import): {error}") from None
    if stored.format != FORMAT or stored.part != part:
        raise DuologueError(f"{path} is a {stored.part!r} in format {stored.format!r}; wanted: {part!r} in {FORMAT!r}")
    return stored.config


def load_part(
    folder: str | Path,
    part: str,
    config: type[C],
    build: Callable[[C], M],
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> M:
    """The module of a part's folder, in evaluation mode: ``load_part(folder, "utmos", UTMOSConfig, UTMOS)``.

    Raises:
        DuologueError: one line that says what is missing, extra or misshapen.
    """
    values = read_part(folder, part)
    try:
        sizes = config_from_dict(config, values)
        module = made(lambda: build(sizes))
    except DuologueError as error:
        raise DuologueError(f"{folder}: {error}") from None
    fill(module, resolve(folder) / WEIGHTS, prefix=f"{part}.", device=device, dtype=dtype)
    return module


def read_run(folder: str | Path) -> dict[str, Any]:
    """The recipe that a run was made by; nothing where the folder is no run's."""
    path = expanded(folder) / RECIPE
    return read_object(path) if os.path.isfile(path) else {}  # of a name that is too long, False


def read_sizes(name: str | Path, part: str) -> dict[str, Any]:
    """The config of a part of a model and of those that go beside it, ``{"mel": …, "encoder": …}``, by what a run, a
    part's folder or a checkpoint (also a bundled name or a hub id) says; nothing where a folder of weights says none.

    Raises:
        DuologueError: there is no such folder, or it holds another part.
    """
    declared = parts_of(SpeechLMConfig)
    wanted = (*declared[part].beside, part)
    if not (found := read_run(name)):
        if os.path.isfile(expanded(name)) or not (path := resolve(name) / CONFIG).is_file():
            return {}
        if "model" in read_object(path):
            found = vars(read_model_config(name))
            return {each: found[each] for each in wanted if found[each] is not None}
        found = read_part(name, part)
        found = found if declared[part].beside else {part: found}
    return {each: read_value(declared[each].kind, found[each], each) for each in wanted if found.get(each) is not None}


def read_embeddings(name: str | Path, ids: Tensor) -> Tensor:
    """The input embeddings (V, D) of tokens (V,) of a language model: of a run that trained one, a part ``llm``, or a
    model. Nothing else of it is read.

    Raises:
        DuologueError: there is no language model, or a token is none of its own.
    """
    sizes = read_sizes(name, "llm")
    path = (expanded(name) if read_run(name) else resolve(name)) / WEIGHTS
    if "llm" not in sizes or not path.is_file():
        raise DuologueError(f"{name} holds no language model: expected a part of duologue import llm, a run or a model")
    llm = made(lambda: LLM(sizes["llm"]))
    if int(ids.max()) >= llm.vocab_size:
        raise DuologueError(f"token {int(ids.max())} is none of the {llm.vocab_size} of the language model in {name}")
    table = llm.lm.get_input_embeddings()
    tied = {f"llm.{key}" for key, tensor in llm.state_dict(keep_vars=True).items() if tensor is table.weight}
    try:
        with safe_open(path, "pt") as file:
            found = tied.intersection(file.keys())
            if not found:
                raise DuologueError(f"{path} has no tensor {min(tied)!r}")
            table.weight = nn.Parameter(file.get_tensor(min(found)).float())
    except (SafetensorError, OSError) as error:
        raise DuologueError(f"{path} cannot be read: {one_line(error)}") from None
    with torch.no_grad():
        return llm.embed(ids).float()


def load_encoder(name: str | Path) -> tuple[LogMel, Encoder]:
    """Log-mel and encoder, in evaluation mode, of a run that trained one, a part ``encoder``, or a model.

    Raises:
        DuologueError: there is no encoder, or its tensors do not fit its sizes.
    """
    sizes = read_sizes(name, "encoder")
    folder = expanded(name) if read_run(name) else resolve(name)
    if len(sizes) < 2 or not (folder / WEIGHTS).is_file():
        raise DuologueError(f"{name} is not a run that has trained an encoder: expected one of asr_pretrain or ssl")
    encoder = made(sizes["encoder"].build)
    fill(encoder, weights_of(folder, "encoder"), prefix="encoder.", dtype=torch.float32)
    return LogMel(sizes["mel"]), encoder


def load_manner(name: str | Path) -> tuple[LogMel, Encoder, MannerHead]:
    """Log-mel, encoder and the head for the manner of speaking, in evaluation mode, of a run of stage manner, or of a
    model that has the head.

    Raises:
        DuologueError: there is no such head, or its tensors do not fit its sizes.
    """
    run = read_run(name)
    sizes = read_sizes(name, "manner")
    folder = expanded(name) if run else resolve(name)
    if "manner" not in sizes or not (folder / WEIGHTS).is_file() or (run and not run.get("source")):
        raise DuologueError(
            f"{name} has no head for the manner of speaking: expected a run of `duologue train manner source=…`, or a "
            "model assembled with manner=RUN"
        )
    mel, encoder = load_encoder(run["source"] if run else name)
    head = made(lambda: MannerHead(sizes["manner"])).eval()
    fill(head, weights_of(folder, "manner"), prefix="manner.", dtype=torch.float32)
    return mel, encoder, head


def load_llm(
    name: str | Path, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32
) -> tuple[LLM, Any]:
    """Language model, in evaluation mode, and its tokenizer, of a part ``llm``, a run that trained one, or a model.

    Raises:
        DuologueError: there is no language model or no tokenizer, or its tensors do not fit its sizes.
    """
    run = read_run(name)
    sizes = read_sizes(name, "llm").get("llm")
    folder = expanded(name) if run else resolve(name)
    if sizes is None or not (weights := weights_of(folder, "llm")).is_file():
        raise DuologueError(f"{name} has no language model: expected one that was imported, a run or a model")
    if run and not run.get("tokenizer"):
        raise DuologueError(f"{name} is a run in a question set's words: give one that was made with llm=")
    tokenizer = load_tokenizer(resolve(run["tokenizer"]) if run else folder)
    llm = made(lambda: LLM(sizes))
    fill(llm, weights, prefix="llm.", device=device, dtype=dtype)
    return llm, tokenizer
