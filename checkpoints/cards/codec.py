"""The model card of a codec: README.md, from its run, its evaluation and its weights.

    duologue codec pairs work/speech_held_out work/pairs -m checkpoints/nano-codec
    duologue evaluate codec --data work/pairs -o figures/codec
    python -m duologue.checkpoints.cards.codec checkpoints/nano-codec --run runs/codec --data work/recordings_speech \
        --report figures/codec/report.json

Every number of the codec's own comes from a file, or is called not measured; those of others are as published.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ...model.codec.codec import Codec, CodecConfig
from ...model.errors import DuologueError
from ..files import expanded, read_json, read_json_lines, write_text
from ..outputs import keep_apart
from ..parts import load_part
from ..program import program
from ..source import CARD
from .evaluation import NOT_MEASURED
from .facts import DataFacts, StageFacts, data_facts, digest, stage_facts
from .markdown import bullets, table
from .speech_lm import data_section, folder_mib, licence_section, training_section

LICENCE = "Apache-2.0"
COURSE = 10  # rows, at most, of how training went
ENTRIES = ("perplexity_", "used_")  # what a run measures of the entries on held-out sets


@dataclass(frozen=True, kw_only=True)
class Published:
    """Another codec's figures by its own or others' paper."""

    name: str
    kbps: float
    tokens: int  # a second
    stoi: float
    pesq: float
    utmos: float


# On LibriSpeech test-clean at 16 kHz: Ye et al. 2025, "Llasa" (arXiv 2502.04128), the table of codecs.
PUBLISHED = (
    Published(name="EnCodec", kbps=0.75, tokens=75, stoi=0.77, pesq=1.23, utmos=1.25),
    Published(name="EnCodec", kbps=1.5, tokens=150, stoi=0.85, pesq=1.56, utmos=1.58),
    Published(name="WavTokenizer", kbps=0.9, tokens=75, stoi=0.90, pesq=2.13, utmos=3.79),
)
LIMITS = (
    "It was trained on speech, most of it English: music, singing and noise come back poorly.",
    "At this rate a voice is told apart from others, but not kept in every detail; it is no means to identify anyone.",
    "The figures are over the held-out recordings named here. Published ones are over LibriSpeech, with other speakers "
    "and another microphone: beside each other they show the order of size, not a ranking.",
)


@dataclass(frozen=True, kw_only=True)
class CodecFacts:
    """All that the card of a codec says."""

    name: str
    config: CodecConfig
    parameters: dict[str, int]  # by part
    delay_ms: float | None  # None: it does not stream exactly
    file_mib: float
    data: tuple[DataFacts, ...] = ()
    stages: tuple[StageFacts, ...] = ()
    course: tuple[Mapping[str, Any], ...] = ()  # rows of the run's figures.jsonl
    report: Mapping[str, Any] | None = None  # of `duologue evaluate codec`
    beside: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)  # the same of other codecs, by their names


def render(facts: CodecFacts) -> str:
    """The card as Markdown with the hub's YAML head."""
    head = "\n".join(
        ["---", f"license: {LICENCE.lower()}", "library_name: duologue", "pipeline_tag: audio-to-audio",
         "tags: [audio-codec, speech-tokenizer, streaming]", "---"]
    )  # fmt: skip
    c = facts.config
    streams = "" if facts.delay_ms is None else f" It streams exactly, {facts.delay_ms:g} ms behind the microphone."
    books = "one codebook" if c.quantiser.codebooks == 1 else f"{c.quantiser.codebooks} codebooks"
    sections = [
        f"{head}\n# {facts.name}\n\nA neural codec: speech at {c.sample_rate / 1000:g} kHz as {c.frame_rate:.4g} "
        f"frames a second, {books} of {c.quantiser.size} entries, {c.bit_rate() / 1000:.2f} kbit/s.{streams}",
        "## Use\n\n```sh\n"
        f"duologue codec encode talk.wav talk.codes -m {facts.name}\n"
        f"duologue codec decode talk.codes again.wav -m {facts.name}\n```",
        "## Figures\n\n" + _metrics(facts),
        "## Sizes\n\n" + _sizes(facts),
        "## Data\n\n" + data_section(facts.data),
        "## Training\n\n" + training_section(facts.stages),
        *(["## How training went\n\n" + _course(facts.course)] if facts.course else []),
        "## Limits\n\n" + bullets(LIMITS),
        "## Licence\n\n" + licence_section(LICENCE, facts.data),
    ]
    return "\n\n".join(sections) + "\n"


def _metrics(facts: CodecFacts) -> str:
    """Its own figures with their intervals, and the published ones beside them."""
    others = [f"{one.name}, {one.kbps:g} kbit/s" for one in PUBLISHED]

    def ours(key: str, digits: int) -> list[str]:
        return [_metric(report, key, digits) for report in (facts.report, *facts.beside.values())]

    def own(key: str, digits: int) -> str:
        return _metric(facts.report, key, digits)

    rows: list[tuple[str, ...]] = [
        ("STOI", *ours("stoi", 3), *(f"{one.stoi:.2f}" for one in PUBLISHED)),
        ("PESQ, wide band", *ours("pesq", 2), *(f"{one.pesq:.2f}" for one in PUBLISHED)),
        ("UTMOS", *ours("utmos", 2), *(f"{one.utmos:.2f}" for one in PUBLISHED)),
        ("Tokens a second", *ours("tokens_a_second", 1), *(f"{one.tokens}" for one in PUBLISHED)),
    ]
    alone = [
        ("DNSMOS, overall", own("dnsmos", 2)),
        ("Speaker similarity", own("similarity", 3)),
        ("Real-time factor, encoding and decoding", own("real_time_factor", 3)),
        ("Latency", NOT_MEASURED if facts.delay_ms is None else f"{facts.delay_ms:g} ms, computing time aside"),
        *_entries(facts.report),
    ]
    parts = [
        table(("measure", facts.name, *facts.beside, *others), rows, range(1, 2 + len(facts.beside) + len(others))),
        table(("measure", facts.name), alone, (1,)),
    ]
    if facts.report is not None:
        settings, where = facts.report["settings"], facts.report.get("environment", {})
        machine = ", ".join(
            str(part) for part in (where.get("processor"), f"{where.get('torch_threads')} threads") if part
        )
        parts.append(
            f"Over {settings['pairs']} held-out recordings of {Path(settings['data']).name}, "
            f"{facts.report['figures']['seconds'] / 60:.0f} minutes; in brackets the 95 % interval. Measured on "
            f"{machine}."
        )
    parts.append("Of others: LibriSpeech test-clean, by Ye et al. 2025 (arXiv 2502.04128).")
    return "\n\n".join(parts)


def _metric(report: Mapping[str, Any] | None, key: str, digits: int) -> str:
    """One figure of a report, with its interval."""
    entry = next((entry for entry in report["metrics"] if entry["id"] == key), None) if report is not None else None
    if entry is None or entry["value"] is None:
        return NOT_MEASURED
    between = f" ({entry['low']:.{digits}f} to {entry['high']:.{digits}f})" if entry["low"] is not None else ""
    return f"{entry['value']:.{digits}f}{between}"


def _entries(report: Mapping[str, Any] | None) -> list[tuple[str, str]]:
    """How many entries of each codebook are used, and how evenly."""
    books = report["figures"]["codebooks"] if report is not None else []
    if not books:
        return [("Entries used", NOT_MEASURED)]
    rows = []
    for book in books:
        name = "" if len(books) == 1 else f", codebook {book['codebook']}"
        fraction = "" if book["utilisation"] is None else f" ({100 * book['utilisation']:.1f} %)"
        rows.append((f"Entries used{name}", f"{book['used']:,}{fraction} by {book['tokens']:,} tokens"))
        rows.append((f"Perplexity{name}", f"{book['perplexity']:.0f}"))
    return rows


def _sizes(facts: CodecFacts) -> str:
    total = sum(facts.parameters.values())
    rows = [(name, f"{size:,}") for name, size in facts.parameters.items()]
    return table(("part", "parameters"), [*rows, ("**all**", f"**{total:,}**")], (1,)) + (
        f"\n\n{facts.file_mib:.1f} MiB on disk."
    )


def _course(rows: Sequence[Mapping[str, Any]]) -> str:
    """Some saves of the run, evenly spread: what it measured on the held-out sets."""
    names = sorted({key for row in rows for key in row if key.startswith(("mel_", *ENTRIES))})
    chosen = sorted({round(i * (len(rows) - 1) / max(1, COURSE - 1)) for i in range(COURSE)})
    digits = {name: ".0f" if name.startswith(ENTRIES) else ".3f" for name in names}
    body = [
        (f"{rows[at]['step']:,}", *(format(rows[at][n], digits[n]) if n in rows[at] else "" for n in names))
        for at in chosen
    ]
    return table(("steps", *names), body, range(len(names) + 1))


def collect(
    folder: Path,
    *,
    data: Sequence[Path] = (),
    runs: Sequence[tuple[Path, str | None]] = (),
    report: Path | None = None,
    beside: Mapping[str, Path] | None = None,
) -> CodecFacts:
    """Read everything the card of the codec in ``folder`` says.

    runs: (folder, the machine it ran on), one behind the other.  report: report.json of ``duologue evaluate codec``.
    beside: the same of other codecs, by their names.
    Raises DuologueError for whatever of it is not there, and for a report about other weights.
    """
    codec = load_part(folder, "codec", CodecConfig, Codec)
    measured = None if report is None else _report(report)
    if measured is not None and (weights := measured["settings"].get("weights")) != digest(folder):
        raise DuologueError(f"{report} is about the weights {weights}, not {digest(folder)}")
    course: list[Mapping[str, Any]] = []
    for run, _ in runs:
        course += read_json_lines(run / "figures.jsonl") if (run / "figures.jsonl").is_file() else []
    parts = {name: sum(p.numel() for p in part.parameters()) for name, part in codec.named_children()}
    return CodecFacts(
        name=folder.resolve().name,
        config=codec.config,
        parameters=parts,
        delay_ms=codec.delay_ms if codec.exact else None,
        file_mib=folder_mib(folder),
        data=tuple(data_facts(path) for path in data),
        stages=tuple(stage_facts(path, where) for path, where in runs),
        course=tuple(course),
        report=measured,
        beside={name: _report(path) for name, path in (beside or {}).items()},
    )


def _report(path: Path) -> Mapping[str, Any]:
    report = read_json(path)
    if report.get("settings", {}).get("suite") != "codec":
        raise DuologueError(f"{path} is no report of duologue evaluate codec")
    return report


def main(arguments: Sequence[str] | None = None) -> None:
    """Write the card of a codec."""
    parser = argparse.ArgumentParser(
        prog="python -m duologue.checkpoints.cards.codec", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("folder", type=expanded, help="the codec")
    parser.add_argument("--data", type=expanded, action="append", default=[], help="a data set it learnt from; repeat")
    parser.add_argument("--run", action="append", default=[], metavar="FOLDER[@MACHINE]", help="a training run; repeat")
    parser.add_argument("--report", type=expanded, help="report.json of duologue evaluate codec")
    parser.add_argument(
        "--beside", action="append", default=[], metavar="NAME=REPORT", help="the same of another codec; repeat"
    )
    given = parser.parse_args(arguments)
    if any("=" not in entry for entry in given.beside):
        raise DuologueError(f"--beside is {given.beside}; it must be NAME=REPORT")
    beside = {name: expanded(path) for name, _, path in (entry.partition("=") for entry in given.beside)}
    runs = [(expanded(path), machine or None) for path, _, machine in (text.partition("@") for text in given.run)]
    keep_apart({"the card": given.folder / CARD}, {"--report": given.report, "--beside": beside.values()})
    facts = collect(given.folder, data=given.data, runs=runs, report=given.report, beside=beside)
    write_text(given.folder / CARD, render(facts))


if __name__ == "__main__":
    program(main)
