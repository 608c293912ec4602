"""Spoken questions and answers: right or not, by the text and by a recogniser; quality, delay, chunk sizes.

The questions of a question set, asked in chosen voices. Three passes, each a file of rows that is only appended to:

    asked.jsonl     every question asked, the model's transcript and reply, times, memory; speech in replies/*.wav
    judged.jsonl    what an independent recogniser hears in each reply's speech, and in the synthesiser's own rendering
                    of the same text; how it sounds; what a judge says of it
    chunks.jsonl    a few replies synthesised in chunks of Ω units, with and without context

A question set that makes its questions is asked for those of the test; a file for all that it has. Its slots, where it
has some, say what is right; a judge grades content and style without. A question that goes on from others is asked
behind them: they are asked in writing, and the model answers them itself.
Compute delay is measured by the turn (:mod:`...assistant.turn`): last samples handed over -> first reply samples ready.
What another system said is judged by the same code, from its files (:mod:`..inputs.foreign`).

Source of the measures: LLaMA-Omni (arXiv 2409.06666), tables 1 to 3.
"""

from __future__ import annotations

import contextlib
import os
import resource
import sys
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ....checkpoints.files import write_json_lines
from ....checkpoints.recognisers.recogniser import ENGLISH, find_recogniser, usual_recogniser
from ....data_prep.audio import read_audio, write_wav
from ....data_prep.datasets.question_sets import Dialogue
from ....data_prep.speech.engine import SAMPLE_RATE, SynthesisError, Voice
from ....data_prep.speech.synthesis import require, synthesise
from ....data_prep.speech.voices import REPLY_VOICE, find_voices
from ....model.errors import DuologueError
from ...assistant.assistant import Assistant
from ..inputs import foreign
from ..inputs.questions import BUNDLED, questions_of, usual_split
from ..judges.endpoint import EndpointJudge, JudgeConfig
from ..judges.slots import is_right
from ..judges.speech import SpeechJudge
from ..metrics.chunk_sizes import render_chunks
from ..metrics.s2s import METRICS, summarise
from ..metrics.words import usual_normaliser
from ..report.reporting import finish, good_rows
from ..report.run_folder import Row, loaded, open_folder, resume_rows
from ..report.s2s import sections


@dataclass(frozen=True, kw_only=True)
class Profile:
    """How much is measured."""

    questions: int  # over all voices
    voices: str  # a set or a list, as data_prep.voices.find_voices reads it
    chunked: int  # replies that are synthesised in chunks of several sizes


PROFILES = {
    "quick": Profile(questions=60, voices="dev", chunked=6),
    "card": Profile(questions=600, voices="flite:awb,flite:slt,festival:ked_diphone", chunked=30),
}


def run(
    *,
    out: str | os.PathLike[str],
    model: str | Assistant = BUNDLED,
    outputs: Path | None = None,
    data: str | Path = BUNDLED,
    export: bool = False,
    profile: str = "quick",
    voices: str | None = None,
    questions: int | None = None,
    seed: int = 0,
    split: str | None = None,
    recogniser: str | None = None,
    language: str = ENGLISH,
    normaliser: str | None = None,
    judge: JudgeConfig | None = None,
    utmos: str | None = None,
    voice: Path | None = None,
    quiet: bool = False,
) -> dict[str, Any]:
    """Measure ``model`` and write report.json, report.html and summary.md into ``out``.

    Args:
        model: a name, a folder, a hub id, or one that is loaded.
        outputs: what another system said, which is judged instead; ``voice`` belongs to it.
        export: only write the questions, for another system.
        voices, questions: instead of the profile's.
        split: which of the questions: "test", "dev" or "train"; None: the test's, of a file all.
        data: the question set, by its name or file (see data_prep/datasets/question_sets.py).
        recogniser: of the replies' speech (see :func:`find_recogniser`); language: of questions and replies (ISO 639).
        normaliser: of words (see :mod:`..metrics.words`); None: the language's.
        judge: a chat model that grades content and style; None: replies are judged by rule alone.
        utmos: folder of UTMOS weights; None: it is left out.
        quiet: no progress bar and no tables.

    Returns:
        What report.json holds.

    Raises:
        DuologueError: an unknown profile or voice, a synthesiser that is not installed, or a folder that holds the
            figures of other settings.
    """
    recogniser, normaliser = recogniser or usual_recogniser(), normaliser or usual_normaliser(language, "plain")
    if outputs is not None:
        return foreign.run(outputs=outputs, out=Path(out), seed=seed, recogniser=recogniser, language=language,
                           normaliser=normaliser, judge=judge, utmos=utmos, voice=voice, quiet=quiet)  # fmt: skip
    if profile not in PROFILES:
        raise DuologueError(f"unknown profile {profile!r}: the profiles are {', '.join(PROFILES)}")
    count = questions or PROFILES[profile].questions
    speakers = find_voices(voices or PROFILES[profile].voices)
    require(*{voice.engine for voice in speakers})
    dialogues = questions_of(data, seed, count, split)
    if export:
        return {"questions": write_questions(Path(out), dialogues, speakers)}
    assistant, source = loaded(model)
    settings = {"suite": "s2s", "profile": profile, "model": source, "voices": [voice.key for voice in speakers],
                "questions": len(dialogues), "seed": seed, "split": split or usual_split(data),
                "recogniser": recogniser, "judge": None if judge is None else judge.model, "utmos": utmos}  # fmt: skip
    usual = {"data": BUNDLED, "language": ENGLISH, "normaliser": "plain"}
    given = {"data": str(data), "language": language, "normaliser": normaliser}
    settings |= {name: value for name, value in given.items() if value != usual[name]}  # reports of before lack them
    folder = open_folder(Path(out), settings)
    (folder / "replies").mkdir(exist_ok=True)
    assistant.warm_up()
    mute = Assistant(assistant.model.without_voice(), assistant.tokenizer)
    mute.warm_up()

    def ask(at: int, dialogue: Dialogue) -> Row:
        return _ask(assistant, mute, at, dialogue, speakers[at % len(speakers)], folder)

    asked = resume_rows(folder / "asked.jsonl", "asking", dialogues, ask, quiet)
    grader = None if judge is None else EndpointJudge(judge, folder / "graded.jsonl")
    hearing = SpeechJudge(find_recogniser(recogniser, language), utmos, grader, normaliser)
    like = REPLY_VOICE if language == ENGLISH else None  # it speaks nothing else

    def judged_of(at: int, row: Row) -> Row:
        return _judge(hearing, row, folder, like)

    judged = resume_rows(folder / "judged.jsonl", "judging", asked, judged_of, quiet)
    rows = [row | graded | {"measures": row.get("measures", {}) | graded["measures"]}
            for row, graded in zip(asked, judged, strict=True)]  # fmt: skip
    chunked = [row for row in good_rows(rows) if row["units"]][: PROFILES[profile].chunked]
    path = folder / "chunks.jsonl"
    sizes = resume_rows(path, "chunking", chunked, lambda _, row: render_chunks(assistant, row, hearing), quiet)
    found = summarise(rows, normaliser)
    shown = sections(folder, good_rows(rows), found, sizes, hearing.recogniser.name)
    title = "Spoken questions, spoken answers"
    return finish(folder, title, settings, METRICS, rows, shown, details=found, quiet=quiet)


def write_questions(folder: Path, dialogues: Iterable[Dialogue], speakers: Sequence[Voice]) -> int:
    """Write the questions for another system to answer: ID.question.wav, and manifest.jsonl with what is right.

    It adds ID.wav (its speech) and ID.txt (its text); `duologue evaluate s2s --outputs FOLDER` judges them.
    Returns how many questions there are.
    """
    folder.mkdir(parents=True, exist_ok=True)
    entries = []
    for at, dialogue in enumerate(dialogues):
        voice = speakers[at % len(speakers)]
        pcm = synthesise(dialogue.question, voice)
        write_wav(folder / f"{at:04d}.question.wav", pcm.astype(np.float32) / 32_768, SAMPLE_RATE)
        entries.append({"id": f"{at:04d}", "voice": voice.key, **asdict(dialogue)})
    write_json_lines(folder / foreign.MANIFEST, entries)
    print(f"{len(entries)} questions in {folder}: add ID.wav and ID.txt for each, then give it as --outputs")
    return len(entries)


def _ask(assistant: Assistant, mute: Assistant, at: int, dialogue: Dialogue, voice: Voice, folder: Path) -> Row:
    """Ask one question aloud; its row. A voice that fails on a text is a row too, with the reason.

    mute: the same model without a voice, which is asked too: what writing alone takes.
    """
    row: Row = {"id": f"{at:04d}", "index": at, "voice": voice.key, **asdict(dialogue), "failed": None}
    try:
        pcm = synthesise(dialogue.question, voice)
    except SynthesisError as error:
        return row | {"failed": str(error)}
    talk, written_talk = (one.converse(dialogue.system or "") for one in (assistant, mute))
    for before, _ in dialogue.history:  # what the question goes on from is asked in writing, and answered anew
        row["said_before"] = talk.ask(text=before).text
        row.setdefault("past", []).append((before, row["said_before"]))
        written_talk.ask(text=before)
    turn = talk.stream((SAMPLE_RATE, pcm))
    timeline = [(chunk.at_ms, len(chunk.text_delta.split()), chunk.units) for chunk in turn]
    reply = turn.reply()
    if len(reply.waveform):
        write_wav(_speech(folder, row), reply.waveform, reply.sample_rate)
    timings = reply.timings
    written = written_talk.ask((SAMPLE_RATE, pcm)).timings
    right = is_right(reply.text, dialogue.answer, dialogue.slot) if dialogue.slot else None
    measures = {
        "right": right,
        "real_time_factor": timings.real_time_factor,
        "decode_speech_s": (timings.total_ms - timings.listen_ms) / 1e3,
        "decode_text_s": (written.total_ms - written.listen_ms) / 1e3,
        "compute_delay_ms": timings.compute_delay_ms,
        "first_word_ms": timings.first_word_ms,
    }
    return row | {
        "transcript": reply.transcript if assistant.model.transcribes else None,
        "reply": reply.text,
        "right": right,
        "units": reply.units,
        "timeline": timeline,
        "warning": reply.warning,
        "timings": asdict(timings),
        "peak_rss_mib": _peak_rss_mib(),
        "measures": {key: [value, 1] for key, value in measures.items() if value is not None},
    }


def _judge(hearing: SpeechJudge, row: Row, folder: Path, like: Voice | None) -> Row:
    """What the recogniser hears in a reply, and in the synthesiser's rendering of the same words in the voice ``like``;
    how it sounds."""
    heard: Row = {"heard": None, "synthesiser_heard": None, "right_by_ear": None, "measures": {}}
    if row["failed"]:
        return heard
    rendering = None
    if row["reply"] and like is not None:
        with contextlib.suppress(SynthesisError):  # nothing that it can say, or it is not installed
            rendering = synthesise(row["reply"], like).astype(np.float32) / 32_768
    path = _speech(folder, row)
    wave = read_audio(path, SAMPLE_RATE) if path.exists() else None
    graded = hearing(row, wave, rendering)
    recognised = graded["measures"].get("right_by_ear")
    return heard | graded | {"right_by_ear": None if recognised is None else bool(recognised[0])}


def _speech(folder: Path, row: Row) -> Path:
    return folder / "replies" / f"{row['id']}.wav"


def _peak_rss_mib() -> float:
    """The most memory that this process has held so far; in the first pass, before the recogniser is loaded."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak / (1024 if sys.platform != "darwin" else 1024**2), 1)
