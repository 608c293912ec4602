"""How long a person waits, in its parts, in real time, and how that grows.

    endpoint    last sample of the user's speech -> the decision to answer (stream time of a session)
    compute     the decision -> the first sample of the reply is there
    total       their sum, the time to first audio; all three from sessions that are paced in real time
    warm, cold  compute delay of a turn in a process that has answered before, and of a process's first
    growth      the exponent b of cost ~ length^b: of the delay and of listening by length of the question, of the reply
                by its number of tokens. 0: it does not grow; 1: linear

Percentiles are over questions. The machine's load is in the report: figures of a busy machine say so.
"""

from __future__ import annotations

import contextlib
import html
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ....data_prep.audio import resampled, write_wav
from ....data_prep.speech.engine import SAMPLE_RATE, SynthesisError, Voice
from ....data_prep.speech.synthesis import require, synthesise
from ....data_prep.speech.voices import find_voices
from ....model.decoding.reply import reply
from ....model.dialogue_state import Sampling
from ....model.errors import DuologueError
from ....model.tokens import TokenKind
from ...assistant.assistant import Assistant
from ...assistant.turn import Timings
from ...session.events import EventKind
from ...session.notes import notes
from ...session.policy import FRAME_MS, PRESETS
from ...session.session import Session
from ...session.state import SessionConfig
from ..inputs.questions import BUNDLED, questions_of, usual_split
from ..metrics.statistics import Better, Metric, Statistic, growth_exponent, measured, percentiles
from ..report.page import Section, table
from ..report.plots import curves, histogram, number
from ..report.reporting import finish
from ..report.run_folder import Row, loaded, open_folder, resume_rows

PROFILES = {"quick": 8, "card": 60}  # questions in real time
LENGTHS_S = (2, 4, 8, 16, 32)  # of questions
TOKENS = (16, 32, 64, 128, 256)  # of a reply
_REPEATS, _COLD = 5, 3
_ROOM_S = 4.0  # for an answer to begin
_P50, _P95 = Statistic.P50, Statistic.P95


def _pair(key: str, name: str, best: tuple[float, str] | None = None) -> tuple[Metric, Metric]:
    first = Metric(key=key, name=f"{name}, median", unit="ms", better=Better.LOWER, statistic=_P50, reference=best)
    return first, Metric(key=key, name=f"{name}, 95th", unit="ms", better=Better.LOWER, statistic=_P95)


METRICS = (
    *_pair("endpoint_ms", "Endpoint delay"),
    *_pair("compute_ms", "Compute delay, in real time"),
    *_pair("total_ms", "Time to first audio"),
    *_pair("warm_ms", "Compute delay of a turn, warm", (226.0, "LLaMA-Omni-8B on its GPU at 10 units")),
    *_pair("cold_ms", "Compute delay of a process's first turn"),
    Metric(key="late", name="Frames that came later than 80 ms", unit="%", better=Better.LOWER),
)


def run(
    *,
    out: Path,
    model: str | Assistant = BUNDLED,
    data: str | Path = BUNDLED,
    profile: str = "quick",
    voices: str | None = None,
    questions: int | None = None,
    preset: str = "balanced",
    seed: int = 0,
    split: str | None = None,
    quiet: bool = False,
) -> dict[str, Any]:
    """Measure and write the reports into ``out``.

    Args:
        data: the question set, by its name or file. split: which of its questions; None: the test's, of a file all.

    Raises:
        DuologueError: an unknown profile, preset, voice or question set, a synthesiser that is not installed.
    """
    if profile not in PROFILES:
        raise DuologueError(f"unknown profile {profile!r}: the profiles are {', '.join(PROFILES)}")
    if preset not in PRESETS:
        raise DuologueError(f"there is no preset {preset!r}; it must be {', '.join(PRESETS)}")
    speakers = find_voices(voices or {"quick": "dev", "card": "flite:awb,flite:slt,festival:ked_diphone"}[profile])
    require(*{voice.engine for voice in speakers})
    assistant, source = loaded(model)
    dialogues = questions_of(data, seed, questions or PROFILES[profile], split)
    count = len(dialogues)
    settings = {
        "suite": "latency", "profile": profile, "model": source, "voices": [voice.key for voice in speakers],
        "questions": count, "preset": preset, "seed": seed, "split": split or usual_split(data),
    }  # fmt: skip
    settings |= {} if data == BUNDLED else {"data": str(data)}  # reports of before do not say it
    folder = open_folder(out, settings)
    asked = [(dialogue.question, speakers[at % len(speakers)]) for at, dialogue in enumerate(dialogues)]
    from ....checkpoints.importers.silero_vad import load_vad

    vad = load_vad()
    assistant.warm_up()

    def paced(at: int, item: tuple[str, Voice]) -> Row:
        question, voice = item
        pcm = synthesise(question, voice).astype(np.float32) / 32_768
        found = assistant.ask((SAMPLE_RATE, pcm)).timings
        row = play_in_real_time(Session(assistant, SessionConfig(duplex=PRESETS[preset]), vad), pcm)
        if found.compute_delay_ms is not None:
            row["measures"]["warm_ms"] = [found.compute_delay_ms, 1]
        return row | {"question": question, "voice": voice.key, "question_s": len(pcm) / SAMPLE_RATE}

    rows = resume_rows(folder / "paced.jsonl", "pacing", asked, paced, quiet, lambda item: item[0])
    cold: list[Row] = []
    if source["name"] is not None:
        name = str(source["name"])
        items, path = [asked[i % count] for i in range(_COLD)], folder / "cold.jsonl"
        cold = resume_rows(path, "starting", items, lambda _, it: _cold(name, *it), quiet, lambda it: f"cold: {it[0]}")
    path = folder / "growth.jsonl"
    grown = resume_rows(path, "growing", [None], lambda *_: _growth(assistant, asked), quiet)[0]
    lacks = notes(assistant.model)
    sections, details = [_totals(rows, lacks), *_growths(grown)], {"growth": grown, "session": lacks}
    return finish(folder, "Latency", settings, METRICS, [*rows, *cold], sections, details=details, quiet=quiet)


def play_in_real_time(session: Session, pcm: np.ndarray) -> Row:
    """Hand a question (n,) at 16 kHz to a session as a microphone would, each frame when it is over; what was waited.
    For a model without a voice, until it has decided to answer and written something.

    Frames are handed over by the clock; a frame that took too long delays those after it, as it would for a user.
    """
    wave = resampled(pcm, SAMPLE_RATE, session.input_rate)
    end_ms = 1e3 * len(wave) / session.input_rate
    room = np.zeros(round(_ROOM_S * session.input_rate), np.float32)
    wave = np.concatenate([wave, room])
    wave = np.pad(wave, (0, -len(wave) % session.frame))
    frame_s = session.frame / session.input_rate
    late, decided, row = 0, None, Row(measures={}, answered=False)
    frames = len(wave) // session.frame
    start = time.perf_counter()
    for at in range(frames):
        due = start + (at + 1) * frame_s
        time.sleep(max(0.0, due - time.perf_counter()))
        tick = session.tick(wave[at * session.frame : (at + 1) * session.frame])
        now = time.perf_counter()
        late += now - due > FRAME_MS / 1e3
        for event in tick.events:
            if event.kind is EventKind.ANSWER_STARTED and event.at_ms >= end_ms - FRAME_MS:
                decided = event.at_ms
            if event.kind is EventKind.ANSWER_AUDIBLE and decided is not None:
                endpoint, total = max(0.0, decided - end_ms), 1e3 * (now - start) - end_ms
                row["answered"] = True
                parts = {"endpoint_ms": endpoint, "compute_ms": total - endpoint, "total_ms": total}
                row["measures"] = {key: [value, 1] for key, value in parts.items()}
            if event.kind is EventKind.ANSWER_TEXT and decided is not None and not session.model.speaks:
                row["answered"], row["measures"]["endpoint_ms"] = True, [max(0.0, decided - end_ms), 1]
        if row["answered"]:
            break
    row["measures"]["late"] = [late, at + 1]
    return row


def _cold(name: str, question: str, voice: Voice) -> Row:
    """The first question of a process, which loads the model for it."""
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "question.wav"
        write_wav(path, synthesise(question, voice).astype(np.float32) / 32_768, SAMPLE_RATE)
        start = time.perf_counter()
        command = [sys.executable, "-m", "duologue", "ask", str(path), "--json", "--model", name]
        done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
        seconds = time.perf_counter() - start
    if done.returncode:
        raise DuologueError(f"a new process failed: {done.stderr.strip()[-200:]}")
    delay = json.loads(done.stdout)["timings"]["compute_delay_ms"]
    return {"process_s": seconds, "measures": {} if delay is None else {"cold_ms": [delay, 1]}}


def _growth(assistant: Assistant, asked: list[tuple[str, Voice]]) -> Row:
    """Medians over repeats, and their exponents; of questions as long as the model hears at once."""
    speech = np.concatenate(list(_said(asked)) or [np.zeros(SAMPLE_RATE, np.int16)])
    by_question: dict[str, list[tuple[float, float]]] = {"delay": [], "listening": []}
    clip_s = assistant.model.clip_s
    for seconds in (length for length in LENGTHS_S if clip_s is None or length <= clip_s):
        wave = np.resize(speech, seconds * SAMPLE_RATE)
        found = [_timings(assistant, wave) for _ in range(_REPEATS)]
        last = [timing.first_word_ms for timing in found]
        by_question["delay"].append((seconds, percentiles(last)["p50"] or 0.0))
        by_question["listening"].append((seconds, float(np.median([timing.listen_ms for timing in found]))))
    reply = reply_costs(assistant, max(TOKENS))
    by_reply = [(count, reply[count - 1]) for count in TOKENS if count <= len(reply)]
    out: Row = {"question_delay": by_question["delay"], "listening": by_question["listening"], "reply": by_reply}
    exponents = {name: growth_exponent(*zip(*line, strict=True)) for name, line in out.items() if line}
    return out | {"exponents": exponents}


def _said(asked: list[tuple[str, Voice]]) -> Iterator[np.ndarray]:
    """The questions that their voices can say, (n,) int16 each."""
    for question, voice in asked:
        with contextlib.suppress(SynthesisError):
            yield synthesise(question, voice)


def _timings(assistant: Assistant, wave: np.ndarray) -> Timings:
    """Of one question (n,), heard as it is, however long."""
    turn = assistant.stream((SAMPLE_RATE, wave), sampling=Sampling(max_tokens=8), as_recorded=True)
    for _ in turn:
        pass
    return turn.reply().timings


@torch.inference_mode()
def reply_costs(assistant: Assistant, tokens: int) -> list[float]:
    """Milliseconds until each token of one reply, and its speech, are there: (tokens,). The reply is made to go on by
    taking the likeliest word each time, whatever else the model would do; fewer where its positions end."""
    model, layout = assistant.model, assistant.model.layout
    state = model.init_state()
    model.read_text(assistant.tokenizer.encode("hello", add_special_tokens=False), state)

    def likeliest_word() -> int:
        return int(model.next_logits(state)[slice(*layout.text)].argmax()) + layout.text[0]

    costs, start = [], time.perf_counter()
    for step in islice(reply(model, state, Sampling(), choose=likeliest_word), tokens):
        if step.kind is not TokenKind.END:
            costs.append(1e3 * (time.perf_counter() - start))
    return costs


def _totals(rows: list[Row], lacks: Sequence[str]) -> Section:
    values = [amount for amount, _ in measured(rows, "total_ms")]
    missed = sum(not row.get("answered") for row in rows if not row.get("failed"))
    note = "".join(f"<p class='dim'>The session: {html.escape(line)}.</p>" for line in lacks)
    note += f"<p>{missed} of {len(rows)} questions were not answered within {_ROOM_S:.0f} s.</p>" if missed else ""
    return Section(
        title="Time to first audio", body=note + histogram(values, "last speech to first reply sample", "ms")
    )


def _growths(grown: Row) -> list[Section]:
    names = {
        "question_delay": ("Delay to the first word, by length of the question", "s"),
        "listening": ("Computing while listening, by length of the question", "s"),
        "reply": ("A reply with its speech, by its tokens", "tokens"),
    }
    rows = [
        (title, f"{x:g} {unit}", number(y, "ms"), number(grown["exponents"].get(key)))
        for key, (title, unit) in names.items()
        for x, y in grown[key]
    ]
    body = table(("what", "length", "cost", "exponent"), rows, (1, 2, 3))
    for key, (title, unit) in names.items():
        body += f"<h3>{title}</h3>" + curves({"cost": grown[key]}, unit, "ms", logarithmic=True)
    return [Section(title="How it grows", body=body)]
