"""What a model says of sounds: labelled clips, and the multiple choice of AIR-Bench and MMAU.

    manifest.jsonl    clips with `audio` and `label` (and `category` or `set`); right: the reply says the label's words
    AIR-Bench         a JSON list with path, question, choice_a … choice_d, answer_gt, task_name, dataset_name; right:
                      the letter that the reply begins with, or that stands before its last character
    MMAU              a JSON list with audio_id, question, choices, answer, task; right: every word of the answer is
                      in the reply, and no word that only another choice has

Replies are a model's, which hears the clip and then the question (for AIR-Bench and MMAU with its choices), in writing
if it hears sounds, else spoken behind the clip. Or they are another system's: `response` (AIR-Bench) or `model_output`
(MMAU) in each entry, or a file of lines {"id": …, "response": …}.

Sources: Yang et al., "AIR-Bench" (arXiv 2402.07729); Sakshi et al., "MMAU" (arXiv 2410.19168); both as their published
scripts score.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ....checkpoints.files import read_json, read_json_lines, text_of, texts_by_id
from ....data_prep.audio import read_audio
from ....data_prep.datasets.recordings import MANIFEST
from ....data_prep.speech.engine import SAMPLE_RATE, Voice
from ....data_prep.speech.synthesis import require, synthesise
from ....data_prep.speech.voices import find_voices
from ....data_prep.text.spoken import normalise
from ....model.errors import DuologueError
from ...assistant.assistant import Assistant
from ..metrics.statistics import Metric
from ..report.page import Section, example, sounds, table
from ..report.plots import bars, number
from ..report.reporting import Parts, by_part, finish, good_rows
from ..report.run_folder import Row, loaded, open_folder, resume_rows

LABELS, AIR_BENCH, MMAU = "labels", "air_bench", "mmau"
QUESTION = "what sound is this"
METRICS = (Metric(key="right", name="Answered right", unit="%"),)
_CHOICES = ("choice_a", "choice_b", "choice_c", "choice_d")
_PAUSE_S, _SHOWN = 0.5, 6


def run(
    *,
    data: Path,
    out: Path,
    model: str | Assistant | None = None,
    outputs: Path | None = None,
    voices: str | None = None,
    written: bool | None = None,
    limit: int | None = None,
    seed: int = 0,
    quiet: bool = False,
) -> dict[str, Any]:
    """Score what is said of the sounds in ``data`` (a folder with a manifest, or a benchmark's JSON file).

    Args:
        outputs: JSON lines of another system's replies; None (and no model): they are in ``data`` itself.
        voices: who asks a model, the first of them.
        written: whether a model is asked in writing; None: if it hears sounds.

    Raises:
        DuologueError: no data, data of no form that is known, or an unknown voice.
    """
    kind, entries = read_entries(data)
    entries = entries[:limit]
    replies = {} if outputs is None else texts_by_id(outputs, "response")
    speaker = find_voices(voices or "dev")[0]
    assistant, source = (None, None) if model is None else loaded(model)
    written = assistant is not None and assistant.model.hears_sounds if written is None else written
    if assistant is not None and not written:
        require(speaker.engine)
    settings = {"suite": "audio_analysis", "data": str(data), "kind": kind, "model": source, "clips": len(entries),
                "outputs": None if outputs is None else str(outputs), "seed": seed,
                "voice": speaker.key if assistant is not None and not written else None}  # fmt: skip
    settings |= {"written": True} if written else {}  # reports of before do not say it
    folder = open_folder(out, settings)
    where = data if data.is_dir() else data.parent

    def work(at: int, entry: Row) -> Row:
        if assistant is not None:
            reply: str | None = _ask(assistant, where / entry["audio"], entry["asked"], None if written else speaker)
        else:
            reply = replies.get(entry["id"]) if outputs is not None else entry["response"]
        if reply is None:
            raise DuologueError("there is no reply to it among the outputs")
        return entry | {"response": reply, "measures": {"right": [is_right(kind, reply, entry), 1]}}

    rows = resume_rows(folder / "answered.jsonl", "asking", entries, work, quiet, lambda entry: str(entry["id"]))
    good = good_rows(rows)
    parts = by_part(good, "category", METRICS, seed)
    values = [found[0].value for _, found in parts if found[0].value is not None]
    details = {"mean_over_categories": float(np.mean(values)) if values else None}
    sections = [_categories(parts), _examples(good, where)]
    return finish(
        folder, "Audio analysis", settings, METRICS, rows, sections, details=details, parts=parts, quiet=quiet
    )


def _ask(assistant: Assistant, clip: Path, question: str, speaker: Voice | None) -> str:
    """The reply to a question about a clip: in writing, or spoken behind it."""
    if speaker is None:
        return assistant.ask(clip, question).text
    asked = synthesise(normalise(question), speaker).astype(np.float32) / 32_768
    pause = np.zeros(round(_PAUSE_S * SAMPLE_RATE), np.float32)
    # as recorded: beside the question's speech, a soft sound would be taken for silence
    sound = np.concatenate([read_audio(clip, SAMPLE_RATE), pause, asked])
    turn = assistant.stream((SAMPLE_RATE, sound), as_recorded=True)
    for _ in turn:
        pass
    return turn.reply().text


def read_entries(data: Path) -> tuple[str, list[Row]]:
    """(which form, entries with id, audio, category, asked, answer, choices and response)."""
    path = data / MANIFEST if data.is_dir() else data
    if not path.is_file():
        raise DuologueError(f"there is no {path}: give a folder with a {MANIFEST}, or a JSON file of AIR-Bench or MMAU")
    found = read_json_lines(path) if path.suffix == ".jsonl" else read_json(path)
    if not isinstance(found, list) or not found or not all(isinstance(entry, dict) for entry in found):
        raise DuologueError(f"{path}: expected a list of objects")
    first = found[0]
    kind, read = LABELS, _label
    if "choice_a" in first or "choices" in first:
        kind, read = (AIR_BENCH, _air_bench) if "choice_a" in first else (MMAU, _mmau)
    entries = []
    for at, entry in enumerate(found, start=1):
        if kind != LABELS or entry.get("label"):
            try:
                made = read(entry)
            except KeyError as error:
                raise DuologueError(f"{path}, entry {at}: it has no {error}") from None
            except DuologueError as error:
                raise DuologueError(f"{path}, entry {at}: {error}") from None
            for field in ("id", "audio", "asked", "answer", *(["response"] if made["response"] is not None else [])):
                text_of(made, field, f"{path}, entry {at}")
            entries.append(made)
    if not entries:
        raise DuologueError(f"{path}: its entries have neither a label nor choices")
    return kind, entries


def is_right(kind: str, reply: str, entry: Row) -> bool:
    """By the rule of the form that the entry has."""
    if kind == AIR_BENCH:
        return air_bench_letter(reply) == _right_letter(entry)
    if kind == MMAU:
        return mmau_matches(reply, entry["answer"], entry["choices"])
    return f" {normalise(entry['answer'])} " in f" {normalise(reply)} "


def air_bench_letter(reply: str) -> str | None:
    """The first character, or else the last but one ("The answer is A."); None if neither is A to D."""
    text = reply.strip().replace("\n", "")
    if text[:1] in ("A", "B", "C", "D"):
        return text[0]
    return text[-2] if len(text) > 1 and text[-2] in "ABCD" else None


def mmau_matches(reply: str, answer: str, choices: Sequence[str]) -> bool:
    """Every word of the answer is said, and no word that the other choices have and the answer does not."""
    said, needed = _tokens(reply), _tokens(answer)
    others = set().union(*(_tokens(choice) for choice in choices if _tokens(choice) != needed)) - needed
    return bool(said) and needed <= said and not said & others


def _tokens(text: str) -> set[str]:
    return set(re.findall(r"\b\w+\b", text.lower()))


def _right_letter(entry: Row) -> str:
    for name, choice in zip("ABCD", entry["choices"], strict=False):
        if choice == entry["answer"]:
            return name
    raise DuologueError(f"its answer {entry['answer']!r} is none of its choices")


def _label(entry: Row) -> Row:
    return {
        "id": entry["audio"], "audio": entry["audio"], "answer": entry["label"], "choices": [],
        "category": str(entry.get("category") or entry.get("set") or entry["label"]),
        "asked": entry.get("question") or QUESTION, "response": entry.get("response"),
    }  # fmt: skip


def _air_bench(entry: Row) -> Row:
    choices = [entry.get(name) for name in _CHOICES]
    task, dataset = str(entry.get("task_name")), str(entry.get("dataset_name"))
    shown = ", ".join(f"{name}, {choice}" for name, choice in zip("ABCD", choices, strict=True) if choice)
    return {
        "id": str(entry.get("uniq_id", entry["path"])), "audio": f"{task}_{dataset}/{entry['path']}",
        "category": f"{task}_{dataset}", "asked": f"{entry['question']} {shown}", "answer": entry["answer_gt"],
        "choices": choices, "response": entry.get("response"),
    }  # fmt: skip


def _mmau(entry: Row) -> Row:
    if not isinstance(entry["choices"], list):
        raise DuologueError(f"its choices are {entry['choices']!r:.40}, and must be a list")
    choices = [str(choice) for choice in entry["choices"]]
    return {
        "id": str(entry.get("id", entry["audio_id"])), "audio": entry["audio_id"],
        "category": str(entry.get("task", entry.get("category", "all"))), "answer": entry["answer"],
        "asked": f"{entry['question']} {', '.join(choices)}", "choices": choices,
        "response": entry.get("model_output", entry.get("model_prediction", entry.get("response"))),
    }  # fmt: skip


def _categories(parts: Parts) -> Section:
    rows = [(name, number(found[0].value, "%"), str(found[0].count)) for name, found in parts]
    plot = bars([(name, found[0].value, found[0].low, found[0].high) for name, found in parts], "%")
    return Section(title="By category", body=table(("category", "right", "over"), rows, (1, 2)) + plot)


def _examples(rows: list[Row], where: Path) -> Section:
    order = sorted(rows, key=lambda row: row["measures"]["right"][0])
    cards = []
    for row in [*order[:_SHOWN], *order[_SHOWN:][-_SHOWN:]]:
        waves = sounds({"clip": partial(Path, where / row["audio"])})
        turn_state = "right" if row["measures"]["right"][0] else "wrong"
        lines = [
            (turn_state, row["id"]),
            ("asked", row["asked"]),
            ("answer", row["answer"]),
            ("reply", row["response"]),
        ]
        cards.append(example([(a, str(b)) for a, b in lines], waves))
    return Section(title="Wrong first, then right", body="".join(cards))
