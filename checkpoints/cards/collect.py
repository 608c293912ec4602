"""`duologue card`: the card of a checkpoint, from what data sets, runs and evaluations left behind.

    duologue card runs/mine data=work/questions,work/replies runs=runs/asr,runs/s2t machine="two CPU cores"
    duologue card runs/mine reports=figures/report.json licence=Apache-2.0
    duologue card runs/mine                            write README.md anew after card.json was edited

Each call adds to card.json what it is given; what is there already is not added twice.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, TypeVar

from ...model.errors import DuologueError
from ..files import read_json_lines, read_object
from ..outputs import keep_apart
from ..source import CARD, CARD_FACTS, WEIGHTS, resolve
from .facts import Card, Credit, DataFacts, Evaluation, MetricValue, StageFacts, digest, read_card
from .render import write_card

T = TypeVar("T")
_NEEDED = {"codec": ("voicing_f1", "f0_correlation", "similarity")}  # what a suite's report must have to be in a card
_FRACTIONS = ("right", "right_by_ear")  # of the items: their intervals are Wilson's
_DESCRIPTION = ("summary", "licence", "language", "pipeline", "tags", "use", "example", "limits")


@dataclass(frozen=True, kw_only=True)
class CardConfig:
    """Settings of ``duologue card``; the fields of the card's description are kept where they are not given.

    folder: the checkpoint
    data, runs: prepared data sets that it learnt from, and its training runs
    machine: where these runs were trained
    reports: report.json of duologue evaluate
    accept: the reports are a run on the acceptance questions, with this note
    before: the model that training began with, by name, folder or card.json; its data and stages come first
    like: a model with the same description (summary, use, limits, licence), whose acceptance runs go on here
    """

    folder: Path
    data: tuple[Path, ...] = ()
    runs: tuple[Path, ...] = ()
    machine: str = ""
    reports: tuple[Path, ...] = ()
    accept: str | None = None
    before: str | None = None
    like: str | None = None
    summary: str = ""
    licence: str = ""
    language: str = ""

    def __post_init__(self) -> None:
        if self.accept is not None and not self.reports:
            raise DuologueError("accept=… is a note on reports: give reports=… too")


def run(config: CardConfig) -> Card:
    """Add to the card of a checkpoint, and write card.json and README.md.

    Raises:
        DuologueError: a folder that is no checkpoint, data set or run; a report about other weights; a card of an older
            version.
    """
    folder = config.folder
    outputs = {"the card": folder / CARD, "its facts": folder / CARD_FACTS}
    keep_apart(outputs, {"reports=": config.reports, "before=": config.before, "like=": config.like}, mixes=True)
    if not (folder / WEIGHTS).is_file():
        raise DuologueError(f"{folder} is no checkpoint: it has no {WEIGHTS}")
    has_card = any(path.exists() for path in (folder / CARD, folder / CARD_FACTS))
    card = read_card(folder) if has_card else Card(name=folder.resolve().name)
    if config.like is not None:
        other = _card_of(config.like)
        card = replace(card, **{name: getattr(other, name) for name in _DESCRIPTION})
        card = replace(card, acceptance=_joined(other.acceptance, card.acceptance))
    own = {name: getattr(config, name) for name in ("summary", "licence", "language")}
    card = replace(card, **{name: value for name, value in own.items() if value})
    begun = Card() if config.before is None else _card_of(config.before)
    sets = [data_facts(path) for path in config.data]
    voices = {*begun.voices, *card.voices, *(voice for _, names in sets for voice in names)}
    weights = digest(folder)
    new = [evaluation(path, weights, voices) for path in config.reports]
    card = replace(
        card,
        data=_joined(begun.data, card.data, (data for data, _ in sets)),
        voices=tuple(sorted(voices)),
        stages=_joined(begun.stages, card.stages, (stage_facts(path, config.machine) for path in config.runs)),
        evaluations=(*(old for old in card.evaluations if old.suite not in {one.suite for one in new}), *new),
    )
    if config.accept is not None:
        known = [replace(one, note="") for one in card.acceptance]
        looks = [look for one in new if (look := replace(one, parts={}, note="")) not in known]
        card = replace(card, acceptance=(*card.acceptance, *(replace(look, note=config.accept) for look in looks)))
    return write_card(folder, card)


def _card_of(model: str) -> Card:
    return read_card(Path(model) if Path(model).is_file() else resolve(model))


def _joined(*groups: Iterable[T]) -> tuple[T, ...]:
    """What is in any of the groups, once, in their order."""
    found: list[T] = []
    for one in itertools.chain(*groups):
        if one not in found:
            found.append(one)
    return tuple(found)


def data_facts(folder: Path) -> tuple[DataFacts, set[str]]:
    """A prepared data set and the names of its voices. Raises DuologueError when it is none or not finished."""
    header = read_object(folder / "dataset.json")
    if not header.get("complete"):
        raise DuologueError(f"{folder} is not finished: prepare it to the end before it is described")
    rows = [row for file in sorted(folder.glob("shard-*.jsonl")) if not file.name.endswith(".failed.jsonl")
            for row in read_json_lines(file)]  # fmt: skip
    recordings: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in rows:
        if "licence" in row:
            recordings.setdefault((row["set"], row["licence"]), []).append(row)
    credits = tuple(
        Credit(
            set=name,
            licence=licence,
            clips=len(clips),
            minutes=round(sum(clip["samples"] for clip in clips) / header["sample_rate"] / 60, 1),
            sources=tuple(sorted({clip["source"] for clip in clips if "source" in clip})),
        )
        for (name, licence), clips in sorted(recordings.items())
    )
    counts, voices = header["counts"], {row["voice"] for row in rows}
    facts = DataFacts(name=folder.name, kind=header["name"], clips=counts["clips"], failed=counts["failed"],
                      hours=counts["hours"], voices=len(voices), credits=credits)  # fmt: skip
    return facts, voices


def stage_facts(folder: Path, machine: str = "") -> StageFacts:
    """A run's recipe.json and figures.jsonl. Raises DuologueError when it has not been trained."""
    recipe = read_object(folder / "recipe.json")
    log = read_json_lines(folder / "figures.jsonl") if (folder / "figures.jsonl").is_file() else []
    if not log:
        raise DuologueError(f"{folder} has no figures.jsonl: the stage has not been trained")
    last = log[-1]
    return StageFacts(
        stage=recipe["stage"],
        start=tuple(_without_folders(entry) for entry in recipe["start"]),
        learn=tuple(recipe["learn"]),
        data=tuple(Path(path).name for path in recipe.get("data", ())),
        steps=last["step"],
        planned=recipe["steps"],
        batch_size=recipe["batch_size"],
        lr=recipe["lr"],
        precision=recipe["precision"],
        hours=_hours(log),
        machine=machine,
        metrics={key: value for key, value in last.items() if key not in ("step", "time")},
    )


def _without_folders(entry: str) -> str:
    """``llm=0.3*runs/a+0.7*runs/b`` -> ``llm=a+b``: a card names no path of the machine that it was written on."""
    part, _, folders = entry.partition("=")
    return f"{part}={'+'.join(Path(folder).name for folder in folders.split('+'))}"


def _hours(log: Sequence[Mapping[str, Any]]) -> float | None:
    """Hours that a run trained: the median time a step between two saves, times its steps, so that a pause between
    two saves does not count. None where no two saves follow each other."""
    paces = [
        (b["time"] - a["time"]) / (b["step"] - a["step"])
        for a, b in itertools.pairwise(log)
        if b["step"] > a["step"] and b["time"] > a["time"]
    ]
    return sorted(paces)[len(paces) // 2] * log[-1]["step"] / 3600 if paces else None


def evaluation(path: Path, weights: str, heard: Iterable[str] = ()) -> Evaluation:
    """A report of ``duologue evaluate`` about these weights. heard: the voices of the training data.

    Raises:
        DuologueError: it is no report, or one about other weights.
    """
    report = read_object(path)
    if missing := [key for key in ("settings", "metrics", "figures", "environment") if key not in report]:
        raise DuologueError(f"{path} is no report of duologue evaluate: it has no {missing[0]}")
    settings = {"suite": "", **report["settings"]}
    measured = {entry["id"] for entry in report["metrics"]}
    if lacking := [name for name in _NEEDED.get(settings["suite"], ()) if name not in measured]:
        raise DuologueError(f"{path} has no {lacking[0]}, as a card must: evaluate again, with duologue[quality]")
    about = settings.pop("weights", None) or (settings.pop("model", None) or {}).get("sha256") or ""
    if about[:12] != weights:
        raise DuologueError(f"{path} is about the weights {about[:12] or 'unknown'}, not {weights}")
    common = sorted({*(settings.get("voices") or ())} & {*heard})
    shown = {key: Path(value).name if key in ("data", "outputs") else value for key, value in settings.items()
             if key != "suite" and value is not None}  # fmt: skip
    where, figures = report["environment"], report["figures"]
    counts = (f"{where[key]} {key.removeprefix('torch_')}" for key in ("cores", "torch_threads") if where.get(key))
    values = {entry["id"]: _metric(**entry) for entry in report["metrics"]}
    more = [
        _metric(name=key.replace("_", " "), value=value)
        for key, value in {**figures, **figures.get("overall", {})}.items()
        if type(value) is float and key not in values
    ]
    return Evaluation(
        suite=settings["suite"],
        weights=weights,
        settings=shown,
        machine=", ".join([*filter(None, [where.get("processor")]), *counts]),
        metrics=(*values.values(), *more),
        parts=_parts(report, values),
        note=f"Of these voices the training data have {', '.join(common) or 'none'}." if settings.get("voices") else "",
    )


def _metric(value: float | None, **entry: Any) -> MetricValue:
    known = entry.keys() & {field.name for field in fields(MetricValue)}
    return MetricValue(value=None if value is None else float(value), **{key: entry[key] for key in known})


def _parts(report: Mapping[str, Any], values: Mapping[str, MetricValue]) -> dict[str, Any]:
    """The metrics by voice, by category, by whatever else the report divides its items; the weakest first."""
    figures = report["figures"]
    found = {
        key.removeprefix("by_"): {
            name: tuple(_of_part(values[measure], measure, scores) for measure in scores if measure in values)
            for name, scores in sorted(groups.items(), key=lambda group: (group[1].get("right") or 0, group[0]))
        }
        for key, groups in figures.items()
        if key.startswith("by_") and all(isinstance(scores, Mapping) for scores in groups.values())
    }
    parts = report.get("parts", {}).items()
    found["part"] = {name: tuple(_metric(**entry) for entry in entries) for name, entries in parts}
    found["codebook"] = {
        str(book["codebook"]): tuple(
            _metric(name=key, value=value, unit="%" if key == "utilisation" else "")
            for key, value in book.items()
            if key != "codebook"
        )
        for book in figures.get("codebooks", ())
    }
    return {what: groups for what, groups in found.items() if any(groups.values())}


def _of_part(whole: MetricValue, measure: str, scores: Mapping[str, Any]) -> MetricValue:
    """A metric of a part of the items; where it is a fraction of them, with its 95 % interval (Wilson, JASA 1927)."""
    value, count = scores[measure], scores.get("questions")
    low = high = None
    if measure in _FRACTIONS and value is not None and count:
        z = 1.96
        centre = (value + z * z / (2 * count)) / (1 + z * z / count)
        spread = z / (1 + z * z / count) * math.sqrt(value * (1 - value) / count + z * z / (4 * count * count))
        low, high = max(0.0, centre - spread), min(1.0, centre + spread)
    return MetricValue(name=whole.name, unit=whole.unit, value=value, low=low, high=high, count=count)
