"""A cascade's file: which recogniser, language model and voice it is made of. Paths are relative to the file.

    {"cascade": {"llm": "qwen", "recogniser": "whisper-base", "voice": "flite:rms", "language": "en"}}

A model is named by such a file, or by a folder with one of the name cascade.json.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import torch

from ...checkpoints.files import expanded, read_object
from ...checkpoints.importers import llm as importer
from ...checkpoints.parts import FORMAT, read_part
from ...checkpoints.recognisers.recogniser import ENGLISH, find_recogniser
from ...checkpoints.source import CONFIG, WEIGHTS, resolve, resolve_foreign
from ...checkpoints.store import load_tokenizer
from ...checkpoints.weights import fill, made
from ...data_prep.speech.synthesis import require
from ...data_prep.speech.voices import find_voices
from ...model.errors import DuologueError
from ...model.language_model.causal_lm import LLM
from .cascade import Cascade

NAME, KEY = "cascade.json", "cascade"


@dataclass(frozen=True, kw_only=True)
class CascadeConfig:
    """What a cascade is made of.

    llm: what `duologue import llm` wrote, or a folder of transformers (or a hub id of either).
    recogniser: as everywhere (see checkpoints/recognisers); None: the usual one.
    voice: of a synthesiser; None: it replies in writing alone.
    language: of what is said (ISO 639).
    """

    llm: str
    recogniser: str | None = None
    voice: str | None = None
    language: str = ENGLISH


def find_cascade(name: str) -> Path | None:
    """The JSON file that ``name`` leads to; None: it names no cascade.

    Raises:
        DuologueError: a JSON file that is not there.
    """
    path = expanded(name)
    try:
        missing = path.suffix == ".json" and not path.exists()
        path = path / NAME if path.is_dir() else path
        found = path.suffix == ".json" and path.is_file()
    except (OSError, ValueError):  # a name that no file system takes
        return None
    if missing:
        raise DuologueError(f"no such file: {name}")
    return path if found and KEY in read_object(path) else None


def read_cascade(file: Path) -> CascadeConfig:
    """What a file says, its paths made absolute.

    Raises:
        DuologueError: it says something else.
    """
    said = read_object(file)
    found, known = said[KEY], CascadeConfig.__dataclass_fields__
    if beside := set(said) - {KEY}:
        raise DuologueError(f"{file}: unknown key {min(beside)!r} beside {KEY!r}, which holds all")
    if isinstance(found, dict):
        found = {key: value for key, value in found.items() if value is not None or key not in known}
    if not isinstance(found, dict) or not isinstance(found.get("llm"), str):
        raise DuologueError(f"{file}: {KEY!r} must be an object with 'llm', and may have {', '.join(known)}")
    for key, value in found.items():
        if key not in known:
            raise DuologueError(f"{file}: unknown key {key!r}: expected {', '.join(known)}")
        if not isinstance(value, str):
            raise DuologueError(f"{file}: {key!r} is {value!r:.40}, expected text")

    def placed(value: str | None) -> str | None:
        return str(file.parent / value) if value and (file.parent / value).exists() else value

    config = CascadeConfig(**found)
    return replace(config, llm=placed(config.llm) or "", recogniser=placed(config.recogniser))


def load_cascade(file: Path, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32) -> Cascade:
    """The cascade of a JSON file.

    Raises:
        DuologueError: a file that says something else, or a part that is not there.
    """
    config = read_cascade(file)
    voice = None if config.voice is None else find_voices(config.voice)[0]
    if voice is not None:
        require(voice.engine)
    folder, llm = language_model(config.llm, device, dtype)
    return Cascade(find_recogniser(config.recogniser, config.language), llm, load_tokenizer(folder), voice)


def weights_of(file: Path) -> list[Path]:
    """The files that decide what a cascade says: its own, and its language model's weights."""
    return [file, *sorted(resolve_foreign(read_cascade(file).llm).glob("*.safetensors"))]


def language_model(name: str, device: torch.device | str, dtype: torch.dtype) -> tuple[Path, LLM]:
    """A language model, imported or a folder of transformers, and the folder that it is in.

    Raises:
        DuologueError: it is neither.
    """
    folder = resolve(name)
    if read_object(folder / CONFIG).get("format") == FORMAT:
        sizes = read_part(folder, "llm")
        model = made(lambda: LLM(sizes))
        fill(model, folder / WEIGHTS, prefix="llm.", device=device, dtype=dtype)
        return folder, model
    folder = resolve_foreign(name)
    return folder, importer.read(folder)[1].to(device, dtype)
