"""The model card of a checkpoint: README.md, written from what the data sets, the runs and the evaluation left behind.

    python -m duologue.checkpoints.cards.speech_lm checkpoints/nano --data work/questions --run runs/asr_pretrain \
        --report figures/report.json --log checkpoints/acceptance.jsonl

Every number comes from a file; what no file says is called not recorded or not measured, never left out. With --before
the card of the model that was trained on, which says what that one was made of, is such a file.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ...model.errors import DuologueError
from ...model.speech_lm_config import SpeechLMConfig, parts_of
from ..files import expanded, read_json, read_text, write_text
from ..outputs import keep_apart
from ..program import program
from ..source import CARD
from .evaluation import acceptance_table, check_report, evaluation_section, headline, summary
from .facts import (
    AcceptanceRun,
    DataFacts,
    PartFacts,
    StageFacts,
    data_facts,
    digest,
    log_acceptance,
    part_facts,
    read_acceptance,
    read_rows,
    stage_facts,
)
from .history import NOTHING, behind
from .markdown import bullets, table

SUMMARY = (
    "A small speech-to-speech model: it hears a spoken English question, writes down what it heard, answers, and "
    "speaks the answer. It runs offline on a CPU."
)
USE = (
    "For: trying Duologue, its tests, measuring streaming speech interaction, and as the pattern for larger models, "
    "which are the same classes at other sizes.",
    "Its domain is arithmetic, units, calendar and clock, spelling, capitals and a few other facts, drink orders, "
    "repeat-after-me, small talk, questions that go on from the one before, ten sounds of every day and counting "
    "beeps. Outside it is meant to say that it does not know.",
    "Not for: anything where a wrong answer matters, telling who speaks, speech in other languages, or children or "
    "patients left alone with it.",
)
LIMITS = (
    "It was taught mostly by synthesisers: human voices, accents, children and noise are heard worse than the figures "
    "for synthetic voices say.",
    "Its vocabulary is closed. A word that it does not know is replaced by one that it knows, and it does not notice.",
    "An answer can be wrong and sound sure. Facts are those of the grammar that generated its training text.",
    "It speaks with one synthetic voice (flite's rms) and keeps no record of anyone.",
)
SYNTHESISERS = {
    "espeak": "espeak-ng (formant synthesis, GPL-3.0-or-later program)",
    "flite": "flite (BSD-style licence)",
    "festival": "festival (BSD-style licence)",
    "pico": "SVOX Pico (Apache-2.0)",
    "kokoro": "Kokoro-82M (Apache-2.0 weights)",
    "rhvoice": "RHVoice (GPL-3.0-or-later program; the voices bdl and clb under the CMU ARCTIC licence)",
}
INGREDIENT_FIELDS = ("ingredient", "measure", "without", "with")
FURTHER_FIELDS = ("measure", "figure", "command")


@dataclass(frozen=True, kw_only=True)
class CardFacts:
    """All that the card of a model says."""

    name: str
    parts: tuple[PartFacts, ...]
    file_mib: float  # of the whole folder
    data: tuple[DataFacts, ...] = ()
    stages: tuple[StageFacts, ...] = ()
    report: Mapping[str, Any] | None = None  # of `duologue evaluate s2s`
    acceptance: tuple[AcceptanceRun, ...] = ()
    ingredients: tuple[Mapping[str, str], ...] = ()  # INGREDIENT_FIELDS each
    further: tuple[Mapping[str, str], ...] = ()  # FURTHER_FIELDS each
    summary: str = SUMMARY
    use: tuple[str, ...] = USE
    limits: tuple[str, ...] = LIMITS
    licence: str = "Apache-2.0"


def render(facts: CardFacts) -> str:
    """The card as Markdown with the hub's YAML head."""
    head = "\n".join(
        ["---", f"license: {facts.licence.lower()}", "language: en", "library_name: duologue",
         "pipeline_tag: audio-to-audio", "tags: [speech-to-speech, spoken-dialogue, streaming]", "---"]
    )  # fmt: skip
    sections = [
        f"{head}\n# {facts.name}\n\n{facts.summary}\n\n{headline(facts.report)}",
        "## Use\n\n" + bullets(facts.use),
        "## Sizes\n\n" + _sizes(facts),
        "## Data\n\n" + data_section(facts.data),
        "## Training\n\n" + training_section(facts.stages),
        "## Evaluation\n\n" + evaluation_section(facts.report, _heard(facts)),
        *([_further(facts.further)] if facts.further else []),
        *([_ingredients(facts.ingredients)] if facts.ingredients else []),
        "## Acceptance runs\n\n" + acceptance_table(facts.acceptance),
        "## Limits\n\n" + bullets(facts.limits),
        "## Licence\n\n" + licence_section(facts.licence, facts.data),
    ]
    return "\n\n".join(sections) + "\n"


def _further(rows: Sequence[Mapping[str, str]]) -> str:
    return "## Further figures\n\n" + table(FURTHER_FIELDS, [tuple(row[f] for f in FURTHER_FIELDS) for row in rows])


def _ingredients(rows: Sequence[Mapping[str, str]]) -> str:
    return (
        "## What each large ingredient brings\n\nMeasured on development voices, before and after it came in.\n\n"
        + table(INGREDIENT_FIELDS, [tuple(row[f] for f in INGREDIENT_FIELDS) for row in rows])
    )


def _sizes(facts: CardFacts) -> str:
    total = sum(part.parameters for part in facts.parts)
    known = parts_of(SpeechLMConfig)
    order = {name: place for place, name in enumerate(known)}
    parts = sorted(facts.parts, key=lambda part: order.get(part.name, len(order)))
    rows = [(part.name, known[part.name].does if part.name in known else "", f"{part.parameters:,}") for part in parts]
    return table(("part", "does", "parameters"), [*rows, ("**all**", "", f"**{total:,}**")], (2,)) + (
        f"\n\n{facts.file_mib:.1f} MiB on disk."
    )


def data_section(data: Sequence[DataFacts]) -> str:
    """What it was trained on: sets, synthesisers, and whose recordings."""
    if not data:
        return NOTHING
    rows = [(d.name, d.kind, f"{d.clips:,}", f"{d.hours:.2f}", len(d.voices), f"{d.failed:,}") for d in data]
    out = [table(("set", "made of", "clips", "hours", "voices", "skipped"), rows, (2, 3, 4, 5))]
    engines = Counter(voice.partition(":")[0] for d in data for voice in set(d.voices) if not d.credits)
    named = [SYNTHESISERS[engine] for engine in SYNTHESISERS if engine in engines]
    if named:
        out.append(
            "Synthetic speech is made from text that this repository's grammar generates, by " + _and(named) + "."
        )
    credited = [(credit, d) for d in data for credit in d.credits]
    if credited:
        out.append("Real recordings, with thanks to those who made and shared them:")
        out.append(
            table(
                ("recordings", "used for", "clips", "minutes", "licence", "source"),
                [
                    (c.set, d.name, f"{c.clips:,}", f"{c.minutes:.1f}", c.licence, ", ".join(c.sources))
                    for c, d in credited
                ],
                (2, 3),
            )
        )
    return "\n\n".join(out)


def training_section(stages: Sequence[StageFacts]) -> str:
    """Each run, how long it took, and its last figures."""
    if not stages:
        return NOTHING
    rows = []
    for stage in stages:
        steps = f"{stage.steps:,}" if stage.steps == stage.planned else f"{stage.steps:,} of {stage.planned:,}"
        hours = "not recorded" if stage.hours is None else f"{stage.hours:.1f}"
        started = (entry.partition("=") for entry in stage.start)
        named = ((part, (Path(one).name for one in source.split("+"))) for part, _, source in started)
        start = ", ".join(f"{part} of {' and '.join(names)}" for part, names in named) or "nothing"
        rows.append(
            (stage.stage, ", ".join(stage.learn), start, steps, stage.batch_size, f"{stage.lr:g}", stage.precision,
             hours, stage.where or "not recorded")
        )  # fmt: skip
    columns = ("stage", "learns", "starts from", "steps", "batch", "peak rate", "precision", "hours", "on")
    last = [
        f"{stage.stage}: " + ", ".join(f"{key} {value:.4g}" for key, value in sorted(stage.metrics.items()))
        for stage in stages
    ]
    known = [stage.hours for stage in stages if stage.hours is not None]
    total = f"Training took {sum(known):.1f} hours in all" if known else "How long training took is not recorded"
    if 0 < len(known) < len(stages):
        total += f", {len(stages) - len(known)} of {len(stages)} stages not counted"
    return "\n\n".join([table(columns, rows, (3, 4, 5, 7)), f"{total}.", "Last figures of each stage:", bullets(last)])


def licence_section(licence: str, data: Sequence[DataFacts]) -> str:
    """Of the weights, and of what went into them."""
    text = f"The weights and the code are under {licence}."
    fractions = sorted({c.licence for d in data for c in d.credits if "SA" in c.licence})
    if fractions:
        text += (
            " Some recordings above are under share-alike licences; no recording is part of the model or of this "
            "repository."
        )
    return text


def _heard(facts: CardFacts) -> frozenset[str]:
    """Every voice that some training set holds."""
    return frozenset(voice for d in facts.data for voice in d.voices)


def _and(items: Sequence[str]) -> str:
    return items[0] if len(items) == 1 else ", ".join(items[:-1]) + " and " + items[-1]


def folder_mib(folder: Path) -> float:
    """Size of a checkpoint folder, its card left out."""
    return sum(f.stat().st_size for f in folder.rglob("*") if f.is_file() and f.name != CARD) / 2**20


def collect(
    folder: Path,
    *,
    data: Sequence[Path] = (),
    runs: Sequence[tuple[Path, str | None]] = (),
    report: Path | None = None,
    log: Path | None = None,
    ingredients: Path | None = None,
    further: Path | None = None,
) -> CardFacts:
    """Read everything the card of the checkpoint in `folder` says.

    runs: (folder, the machine it ran on).  report: JSON of the evaluation.  log: JSON lines of acceptance runs.
    ingredients, further: JSON lines with the fields INGREDIENT_FIELDS and FURTHER_FIELDS.
    Raises DuologueError for whatever of it is not there, and for a report about other weights.
    """
    measured = None if report is None else read_json(report)
    if measured is not None:
        check_report(measured)
        about = (measured["settings"].get("model") or {}).get("sha256") or ""
        if not about.startswith(digest(folder)):
            raise DuologueError(f"{report} is about the weights {about[:12] or 'unknown'}, not {digest(folder)}")
    return CardFacts(
        name=folder.resolve().name,
        parts=part_facts(folder),
        file_mib=folder_mib(folder),
        data=tuple(data_facts(path) for path in data),
        stages=tuple(stage_facts(path, where) for path, where in runs),
        report=measured,
        acceptance=() if log is None else tuple(read_acceptance(log)),
        ingredients=() if ingredients is None else read_rows(ingredients, INGREDIENT_FIELDS),
        further=() if further is None else read_rows(further, FURTHER_FIELDS),
    )


def read_card(path: Path) -> str:
    """The text of a card, or of the one in a checkpoint's folder. Raises DuologueError where there is none."""
    path = path / CARD if path.is_dir() else path
    return read_text(path)


def main(arguments: Sequence[str] | None = None) -> None:
    """Write the card of a checkpoint; with --accept, count the report as a look at the acceptance questions first."""
    parser = argparse.ArgumentParser(
        prog="python -m duologue.checkpoints.cards.speech_lm", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("folder", type=expanded, help="the checkpoint")
    parser.add_argument("--data", type=expanded, action="append", default=[], help="a data set it learnt from; repeat")
    parser.add_argument("--run", action="append", default=[], metavar="FOLDER[@MACHINE]", help="a training run; repeat")
    parser.add_argument("--report", type=expanded, help="JSON of duologue evaluate s2s")
    parser.add_argument("--log", type=expanded, help="JSON lines of all acceptance runs")
    parser.add_argument("--ingredients", type=expanded, help="JSON lines: what a model is with and without something")
    parser.add_argument("--further", type=expanded, help="JSON lines: further figures and their commands")
    parser.add_argument("--before", type=expanded, help="the card of the model it began as: its data come first")
    parser.add_argument("--accept", metavar="NOTE", help="add the report to the log, with this note")
    given = parser.parse_args(arguments)
    if given.accept is not None and (given.report is None or given.log is None):
        parser.error("--accept needs --report and --log")
    keep_apart(
        {"the card": given.folder / CARD, "--log": given.log if given.accept is not None else None},
        {"--report": given.report, "--ingredients": given.ingredients, "--further": given.further,
         "--before": given.before if given.before is None or given.before.is_file() else given.before / CARD},
    )  # fmt: skip
    before = None if given.before is None else read_card(given.before)
    runs = [(expanded(path), machine or None) for path, _, machine in (text.partition("@") for text in given.run)]
    facts = collect(
        given.folder, data=given.data, runs=runs, report=given.report, log=given.log, ingredients=given.ingredients,
        further=given.further,
    )  # fmt: skip
    if given.accept is not None and facts.report is not None:
        run = AcceptanceRun(weights=digest(given.folder), metrics=summary(facts.report), note=given.accept)
        log_acceptance(given.log, run)
        facts = replace(facts, acceptance=tuple(read_acceptance(given.log)))
    card = render(facts)
    write_text(given.folder / CARD, card if before is None else behind(before, card))


if __name__ == "__main__":
    program(main)
