"""A language model in a GGUF file, llama.cpp's format, with the tokenizer and the chat template that are in the file.

transformers reads it: it knows each family's names, and unpacks quantised blocks (Q4_K_M, Q8_0, …). What is written is
what ``duologue import llm`` writes of a folder, the weights in float16 or bfloat16. It takes a minute.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from ...model.errors import DuologueError
from ..files import read_object, write_json
from ..parts import save_part
from ..program import say_progress
from ..source import TOKENIZER, one_line
from ..store import dtype_of, load_tokenizer
from . import imported_card
from .files import only
from .llm import converted, loaded, quiet

SOURCE = "GGUF"
MAGIC = b"GGUF"
TOKENIZER_CONFIG = "tokenizer_config.json"
FILE = "model.gguf"  # what the source is called where transformers reads it


@dataclass(frozen=True, kw_only=True)
class Config:
    """
    dtype: of the weights that are written; float16 holds every quantised file, bfloat16 what reaches beyond 65504
    """

    dtype: Literal["float16", "bfloat16"] = "float16"


def run(source: Path, dest: Path, config: Config) -> Path:
    """Import a ``.gguf``, or the folder of which it is the only one, to a folder that a recipe takes by ``llm=DEST``.

    Raises:
        DuologueError: gguf is not installed, a damaged file, or a family that transformers or Duologue does not know.
    """
    file = only(source, ".gguf") if source.is_dir() else source
    _check(file)
    with tempfile.TemporaryDirectory() as folder:  # of the file alone: transformers mixes in what lies beside it
        (Path(folder) / FILE).symlink_to(file.absolute())
        say_progress(f"reading {file.name} ({file.stat().st_size / 1e6:.0f} MB): its weights")
        sizes, model = converted(_model(Path(folder), file, config.dtype), file)
        say_progress(f"reading {file.name}: its tokenizer")
        tokenizer = _tokenizer(Path(folder), file, model.vocab_size)
    return save_part(dest, "llm", model, sizes, imported_card("GGUF", file), tokenizer)


def _check(file: Path) -> None:
    with file.open("rb") as head:
        if head.read(len(MAGIC)) != MAGIC:
            raise DuologueError(f"{file} is no {SOURCE} file: it does not begin with {MAGIC.decode()}")
    try:
        import accelerate  # noqa: F401 (transformers reads these files with it)
        import gguf  # noqa: F401
    except ImportError as error:
        raise DuologueError(f"{SOURCE} files need {error.name}: pip install 'duologue[gguf]'") from None


def _model(folder: Path, file: Path, dtype: str) -> Any:
    """transformers' own model, every weight unpacked."""
    from transformers import GgufConfig

    unpacked = GgufConfig(dequantize=True)
    model = loaded(folder, file, SOURCE, gguf_file=FILE, dtype=dtype_of(dtype), quantization_config=unpacked)
    for name, tensor in model.state_dict().items():
        if not torch.isfinite(tensor).all():
            raise DuologueError(f"{file}: tensor {name!r} is not finite in {dtype}; try dtype=bfloat16")
    return model


def _tokenizer(folder: Path, file: Path, size: int) -> Any:
    """The fast tokenizer in the file, as Duologue reads it from disk, without tokens beyond ``size``: transformers adds
    such a family's usual special tokens as the file does not have."""
    from transformers import AutoTokenizer

    try:
        with quiet(), tempfile.TemporaryDirectory() as written:
            AutoTokenizer.from_pretrained(folder, gguf_file=FILE, local_files_only=True).save_pretrained(written)
            tokens = read_object(Path(written) / TOKENIZER)
            beyond = {token["content"] for token in tokens["added_tokens"] if token["id"] >= size}
            tokens["added_tokens"] = [token for token in tokens["added_tokens"] if token["content"] not in beyond]
            settings = read_object(Path(written) / TOKENIZER_CONFIG)
            settings = {key: None if value in (*beyond,) else value for key, value in settings.items()}
            write_json(Path(written) / TOKENIZER, tokens)
            write_json(Path(written) / TOKENIZER_CONFIG, settings)
            return load_tokenizer(Path(written))
    except DuologueError:
        raise
    except Exception as error:  # of many kinds: a damaged file, a tokenizer that transformers does not know
        raise DuologueError(f"{file}: transformers cannot read its tokenizer: {one_line(error)}") from None
