"""The facts of a model card, as ``card.json`` in a checkpoint's folder holds them.

    folder/card.json    the facts; edit it, or add to it with ``duologue card FOLDER key=value …``
    folder/README.md    the same facts as Markdown, written by render.py and never read

A field that card.json does not have takes its default here.
"""

from __future__ import annotations

import hashlib
import json
import math
import mmap
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ...model.errors import DuologueError
from ..base.declared import BaseWeights
from ..config_io import config_from_dict, config_to_dict
from ..files import read_object
from ..source import CARD, CARD_FACTS, WEIGHTS

FORMAT = "duologue-card/1"


@dataclass(frozen=True, kw_only=True)
class PartFacts:
    """One part of the model."""

    name: str  # its prefix in model.safetensors: "encoder", "codec.decoder"
    parameters: int  # buffers that are stored (filters, tables) included
    sha256: str  # of its tensors in the order of their names; 12 hexadecimal digits


@dataclass(frozen=True, kw_only=True)
class Credit:
    """Real recordings of one set under one licence."""

    set: str
    licence: str
    clips: int
    minutes: float
    sources: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class DataFacts:
    """One training set, from its folder (format: data_prep/datasets/shards.py)."""

    name: str  # the folder's
    kind: str  # the recipe that made it: questions, replies, recordings-train
    clips: int
    failed: int
    hours: float
    voices: int  # how many different ones
    credits: tuple[Credit, ...] = ()  # of recordings; none for synthetic speech


@dataclass(frozen=True, kw_only=True)
class StageFacts:
    """One training run, from its folder (format: training/loop/run_folder.py). Folders are named without their path."""

    stage: str
    start: tuple[str, ...]  # "encoder=run", "llm=run+run" for a mean of weights
    learn: tuple[str, ...]
    data: tuple[str, ...]
    steps: int  # done
    planned: int
    batch_size: int
    lr: float  # peak
    precision: str
    hours: float | None  # of wall clock while training, without pauses; None: not recorded
    machine: str  # "": not recorded
    metrics: dict[str, float]  # the last ones


@dataclass(frozen=True, kw_only=True)
class MetricValue:
    """One metric of an evaluation; ``low`` and ``high`` are its 95 % interval, ``count`` the items that it is over."""

    name: str
    unit: str = ""  # "%": the value is a fraction of 1
    value: float | None
    low: float | None = None
    high: float | None = None
    count: int | None = None


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """One report of ``duologue evaluate``. ``parts``: by what (voice, category) -> name -> its metrics."""

    suite: str
    weights: str  # SHA-256 of model.safetensors, 12 hexadecimal digits
    settings: dict[str, Any]
    machine: str
    metrics: tuple[MetricValue, ...]
    parts: dict[str, dict[str, tuple[MetricValue, ...]]]
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class CardTable:
    """Further measurements, written by hand into card.json: a section of its own."""

    title: str
    note: str = ""
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True, kw_only=True)
class Card:
    """All facts of a card. What is empty is not recorded."""

    format: str = FORMAT
    name: str = ""
    summary: str = ""
    source: str = ""  # what it was converted from
    licence: str = ""  # of the weights, by its SPDX name
    language: str = ""
    pipeline: str = ""  # the hub's pipeline_tag
    tags: tuple[str, ...] = ()
    use: tuple[str, ...] = ()
    example: str = ""  # shell commands
    limits: tuple[str, ...] = ()
    weights: str = ""  # SHA-256 of model.safetensors, 12 hexadecimal digits
    mib: float = 0.0  # of the folder, without its card
    parts: tuple[PartFacts, ...] = ()
    base: dict[str, BaseWeights] = field(default_factory=dict)  # parts that others trained, which are not stored
    voices: tuple[str, ...] = ()  # those that the training sets draw from: "espeak:en-us+f3", "fsdd:george"
    data: tuple[DataFacts, ...] = ()
    stages: tuple[StageFacts, ...] = ()
    evaluations: tuple[Evaluation, ...] = ()
    tables: tuple[CardTable, ...] = ()
    acceptance: tuple[Evaluation, ...] = ()  # every run on the acceptance questions, the oldest first


def read_card(path: Path) -> Card:
    """The card in a checkpoint's folder, or of a file card.json.

    Raises:
        DuologueError: there is none, or a field is unknown or of another type.
    """
    path = path / CARD_FACTS if path.is_dir() else path
    if not path.is_file() and (path.parent / CARD).is_file():
        raise DuologueError(
            f"{path.parent} has a {CARD} but no {CARD_FACTS}, which older versions did not write: rename its {CARD}, "
            f"then `duologue card {path.parent}` writes both anew"
        )
    found = read_object(path)
    if found.get("format") != FORMAT:
        raise DuologueError(f"{path} has format {found.get('format')!r}; this version reads {FORMAT!r}")
    try:
        return config_from_dict(Card, config_to_dict(Card()) | found)
    except DuologueError as error:
        raise DuologueError(f"{path}: {error}") from None


def digest(folder: Path) -> str:
    """The first 12 hexadecimal digits of the SHA-256 of model.safetensors: which weights a metric is about."""
    with (folder / WEIGHTS).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:12]


def part_facts(folder: Path) -> tuple[PartFacts, ...]:
    """Size and digest by part, from model.safetensors; where it holds one part alone (a codec), by what that has.

    Raises:
        DuologueError: the file is not in the format of safetensors.
    """
    path = folder / WEIGHTS
    try:
        with (
            path.open("rb") as file,
            mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped,
            memoryview(mapped) as data,
        ):
            start = 8 + int.from_bytes(data[:8], "little")
            header = json.loads(bytes(data[8:start]))
            header.pop("__metadata__", None)
            depth = 1 if len({name.split(".")[0] for name in header}) > 1 else 2
            sizes: Counter[str] = Counter()
            hashes: dict[str, Any] = {}
            for name, tensor in sorted(header.items()):
                part = ".".join(name.split(".")[:depth])
                sizes[part] += math.prod(tensor["shape"])
                first, last = tensor["data_offsets"]
                hashes.setdefault(part, hashlib.sha256()).update(data[start + first : start + last])
    except (ValueError, KeyError) as error:
        raise DuologueError(f"{path} is not a file of safetensors: {error}") from None
    return tuple(
        PartFacts(name=part, parameters=size, sha256=hashes[part].hexdigest()[:12]) for part, size in sizes.items()
    )
