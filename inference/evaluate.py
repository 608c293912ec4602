"""The evaluator of spoken questions and answers: generated questions in chosen voices, judged by rule, timed.

A run has two passes, each a file of rows that is only appended to, so a run that was broken off goes on:

    asked.jsonl     every question asked, the model's transcript and reply, times, memory; speech in replies/*.wav
    judged.jsonl    what an independent recogniser (pocketsphinx) hears in each reply's speech, and in the synthesiser's
                    own rendering of the same text
    report.json     all figures, settings, environment and rows

The questions come from held-out wordings and operands (``Split.TEST``); the acceptance voices are never trained on.
Compute delay is measured by the turn (:mod:`.turn`): last samples handed over -> first reply samples ready.
"""

from __future__ import annotations

import hashlib
import json
import os
import resource
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..checkpoints.source import WEIGHTS
from ..data_prep.dialogues import Dialogue, Split, generate
from ..data_prep.shards import write_atomically
from ..data_prep.synthesis import SAMPLE_RATE, SynthesisError, Voice, require, synthesise
from ..data_prep.voices import REPLY_VOICE, find_voices
from ..model.errors import DuologueError
from .assistant import Assistant, load
from .audio import read_audio, write_wav
from .judge import is_right
from .recognise import Recogniser
from .report import environment, figures, print_tables

Row = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Profile:
    """How much is measured."""

    questions: int  # over all voices
    voices: str  # a set or a list, as data_prep.voices.find_voices reads it


PROFILES = {
    "quick": Profile(questions=60, voices="dev"),
    "card": Profile(questions=300, voices="flite:awb,flite:slt,festival:ked_diphone"),
}


def run(
    *,
    model: str | Assistant,
    out: str | os.PathLike[str],
    suite: str = "s2s",
    profile: str = "quick",
    voices: str | None = None,
    questions: int | None = None,
    seed: int = 0,
    split: str = "test",
    quiet: bool = False,
) -> dict[str, Any]:
    """Measure ``model`` and write the figures to ``out``/report.json.

    Args:
        model: a name, a folder, a hub id, or one that is loaded.
        voices, questions: instead of the profile's.
        split: which wordings and operands: "test", "dev" or "train".
        quiet: no progress bar and no tables.

    Returns:
        What report.json holds.

    Raises:
        DuologueError: an unknown suite, profile or voice, a synthesiser that is not installed, or a folder that holds
            the figures of other settings.
    """
    if suite != "s2s":
        raise DuologueError(f"unknown suite {suite!r}: the suites are s2s, duplex")
    if profile not in PROFILES:
        raise DuologueError(f"unknown profile {profile!r}: the profiles are {', '.join(PROFILES)}")
    count = questions or PROFILES[profile].questions
    speakers = find_voices(voices or PROFILES[profile].voices)
    require(*{voice.engine for voice in (*speakers, REPLY_VOICE)})
    assistant, source = _loaded(model)
    settings = {
        "suite": suite,
        "profile": profile,
        "model": source,
        "voices": [voice.key for voice in speakers],
        "questions": count,
        "seed": seed,
        "split": split,
    }
    folder = Path(out)
    (folder / "replies").mkdir(parents=True, exist_ok=True)
    _keep_settings(folder / "settings.json", settings)

    asked_dialogues = list(enumerate(_distinct(seed, count, Split(split))))
    assistant.warm_up()
    load_before = os.getloadavg()[0]
    asked = resume_rows(
        folder / "asked.jsonl",
        "asking",
        asked_dialogues,
        lambda at, dialogue: _ask(assistant, at, dialogue, speakers[at % len(speakers)], folder),
        quiet,
    )
    ear = Recogniser()
    judged = resume_rows(
        folder / "judged.jsonl", "judging", list(enumerate(asked)), lambda at, row: _judge(ear, at, row, folder), quiet
    )
    rows = [row | verdict for row, verdict in zip(asked, judged, strict=True)]
    report = {
        "settings": settings,
        "figures": figures(rows),
        "environment": environment() | {"load_average_at_start": load_before},
        "rows": rows,
    }
    write_atomically(folder / "report.json", (json.dumps(report, indent=1, ensure_ascii=False) + "\n").encode())
    if not quiet:
        print_tables(report)
    return report


def _loaded(model: str | Assistant) -> tuple[Assistant, dict[str, str | None]]:
    if isinstance(model, Assistant):
        return model, {"name": None, "sha256": None}
    assistant = load(model)
    assert assistant.path is not None
    digest = hashlib.sha256((assistant.path / WEIGHTS).read_bytes()).hexdigest()
    return assistant, {"name": model, "sha256": digest}


def _keep_settings(path: Path, settings: dict[str, Any]) -> None:
    """A folder holds the figures of one run: another model, seed or voice wants another folder."""
    if path.exists():
        before = json.loads(path.read_text(encoding="utf-8"))
        other = [name for name in settings if before.get(name) != settings[name]]
        if other:
            raise DuologueError(f"{path.parent} holds figures of another {' and '.join(other)}: choose another folder")
    write_atomically(path, (json.dumps(settings, indent=1) + "\n").encode())


def _distinct(seed: int, count: int, split: Split) -> Iterator[Dialogue]:
    """The first ``count`` dialogues of a seed whose questions differ."""
    seen: set[str] = set()
    for index in range(1_000 * count):
        dialogue = generate(seed, index, split)
        asked = f"{dialogue.before} {dialogue.question}"
        if asked not in seen:
            seen.add(asked)
            yield dialogue
            if len(seen) == count:
                return
    raise DuologueError(f"the grammar has only {len(seen)} questions for {split}: fewer than {count} were asked for")


def resume_rows(
    path: Path, title: str, items: list[tuple[int, Any]], work: Callable[[int, Any], Row], quiet: bool
) -> list[Row]:
    """Do ``work`` for the items that have no row in the file yet, nor a row that was broken off in writing."""
    lines = path.read_text(encoding="utf-8").split("\n")[:-1] if path.exists() else []  # the last has no line end
    rows = [json.loads(line) for line in lines][: len(items)]
    write_atomically(path, "".join(f"{line}\n" for line in lines[: len(rows)]).encode())
    with path.open("a", encoding="utf-8") as file:
        for at, item in _progress(items[len(rows) :], title, len(rows), len(items), quiet):
            row = work(at, item)
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
            file.flush()
            rows.append(row)
    return rows


def _progress(items: Iterable[Any], title: str, done: int, total: int, quiet: bool) -> Iterator[Any]:
    if quiet:
        yield from items
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn(f"{title:8}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task(title, total=total, completed=done)
        for item in items:
            yield item
            progress.advance(task)


def _ask(assistant: Assistant, at: int, dialogue: Dialogue, voice: Voice, folder: Path) -> Row:
    """Ask one question aloud; its row. A voice that fails on a text is a row too, with the reason."""
    row: Row = {"index": at, "voice": voice.key, **asdict(dialogue), "failed": None}
    try:
        pcm = synthesise(dialogue.question, voice)
    except SynthesisError as error:
        return row | {"failed": str(error)}
    conversation = assistant.converse()
    if dialogue.before is not None:  # the turn that the question goes on from is asked in writing
        row["said_before"] = conversation.ask(text=dialogue.before[0]).text
    reply = conversation.ask((SAMPLE_RATE, pcm))
    if len(reply.waveform):
        write_wav(_speech(folder, at), reply.waveform, reply.sample_rate)
    return row | {
        "transcript": reply.transcript,
        "reply": reply.text,
        "right": is_right(reply.text, dialogue.answer, dialogue.slot),
        "units": len(reply.units),
        "warning": reply.warning,
        "timings": asdict(reply.timings),
        "peak_rss_mib": _peak_rss_mib(),
    }


def _judge(ear: Recogniser, at: int, row: Row, folder: Path) -> Row:
    """What the independent ear hears in a reply, and in the synthesiser's rendering of the same words."""
    heard = synthesiser_heard = None
    if not row["failed"] and _speech(folder, at).exists():
        heard = ear(read_audio(_speech(folder, at)), SAMPLE_RATE)
        try:
            rendering = synthesise(row["reply"], REPLY_VOICE)
            synthesiser_heard = ear(rendering.astype(np.float32) / 32_768, SAMPLE_RATE)
        except SynthesisError:  # a reply without words
            pass
    right = heard is not None and is_right(heard, row["answer"], row["slot"], by_ear=True)
    return {"heard": heard, "synthesiser_heard": synthesiser_heard, "right_by_ear": right}


def _speech(folder: Path, at: int) -> Path:
    return folder / "replies" / f"{at:04d}.wav"


def _peak_rss_mib() -> float:
    """The most memory that this process has held so far; in the first pass, before the recogniser is loaded."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak / (1024 if sys.platform != "darwin" else 1024**2), 1)
