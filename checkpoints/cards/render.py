"""A model card as Markdown: README.md from the facts, with a section for each kind of fact that there is."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from ...model.speech_lm_config import SpeechLMConfig, parts_of
from ..base.declared import BaseWeights, read_base
from ..config_io import config_to_dict
from ..files import write_json, write_text
from ..source import CARD, CARD_FACTS, WEIGHTS
from .facts import Card, Evaluation, MetricValue, StageFacts, digest, part_facts
from .markdown import bullets, table

SYNTHESISERS = {
    "espeak": "espeak-ng (formant synthesis, GPL-3.0-or-later program)",
    "flite": "flite (BSD-style licence)",
    "festival": "festival (BSD-style licence)",
    "pico": "SVOX Pico (Apache-2.0)",
    "kokoro": "Kokoro-82M (Apache-2.0 weights)",
    "rhvoice": "RHVoice (GPL-3.0-or-later program; the voices bdl and clb under the CMU ARCTIC licence)",
}
NOT_MEASURED = "not measured"
_HEADLINE = 3  # metrics that are stated at the top


def write_card(folder: Path, card: Card) -> Card:
    """Write card.json and README.md beside the weights in ``folder``, whose parts are measured anew; returns the card.

    Evaluations of other weights than these are left out; acceptance runs are kept. Raises DuologueError where the
    folder has no weights or cannot be written.
    """
    weights = digest(folder)
    files = (path for path in folder.rglob("*") if path.is_file() and path.name not in (CARD, CARD_FACTS))
    card = replace(
        card,
        weights=weights,
        mib=round(sum(path.stat().st_size for path in files) / 2**20, 1),
        parts=part_facts(folder),
        base=read_base(folder),
        evaluations=tuple(evaluation for evaluation in card.evaluations if evaluation.weights == weights),
    )
    write_json(folder / CARD_FACTS, config_to_dict(card))
    write_text(folder / CARD, render(card))
    return card


def render(card: Card) -> str:
    """The card as Markdown with the hub's YAML head."""
    example = f"```sh\n{card.example}\n```" if card.example else ""
    sections = [
        ("Use", [bullets(card.use), example]),
        ("Parts", _parts(card)),
        ("Base weights", _base(card.base)),
        ("Training data", _data(card)),
        ("Training", _training(card.stages)),
        *((f"Evaluation: {evaluation.suite}", _evaluation(evaluation)) for evaluation in card.evaluations),
        *((one.title, [one.note, table(one.columns, one.rows)]) for one in card.tables),
        ("Acceptance runs", _acceptance(card.acceptance)),
        ("Limits", [bullets(card.limits)]),
        ("Licence", _licence(card)),
    ]
    facts = {"training data": card.data, "training": card.stages, "evaluation": card.evaluations,
             "licence": card.licence}  # fmt: skip
    missing = [name for name, found in facts.items() if not found]
    parts = [f"{_head(card)}\n# {card.name}", card.summary, _source(card), _headline(card.evaluations)]
    parts += [f"Not recorded: {', '.join(missing)}."] if missing else []
    parts += [text for title, body in sections if any(body) for text in (f"## {title}", *body)]
    return "\n\n".join(text for text in parts if text) + "\n"


def _head(card: Card) -> str:
    fields = {
        "license": card.licence.lower(), "language": card.language, "library_name": "duologue",
        "pipeline_tag": card.pipeline, "tags": list(card.tags),
        "base_model": [weights.hub for weights in card.base.values()],
    }  # fmt: skip
    lines = [f"{key}: {json.dumps(value, ensure_ascii=False)}" for key, value in fields.items() if value]
    return "\n".join(["---", *lines, "---"])


def _source(card: Card) -> str:
    return card.source and (
        f"Converted from {card.source}; the values of its weights are unchanged. Its licence and its training data are "
        "those of the original."
    )


def _headline(evaluations: Sequence[Evaluation]) -> str:
    if not evaluations:
        return ""
    first = (f"{one.name} {_value(one)}" for one in evaluations[0].metrics[:_HEADLINE])
    return f"Measured ({evaluations[0].suite}): {'; '.join(first)}."


def _parts(card: Card) -> list[str]:
    does = {name: part.does for name, part in parts_of(SpeechLMConfig).items()}
    order = list(does)
    parts = sorted(card.parts, key=lambda part: order.index(part.name) if part.name in order else len(order))
    rows = [(part.name, does.get(part.name, ""), f"{part.parameters:,}", part.sha256) for part in parts]
    rows.append(("**all**", "", f"**{sum(part.parameters for part in parts):,}**", ""))
    size = f"{card.mib:.1f} MiB on disk. SHA-256 of {WEIGHTS}: {card.weights}."
    return [table(("part", "what it does", "parameters", "SHA-256"), rows, (2,)), size] if parts else []


def _base(base: Mapping[str, BaseWeights]) -> list[str]:
    """Each file with its licence, size and digest."""
    if not base:
        return []
    rows = [
        (part, weights.hub, file.name, weights.licence, f"{file.size / 1e6:.1f}", f"`{file.sha256}`")
        for part, weights in base.items()
        for file in weights.files
    ]
    said = (
        "These parts were trained by others and are unchanged. They are not stored here: each file is fetched from the "
        "hub on first use, or taken from the folder DUOLOGUE_WEIGHTS, and must have this SHA-256."
    )
    return [said, table(("part", "repository", "file", "licence", "MB", "SHA-256"), rows, (4,))]


def _data(card: Card) -> list[str]:
    if not card.data:
        return []
    rows = [(d.name, d.kind, f"{d.clips:,}", f"{d.hours:.2f}", d.voices, f"{d.failed:,}") for d in card.data]
    out = [table(("set", "recipe", "clips", "hours", "voices", "skipped"), rows, (2, 3, 4, 5))]
    engines = {voice.partition(":")[0] for voice in card.voices}
    if named := [what for engine, what in SYNTHESISERS.items() if engine in engines]:
        out.append("Synthetic speech is by " + " and ".join(filter(None, (", ".join(named[:-1]), named[-1]))) + ".")
    credits = [(c.set, d.name, f"{c.clips:,}", f"{c.minutes:.1f}", c.licence, ", ".join(c.sources))
               for d in card.data for c in d.credits]  # fmt: skip
    if credits:
        columns = ("recordings", "used in", "clips", "minutes", "licence", "source")
        out += ["Real recordings, with thanks to those who made and shared them:", table(columns, credits, (2, 3))]
    return out


def _training(stages: Sequence[StageFacts]) -> list[str]:
    """Each run, how long it took, and its last metrics."""
    if not stages:
        return []
    rows = [
        (
            stage.stage, ", ".join(stage.learn),
            ", ".join(one.replace("=", " of ").replace("+", " and ") for one in stage.start) or "nothing",
            f"{stage.steps:,}" + (f" of {stage.planned:,}" if stage.steps != stage.planned else ""),
            stage.batch_size, f"{stage.lr:g}", stage.precision,
            "not recorded" if stage.hours is None else f"{stage.hours:.1f}", stage.machine or "not recorded",
        )
        for stage in stages
    ]  # fmt: skip
    columns = ("stage", "learns", "starts from", "steps", "batch", "peak rate", "precision", "hours", "on")
    known = [stage.hours for stage in stages if stage.hours is not None]
    took = f"Training took {sum(known):.1f} hours in all" if known else "How long training took is not recorded"
    if 0 < len(known) < len(stages):
        took += f", {len(stages) - len(known)} of {len(stages)} stages not counted"
    last = [
        f"{stage.stage}: " + ", ".join(f"{key} {value:.4g}" for key, value in sorted(stage.metrics.items()))
        for stage in stages
    ]
    return [table(columns, rows, (3, 4, 5, 7)), f"{took}.", "Last metrics of each stage:", bullets(last)]


def _evaluation(evaluation: Evaluation) -> list[str]:
    """Its settings, its metrics, then a table for each way in which the items were divided."""
    measured = f"Measured on {evaluation.machine or 'a machine that was not recorded'}. In brackets the 95 % interval."
    counted = [(one.name, _value(one), "" if one.count is None else one.count) for one in evaluation.metrics]
    out = [f"{_settings(evaluation)}. {measured}", evaluation.note, table(("metric", "value", "over"), counted, (1, 2))]
    for what, parts in evaluation.parts.items():
        named = {part: {one.name: one for one in metrics} for part, metrics in parts.items()}
        names = list(dict.fromkeys(name for found in named.values() for name in found))
        rows: list[tuple[object, ...]] = []
        for part, found in named.items():
            count = max((one.count or 0 for one in found.values()), default=0)
            rows.append((part, count or "", *(_value(found.get(name)) for name in names)))
        out.append(table((what, "over", *names), rows, range(1, 2 + len(names))))
    return out


def _settings(evaluation: Evaluation) -> str:
    shown = ((key, value if isinstance(value, list) else [value]) for key, value in evaluation.settings.items())
    return " · ".join(f"{key.replace('_', ' ')}: {', '.join(map(str, values))}" for key, values in shown)


def _acceptance(runs: Sequence[Evaluation]) -> list[str]:
    """A row a run, with the metrics of the first."""
    if not runs:
        return []
    names = [one.name for one in runs[0].metrics]
    rows = []
    for number, run in enumerate(runs, start=1):
        found = {one.name: one for one in run.metrics}
        rows.append((number, run.weights, _settings(run), *(_value(found.get(name)) for name in names), run.note))
    columns = ("run", "weights", "settings", *names, "note")
    said = "Each run on the questions and voices kept for acceptance is counted here, whatever its outcome."
    return [said, table(columns, rows, (0, *range(3, 3 + len(names))))]


def _value(metric: MetricValue | None) -> str:
    """Three significant digits, fractions in percent, the interval in brackets."""
    if metric is None or metric.value is None:
        return NOT_MEASURED
    low, high = (_digits(end, metric.unit, 0) for end in (metric.low, metric.high))
    unit = f" {metric.unit}" if metric.unit not in ("", "MOS") else ""
    return f"{_digits(metric.value, metric.unit, 1)}{unit}" + (f" ({low} to {high})" if low and high else "")


def _digits(value: float | None, unit: str, places: int) -> str:
    if value is None:
        return ""
    if unit == "%":
        return f"{100 * value:.{places}f}"
    return f"{value:.3g}" if abs(value) < 1000 else f"{value:,.0f}"


def _licence(card: Card) -> list[str]:
    if not card.licence:
        return []
    text = f"The weights{' stored here' if card.base else ''} are under {card.licence}."
    if card.base:
        text += f" The base weights: {', '.join(f'{one.hub} {one.licence}' for one in card.base.values())}."
    if any("SA" in credit.licence for data in card.data for credit in data.credits):
        text += (
            " Some of the recordings above are under share-alike licences; no recording is part of the model or of "
            "its repository."
        )
    return [text]
