"""What another system said, judged from its files alone: no model of ours is loaded.

A folder of WAVs and texts, listed in manifest.jsonl, one object a reply; or, without a list, ID.wav beside ID.txt.

    id              names ID.wav (its speech) and ID.txt (the text of its reply), unless these are given:
    audio, reply    a path from the folder; the text itself
    question        what was asked; transcript: what it understood
    answer, slot    what makes it right, as in the manifest that `duologue evaluate s2s export=true` writes
    compute_delay_ms    if it measured it

What is not known is not measured. A reply whose speech cannot be read is named, counted, and in no figure.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from ....checkpoints.files import name_of, numbered_json_lines, read_text, text_of
from ....checkpoints.recognisers.recogniser import ENGLISH, POCKETSPHINX, find_recogniser
from ....data_prep.audio import read_audio
from ....model.errors import DuologueError
from ..judges.endpoint import EndpointJudge, JudgeConfig
from ..judges.slots import is_right
from ..judges.speech import SpeechJudge
from ..metrics.quality import RATE
from ..metrics.s2s import METRICS
from ..report.reporting import finish, good_rows
from ..report.run_folder import Row, open_folder, resume_rows
from ..report.s2s import examples

MANIFEST = "manifest.jsonl"
TEXTS = ("audio", "reply", "question", "transcript", "answer", "slot")


def run(
    *,
    outputs: Path,
    out: Path,
    seed: int = 0,
    recogniser: str = POCKETSPHINX,
    language: str = ENGLISH,
    normaliser: str = "plain",
    judge: JudgeConfig | None = None,
    utmos: str | None = None,
    voice: Path | None = None,
    quiet: bool = False,
) -> dict[str, Any]:
    """Judge the replies in ``outputs`` and write the reports into ``out``.

    Args:
        voice: a recording of the voice that the replies ought to have; None: no figure of similarity.

    Raises:
        DuologueError: no such folder, nothing in it, or a manifest that is none.
    """
    entries = read_entries(outputs)
    settings = {"suite": "s2s", "outputs": str(outputs), "replies": len(entries), "seed": seed,
                "recogniser": recogniser,
                "normaliser": normaliser, "judge": None if judge is None else judge.model, "utmos": utmos}  # fmt: skip
    settings |= {} if language == ENGLISH else {"language": language}  # reports of before do not say it
    folder = open_folder(out, settings)
    grader = None if judge is None else EndpointJudge(judge, folder / "graded.jsonl")
    hearing = SpeechJudge(find_recogniser(recogniser, language), utmos, grader, normaliser)
    like = None if voice is None else read_audio(voice, RATE)

    def work(_: int, entry: Row) -> Row:
        return _judge(hearing, entry, outputs, like)

    rows = resume_rows(folder / "judged.jsonl", "judging", entries, work, quiet, lambda entry: str(entry["id"]))
    shown = examples(good_rows(rows), lambda row: outputs / row["audio"], hearing.recogniser.name)
    return finish(folder, "Spoken replies of another system", settings, METRICS, rows, shown, quiet=quiet)


def read_entries(folder: Path) -> list[Row]:
    """The replies of a folder, each with id, audio and reply (None where there is no text)."""
    if not folder.is_dir():
        raise DuologueError(f"there is no folder {folder}: give one with WAVs and texts, or with a {MANIFEST}")
    path = folder / MANIFEST
    if path.is_file():
        entries = []
        for number, entry in numbered_json_lines(path):
            where = f"{path}, line {number}"
            for field in TEXTS:
                if entry.get(field) is not None:
                    text_of(entry, field, where)
            entries.append(entry | {"id": name_of(entry, "id", where)})
    else:
        entries = [{"id": wav.stem} for wav in sorted(folder.glob("*.wav"))]
    if not entries:
        raise DuologueError(f"{folder} has neither WAVs nor a {MANIFEST}")
    for entry in entries:
        if entry.get("audio") is None:
            entry["audio"] = f"{entry['id']}.wav"
        text = folder / f"{entry['id']}.txt"
        if entry.get("reply") is None:
            entry["reply"] = read_text(text).strip() if text.is_file() else None
    return entries


def _judge(hearing: SpeechJudge, entry: Row, folder: Path, like: np.ndarray | None) -> Row:
    wave = read_audio(folder / entry["audio"], RATE)
    graded = hearing(entry, wave, like)
    measures = dict(graded["measures"])
    measures.pop("synthesiser_wer", None), measures.pop("synthesiser_cer", None)  # `like` says other words
    if entry.get("reply") is not None and entry.get("answer") and entry.get("slot"):
        measures["right"] = [is_right(entry["reply"], entry["answer"], entry["slot"]), 1]
    delay = entry.get("compute_delay_ms")
    if delay is not None:
        if not isinstance(delay, int | float):
            raise DuologueError(f"compute_delay_ms is {delay!r:.40}, and must be a number")
        measures["compute_delay_ms"] = [float(delay), 1]
    return dict(entry) | {"failed": None, "heard": graded["heard"], "measures": measures}
