"""What a model card is made from, gathered from what the work left behind: data sets, runs, weights, an acceptance log.

Nothing is typed in by hand that a file can say. What no file says is None, and the card calls it not recorded.
"""

from __future__ import annotations

import hashlib
import itertools
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ...model.errors import DuologueError
from ..files import read_json, read_json_lines, write_json_lines
from ..source import WEIGHTS


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
    """One data set: what is in its folder, as data_prep/datasets/shards.py writes it."""

    name: str  # the folder's
    kind: str  # the recipe that made it: questions, replies, recordings-train
    clips: int
    failed: int
    hours: float
    voices: tuple[str, ...]  # "espeak:en-us+f3", "fsdd:george"
    credits: tuple[Credit, ...]  # of recordings; none for synthetic speech


@dataclass(frozen=True, kw_only=True)
class StageFacts:
    """One training run: what is in its folder, as training/loop/trainer.py writes it."""

    stage: str
    start: tuple[str, ...]
    learn: tuple[str, ...]
    data: tuple[str, ...]
    steps: int  # done, not planned
    planned: int
    batch_size: int
    lr: float
    precision: str
    hours: float | None  # of wall clock while training, pauses left out
    metrics: dict[str, float]  # the last ones
    where: str | None = None  # the machine


@dataclass(frozen=True, kw_only=True)
class AcceptanceRun:
    """One look at the questions and voices that are kept for acceptance."""

    weights: str  # digest of model.safetensors
    metrics: dict[str, Any]
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class PartFacts:
    """One part of the model."""

    name: str
    parameters: int


def data_facts(folder: Path) -> DataFacts:
    """Read a prepared data set. Raises DuologueError when the folder is none or is not finished."""
    header = read_json(folder / "dataset.json")
    if not header.get("complete"):
        raise DuologueError(f"{folder} is not finished: prepare it to the end before it is described")
    rate, voices = header["sample_rate"], Counter[str]()
    rows: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for file in sorted(folder.glob("shard-*.jsonl")):
        if file.name.endswith(".failed.jsonl"):
            continue
        for meta in read_json_lines(file):
            voices[meta["voice"]] += 1
            if "licence" in meta:
                rows.setdefault((meta["set"], meta["licence"]), []).append(meta)
    found = tuple(
        Credit(
            set=name,
            licence=licence,
            clips=len(metas),
            minutes=round(sum(meta["samples"] for meta in metas) / rate / 60, 1),
            sources=tuple(sorted({meta["source"] for meta in metas})),
        )
        for (name, licence), metas in sorted(rows.items())
    )
    counts = header["counts"]
    return DataFacts(
        name=folder.name,
        kind=header["name"],
        clips=counts["clips"],
        failed=counts["failed"],
        hours=counts["hours"],
        voices=tuple(sorted(voices)),
        credits=found,
    )


def stage_facts(folder: Path, where: str | None = None) -> StageFacts:
    """Read a run's recipe.json and figures.jsonl. Raises DuologueError when it has not been run."""
    recipe = read_json(folder / "recipe.json")
    log = read_json_lines(folder / "figures.jsonl") if (folder / "figures.jsonl").is_file() else []
    if not log:
        raise DuologueError(f"{folder} has no figures.jsonl: the stage has not been trained")
    last = log[-1]
    return StageFacts(
        stage=recipe["stage"],
        start=tuple(recipe["start"]),
        learn=tuple(recipe["learn"]),
        data=tuple(recipe.get("data", ())),
        steps=last["step"],
        planned=recipe["steps"],
        batch_size=recipe["batch_size"],
        lr=recipe["lr"],
        precision=recipe["precision"],
        hours=_hours(log),
        metrics={key: value for key, value in last.items() if key not in ("step", "time")},
        where=where,
    )


def _hours(log: Sequence[dict[str, Any]]) -> float | None:
    """Hours a run trained, from the times at which it saved: median time a step over all its steps, so a night's pause
    between two saves does not count. None with fewer than two saves in a row."""
    paces = [
        (b["time"] - a["time"]) / (b["step"] - a["step"])
        for a, b in itertools.pairwise(log)
        if b["step"] > a["step"] and b["time"] > a["time"]
    ]
    return sorted(paces)[len(paces) // 2] * log[-1]["step"] / 3600 if paces else None


def part_facts(folder: Path) -> tuple[PartFacts, ...]:
    """Parameters by part, from the header of model.safetensors; its buffers (filters, tables) are counted too."""
    from safetensors import safe_open

    sizes = Counter[str]()
    with safe_open(folder / WEIGHTS, framework="numpy") as file:
        for name in list(file.keys()):
            size = 1
            for dimension in file.get_slice(name).get_shape():
                size *= dimension
            sizes[name.split(".")[0]] += size
    return tuple(PartFacts(name=name, parameters=size) for name, size in sizes.items())


def digest(folder: Path) -> str:
    """The first 12 hexadecimal digits of SHA-256 of the weights: which model a figure is about."""
    hashed = hashlib.sha256()
    with (folder / WEIGHTS).open("rb") as file:
        while block := file.read(1 << 20):
            hashed.update(block)
    return hashed.hexdigest()[:12]


def log_acceptance(log: Path, run: AcceptanceRun) -> int:
    """Append a run to the log, so that no look at the acceptance questions goes uncounted; returns its number.

    A run of the same weights with the same figures is the same look, and is not written twice.
    """
    runs = read_acceptance(log)
    for number, known in enumerate(runs, start=1):
        if (known.weights, known.metrics) == (run.weights, run.metrics):
            return number
    write_json_lines(log, [asdict(known) for known in (*runs, run)])
    return len(runs) + 1


def read_acceptance(log: Path) -> list[AcceptanceRun]:
    """The runs so far, oldest first; none when there is no such file."""
    try:
        return [AcceptanceRun(**entry) for entry in read_json_lines(log)] if log.is_file() else []
    except TypeError as error:
        raise DuologueError(f"{log} is not a log of acceptance runs: {error}") from None


def read_rows(path: Path, fields: Sequence[str]) -> tuple[dict[str, str], ...]:
    """JSON lines that have these fields and no others. Raises DuologueError for no such file or another line."""
    if not path.is_file():
        raise DuologueError(f"no file {path}")
    rows = read_json_lines(path)
    for number, row in enumerate(rows, start=1):
        if set(row) != set(fields):
            raise DuologueError(f"{path}, line {number}: the fields are {', '.join(row)}; expected {', '.join(fields)}")
    return tuple({name: str(row[name]) for name in fields} for row in rows)
