"""The store: a model is a folder, and what comes out is what went in, or an error that names the difference.

    folder/config.json          the nested configs, the token-id layout, the tokenizer's fingerprint
    folder/model.safetensors    every parameter and buffer by name; float32, or float16 to halve the file
    folder/tokenizer.json       (and tokenizer_config.json) a Hugging Face fast tokenizer
                                where config.json names base weights, their tensors and tokenizer are not here (base/)
    folder/words.arpa.gz        where config.json has a decoder: the n-gram model of the words that it hears
    folder/README.md            the model card; its facts are in card.json (see cards/facts.py)

Saving writes beside the folder and renames; loading is strict. Only safetensors are read, never pickles.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from ..model.audio_encoder.windowed import WindowConfig
from ..model.decoding.beam import BeamConfig
from ..model.decoding.decoder import DecoderConfig
from ..model.decoding.ngrams import arpa
from ..model.decoding.ngrams.backoff import NGramLM
from ..model.errors import DuologueError
from ..model.speech_lm import SpeechLM, SpeechLMConfig
from .base.cache import imported
from .base.declared import KEY, BaseWeights, read_base
from .cards.facts import Card
from .cards.render import write_card
from .config_io import config_from_dict, config_to_dict
from .files import read_json
from .folders import replaceable, replacing
from .source import CONFIG, TOKENIZER, WEIGHTS, WORDS, one_line, resolve
from .weights import DeviceMap, fill, made, named_tensors, spread, to_int8

FORMAT = "duologue/1"


@dataclass(frozen=True, kw_only=True)
class StoredDecoder:
    """How a model that hears words looks for them, unless it is told otherwise: with the n-gram model in WORDS."""

    beam: int = 8
    lm_weight: float = 0.5
    lm_bonus: float | None = None

    def config(self, lm: NGramLM) -> DecoderConfig:
        """Raises DuologueError for a width or a weight that cannot be."""
        return DecoderConfig(
            beam=BeamConfig(width=self.beam), lm=lm, lm_weight=self.lm_weight, lm_bonus=self.lm_bonus
        )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class StoredConfig:
    """What config.json holds."""

    format: str  # FORMAT
    special_tokens: dict[str, str]  # the layout's names and what the tokenizer calls them, "bos": "<bos>"
    vocabulary: str  # fingerprint of the tokenizer's whole vocabulary: a permuted one must not pass silently
    model: SpeechLMConfig
    # Parts that are not stored here, by name; the tokenizer is then that of the language model among them.
    base: dict[str, BaseWeights] = field(default_factory=dict, metadata={"newer": True})
    decoder: StoredDecoder | None = field(default=None, metadata={"newer": True})


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """A loaded model."""

    model: SpeechLM  # in evaluation mode
    tokenizer: Any  # a transformers PreTrainedTokenizerFast
    path: Path  # the folder that it came from


def save(
    folder: str | Path,
    model: SpeechLM,
    tokenizer: Any,
    card: Card | None = None,
    *,
    half: bool = False,
    base: Mapping[str, BaseWeights] | None = None,
    decoder: StoredDecoder | None = None,
) -> Path:
    """Write a checkpoint folder, so that readers see the old one or the new one, never half of one.

    Args:
        folder: where; a checkpoint that is there is replaced, anything else there is an error.
        model: its ``config`` goes to config.json, its state dict to model.safetensors.
        tokenizer: a transformers fast tokenizer, or a folder that holds one.
        card: its facts; the sizes of the parts alone, if not given.
        half: store float32 parameters as float16. They are loaded as float32 again.
        base: parts of the model that are these very weights: they are named, not stored. With ``llm`` among them the
            tokenizer, which must be its own, is not stored either.
        decoder: of the words that it hears; the n-gram model is that of the model's own decoder.
    Raises:
        DuologueError: token ids, tokenizer and sizes do not fit together, a value cannot be stored, or ``folder`` is
            something other than a checkpoint.
    """
    folder = replaceable(folder)
    if isinstance(tokenizer, (str, Path)):
        tokenizer = load_tokenizer(Path(tokenizer))
    check_tokenizer(model, tokenizer)
    stored = StoredConfig(
        format=FORMAT,
        special_tokens=_special_tokens(model.config, tokenizer),
        vocabulary=_fingerprint(tokenizer),
        model=model.config,
        base=dict(base or {}),
        decoder=decoder,
    )
    values = config_to_dict(stored)
    for name in [name for name in (KEY, "decoder") if not values[name]]:
        del values[name]
    tensors = {name: _to_disk(name, tensor, half) for name, tensor in named_tensors(model).items()
               if name.partition(".")[0] not in stored.base}  # fmt: skip
    with replacing(folder) as beside:
        save_file(tensors, beside / WEIGHTS, metadata={"format": "pt"})
        if "llm" not in stored.base:
            tokenizer.save_pretrained(beside)
        if decoder is not None:
            assert model.decoder is not None and isinstance(model.decoder.lm, NGramLM)
            text = "".join(arpa.written(model.decoder.lm, digits=5))
            (beside / WORDS).write_bytes(gzip.compress(text.encode("utf-8"), mtime=0))
        text = json.dumps(values, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
        (beside / CONFIG).write_text(text, encoding="utf-8")
        write_card(beside, replace(card or Card(), name=folder.name))
    return folder


def load(
    name_or_path: str | Path,
    device: str | torch.device = "cpu",
    dtype: torch.dtype = torch.float32,
    device_map: DeviceMap | None = None,
    int8: bool = False,
    window: WindowConfig | None = None,
) -> Checkpoint:
    """Read a checkpoint: the name of a bundled model ("nano"), a folder, or a hub id.

    Args:
        device: where the model goes.
        dtype: of the parameters; buffers (tables of angles, filters) stay as they are. With float32 the language
            model's are what its config says (``llm_dtype``).
        device_map: parts by name -> device, to spread a model over several (``{"llm.lm.model.layers.0": 1, …}``); the
            rest goes to ``device``.
        int8: keep the language model's matrices as 8-bit integers with a scale a row (torchao): less memory, not time.
        window: hear while the user speaks with an encoder that was made for whole clips (see
            model/audio_encoder/windowed.py); ``None``: as it was made, for the numbers it had at home.
    Raises:
        DuologueError: one line that says what is missing, extra, misshapen or unreachable.
    """
    folder = resolve(name_or_path)
    stored = _read_config(folder)
    tokenizer = load_tokenizer(folder)
    _check_same_tokenizer(folder, stored, tokenizer)
    try:
        model = made(lambda: SpeechLM(stored.model))
        check_tokenizer(model, tokenizer)
        model.read_by(tokenizer)
    except DuologueError as error:
        raise DuologueError(f"{folder}: {error}") from None
    base = {part: imported(part, weights) / WEIGHTS for part, weights in stored.base.items()}
    fill(model, folder / WEIGHTS, elsewhere=base, device=device, dtype=dtype, device_map=device_map)
    if dtype is torch.float32 and stored.model.llm_dtype != "float32":
        model.llm.compute_in(dtype_of(stored.model.llm_dtype))
    if int8:
        to_int8(model.llm)
    if window is not None:
        model.listen_through(window)
    if device_map:
        spread(model)
    if stored.decoder is not None:
        model = model.with_decoder(stored.decoder.config(_read_words(folder / WORDS)))
    return Checkpoint(model=model, tokenizer=tokenizer, path=folder)


def read_model_config(name_or_path: str | Path) -> SpeechLMConfig:
    """The sizes of a checkpoint, without its weights.

    Raises:
        DuologueError: as :func:`load`.
    """
    return _read_config(resolve(name_or_path)).model


def device_of(name: str) -> torch.device:
    """A device by its name ("cpu", "cuda", "cuda:1").

    Raises:
        DuologueError: torch does not know it, or this machine does not have it.
    """
    try:
        torch.zeros(1, device=name).cpu()  # of "meta" there is nothing to be had
    except (RuntimeError, AssertionError) as error:
        raise DuologueError(f"device {name!r} cannot be used: {one_line(error)}") from None
    return torch.device(name)


DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def has_bf16() -> bool:
    """Whether this machine multiplies bfloat16 in hardware; elsewhere float32 is about three times as fast."""
    if torch.cuda.is_available():
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if torch.accelerator.is_available():
        return True
    return torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported()


def dtype_of(name: str) -> torch.dtype:
    """A dtype of weights by its name; ``auto`` is bfloat16 where the machine has it, otherwise float32.

    Raises:
        DuologueError: another name.
    """
    if name == "auto":
        return torch.bfloat16 if has_bf16() else torch.float32
    if name not in DTYPES:
        raise DuologueError(f"dtype is {name!r}; it must be {', '.join(DTYPES)} or auto")
    return DTYPES[name]


def load_tokenizer(folder: Path) -> Any:
    """The fast tokenizer of a checkpoint folder, or of the base weights of its language model."""
    if not (folder / TOKENIZER).is_file() and "llm" in (base := read_base(folder)):
        folder = imported("llm", base["llm"])
    if not (folder / TOKENIZER).is_file():
        raise DuologueError(f"{folder} has no {TOKENIZER}")
    from transformers import PreTrainedTokenizerFast

    try:
        if (folder / "tokenizer_config.json").is_file():
            # False, or it would warn of every folder whose config.json names no model_type of transformers.
            found = PreTrainedTokenizerFast.from_pretrained(folder, local_files_only=True, fix_mistral_regex=False)
            found.init_kwargs.pop("fix_mistral_regex", None)  # not to be saved with it
            return found
        return PreTrainedTokenizerFast(tokenizer_file=str(folder / TOKENIZER))
    except Exception as error:  # the tokenizers library raises bare Exception for a damaged file
        raise DuologueError(f"{folder / TOKENIZER} cannot be read: {one_line(error)}") from None


def check_tokenizer(model: SpeechLM, tokenizer: Any) -> None:
    """Every id that the tokenizer gives must be one of the language model's, and every word of the layout in it.

    (That markers, prompt and unit counts fit the parts is checked when the model is built.)
    """
    if len(tokenizer) > model.llm.vocab_size:
        raise DuologueError(f"the tokenizer has {len(tokenizer)} tokens, the language model {model.llm.vocab_size}")
    after = model.config.layout.text[1]
    if after > len(tokenizer):
        raise DuologueError(f"the layout's text ids go to {after - 1}, the tokenizer's only to {len(tokenizer) - 1}")


def _special_tokens(config: SpeechLMConfig, tokenizer: Any) -> dict[str, str]:
    """What the tokenizer calls the layout's markers. An id beyond the tokenizer (a padded vocabulary) is left out."""
    known = {name: token for name, token in config.layout.markers().items() if token < len(tokenizer)}
    return {name: str(tokenizer.convert_ids_to_tokens(token)) for name, token in known.items()}


def _fingerprint(tokenizer: Any) -> str:
    """A digest of (id, token) pairs, so that a permuted vocabulary is noticed."""
    pairs = sorted((index, token) for token, index in tokenizer.get_vocab().items())
    return hashlib.sha256(json.dumps(pairs, ensure_ascii=False).encode()).hexdigest()[:16]


def _check_same_tokenizer(folder: Path, stored: StoredConfig, tokenizer: Any) -> None:
    """The tokenizer must be the one that the model was saved with."""
    found = _special_tokens(stored.model, tokenizer)
    for name, token in stored.model.layout.markers().items():
        if found.get(name) != stored.special_tokens.get(name):
            raise DuologueError(
                f"{folder}: token {token} ({name}) is {found.get(name)!r} in {TOKENIZER}, "
                f"{stored.special_tokens.get(name)!r} in {CONFIG}"
            )
    if _fingerprint(tokenizer) != stored.vocabulary:
        raise DuologueError(f"{folder}: its {TOKENIZER} is not the tokenizer that the model was saved with")


def _read_config(folder: Path) -> StoredConfig:
    path = folder / CONFIG
    if not path.is_file():
        raise DuologueError(f"{folder} is not a model folder: it has no {CONFIG}")
    data = read_json(path)
    found = data.get("format") if isinstance(data, dict) else None
    if found != FORMAT:
        raise DuologueError(f"{path} has format {found!r}; this version reads {FORMAT!r}")
    try:
        return config_from_dict(StoredConfig, data)
    except DuologueError as error:
        raise DuologueError(f"{path}: {error}") from None


def _read_words(path: Path) -> NGramLM:
    try:
        with gzip.open(path, "rt", encoding="utf-8") as file:
            return arpa.read(file, str(path))
    except (OSError, EOFError, UnicodeDecodeError, zlib.error) as error:
        raise DuologueError(f"{path} cannot be read: {one_line(error)}") from None


def _to_disk(name: str, tensor: Tensor, half: bool) -> Tensor:
    """What goes into the file. Buffers keep their precision: they are small, and rounding a filter bank shows."""
    values = tensor.detach().cpu()
    if half and isinstance(tensor, nn.Parameter) and values.dtype is torch.float32:
        narrow = values.half()
        if not torch.isfinite(narrow).all():
            raise DuologueError(f"tensor {name!r} reaches {values.abs().max():.3g}; float16 holds at most 65504")
        values = narrow
    return values.contiguous()
