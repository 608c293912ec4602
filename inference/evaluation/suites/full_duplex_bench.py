"""Full-Duplex-Bench's folders, versions 1 and 1.5, scored for any system that turns input.wav into output.wav.

    ID/input.wav          what the system hears, 16 kHz
    ID/output.wav         what it says meanwhile, time-synchronous
    ID/output.json        its words: {"text": …, "chunks": [{"text": …, "timestamp": [start, end]}, …]}; where it is
                          missing the words are recognised, and written there
    and the event, which says what is tried:
    pause.json            [{"timestamp": [start, end], …}]                       pause handling
    turn_taking.json      [{"timestamp": [end of the user's turn, …]}]           smooth turn-taking
    interrupt.json        [{"context": …, "interrupt": …, "timestamp": [start, end]}]     user interruption
    metadata.json         {"context_text": …, "current_turn_text": …, "timestamps": [start, end]}     v1.5: overlaps
    none of these         back-channels; icc_gt_distribution.json beside the folders: when people gave them

What a system did when it was talked over (v1.5) is told by a judge, if there is one: it responded, resumed, was
uncertain, or none of these. Which of them is right depends on who spoke; the names of the folders say it.

A root may hold such folders, or tasks that hold them. Formats: the benchmark's published data; measures:
:mod:`..metrics.full_duplex_bench`.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ....checkpoints.files import read_json, write_json
from ....checkpoints.recognisers.recogniser import (
    ENGLISH,
    RATE,
    Recogniser,
    TimedWord,
    find_recogniser,
    usual_recogniser,
)
from ....data_prep.audio import read_audio, resampled, write_wav
from ....model.errors import DuologueError
from ....model.streaming import Streaming
from ...assistant.assistant import Assistant
from ...session.policy import PRESETS
from ...session.session import Session
from ...session.state import SessionConfig
from ..inputs.questions import BUNDLED
from ..judges.endpoint import BEHAVIOURS, EndpointJudge, JudgeConfig
from ..judges.scenes import speech_segments
from ..metrics import full_duplex_bench as measure
from ..metrics.statistics import Better, Metric
from ..report.page import Section, example, sounds, table
from ..report.plots import number
from ..report.reporting import Parts, by_part, finish, good_rows
from ..report.run_folder import Row, loaded, open_folder, resume_rows

EVENTS = {
    "interrupt.json": "user_interruption",
    "turn_taking.json": "smooth_turn_taking",
    "pause.json": "pause_handling",
    "metadata.json": "overlap",
}
BACK_CHANNEL = "backchannel"
_PEOPLE = "icc_gt_distribution.json"
# v1.5: what a folder on the way is called -> what was said over the system, and what it ought to do then.
SCENARIOS = {
    "interruption": ("user interruption", "respond"),
    "backchannel": ("user back-channel", "resume"),
    "other": ("talking to somebody else", "resume"),
    "background": ("speech in the background", "resume"),
}
_SHOWN = 6


def _metric(key: str, name: str, better: Better, best: float | None = None, whose: str = "", unit: str = "") -> Metric:
    reference = None if best is None else (best, f"the best published, {whose}")
    return Metric(key=key, name=name, unit=unit, better=better, reference=reference)


_HIGHER, _LOWER = Better.HIGHER, Better.LOWER
METRICS = (
    _metric("pause_tor", "Pause handling, take-over rate", _LOWER, 0.01, "GPT-Realtime, synthetic pauses"),
    _metric("backchannel_tor", "Back-channel, take-over rate", _LOWER),
    _metric("backchannel_frequency", "Back-channels a second", _HIGHER),
    _metric("backchannel_jsd", "Back-channel timing, JSD to people", _LOWER),
    _metric("turn_tor", "Turn-taking, take-over rate", _HIGHER, 1.0, "GPT-Realtime"),
    _metric("turn_latency", "Turn-taking, latency", _LOWER, 0.07, "PersonaPlex", "s"),
    _metric("interruption_tor", "Interruption, take-over rate", _HIGHER, 1.0, "PersonaPlex"),
    _metric("interruption_latency", "Interruption, latency", _LOWER, 0.257, "Moshi", "s"),
    _metric("interruption_rating", "Interruption, rating (0 to 5)", _HIGHER),
    _metric("stop_latency", "Overlap (v1.5), stop latency", _LOWER, unit="s"),
    _metric("response_latency", "Overlap (v1.5), response latency", _LOWER, unit="s"),
    _metric("overlap_right", "Overlap (v1.5), did what the scenario asks for", _HIGHER, unit="%"),
    *(_metric(f"overlap_{name}", f"Overlap (v1.5), {name}", Better.NEITHER, unit="%") for name in BEHAVIOURS),
)


def is_root(folder: Path) -> bool:
    """Whether this is a folder of Full-Duplex-Bench (and not one of our scenes)."""
    return not any(folder.glob("*/scene.json")) and next(items(folder), None) is not None


def items(root: Path) -> Iterator[Path]:
    """The folders with an input.wav or an output.wav, at any depth, in order."""
    found = {path.parent for name in ("input.wav", "output.wav") for path in root.rglob(name)}
    yield from sorted(found)


def run(
    *,
    out: Path,
    model: str | Assistant | None = None,
    data: Path | None = None,
    outputs: Path | None = None,
    preset: str = "balanced",
    recogniser: str | None = None,
    language: str = ENGLISH,
    judge: JudgeConfig | None = None,
    limit: int | None = None,
    seed: int = 0,
    quiet: bool = False,
) -> dict[str, Any]:
    """Play each input.wav in ``data`` to ``model`` (by default the bundled one), into ``out``, and score it; or score
    what is in ``outputs``.

    Raises:
        DuologueError: no such folder, or nothing of the benchmark in it.
    """
    if preset not in PRESETS:
        raise DuologueError(f"there is no preset {preset!r}; it must be {', '.join(PRESETS)}")
    config, recogniser = SessionConfig(duplex=PRESETS[preset]), recogniser or usual_recogniser()
    if (data := data or outputs) is None:
        raise DuologueError("full_duplex_bench needs --data ROOT to be played, or --outputs ROOT to be scored")
    if outputs is None and model is None:
        model = BUNDLED
    folders = list(items(data)) if data.is_dir() else []
    folders = folders[:limit]
    if not folders:
        raise DuologueError(f"{data} holds no folder with an input.wav or output.wav: give a root of Full-Duplex-Bench")
    from ....checkpoints.importers.silero_vad import load_vad

    assistant, source = (None, None) if model is None else loaded(model)
    settings = {"suite": "duplex", "data": str(data), "model": source, "dialogues": len(folders), "seed": seed,
                "recogniser": recogniser, "judge": None if judge is None else judge.model}  # fmt: skip
    settings |= {} if language == ENGLISH else {"language": language}  # reports of before do not say it
    folder = open_folder(out, settings)
    people = _people(data)
    hearing, vad = find_recogniser(recogniser, language), load_vad()
    grader = None if judge is None else EndpointJudge(judge, folder / "graded.jsonl")

    def work(at: int, item: Path) -> Row:
        played = item
        if assistant is not None:
            played = folder / item.relative_to(data)
            _play(assistant, item, played, config, vad)
        return score(item, played, vad, hearing, people, grader)

    rows = resume_rows(
        folder / "scored.jsonl", "scoring", folders, work, quiet, lambda item: item.relative_to(data).as_posix()
    )
    good = good_rows(rows)
    parts = by_part(good, "task", METRICS, seed)
    where = folder if assistant is not None else data
    examples = [_examples(task, [row for row in good if row["task"] == task], data, where) for task, _ in parts]
    return finish(
        folder, "Full-Duplex-Bench", settings, METRICS, rows, [_tasks(parts), *examples], parts=parts, quiet=quiet
    )


def score(
    item: Path,
    played: Path,
    vad: Streaming,
    recogniser: Recogniser,
    people: dict[str, list[float]],
    grader: EndpointJudge | None = None,
) -> Row:
    """What one dialogue measures. item: its folder with the event; played: the folder of its output.wav."""
    path = played / "output.wav"
    if not path.is_file():
        raise DuologueError(f"there is no {path}: play {item / 'input.wav'} to the system and write what it says there")
    wave = read_audio(path, RATE)
    words = _words(played, wave, recogniser)
    task, event = _event(item)
    found: dict[str, list[float]] = {}
    row: Row = {"task": task, "said": " ".join(word.text for word in words), "measures": found}
    if task == "pause_handling":
        found["pause_tor"] = [measure.taken_over(words), 1]
    elif task in ("smooth_turn_taking", "user_interruption"):
        start, end = _span(event, item)
        if task == "smooth_turn_taking":  # its event is the moment at which the turn ends
            short, end = "turn", start
        else:
            short, words = "interruption", measure.after(words, end)
        found[f"{short}_tor"] = [measure.taken_over(words), 1]
        late = measure.latency(words, end)
        if late is not None:
            found[f"{short}_latency"] = [late, 1]
        if short == "interruption" and late is not None and grader is not None:
            said = " ".join(word.text for word in words)
            found["interruption_rating"] = [grader.related(event["context"], event["interrupt"], said), 1]
    else:
        segments = [(a / 1000, b / 1000) for a, b in speech_segments(wave, vad)]
        row["segments"] = segments
        if task == "overlap":
            user = _span(event, item)
            for key, value in (
                ("stop_latency", measure.stop_latency(segments, user)),
                ("response_latency", measure.response_latency(segments, user)),
            ):
                if value is not None:
                    found[key] = [value, 1]
            scenario = _scenario(item)
            row["task"] = task if scenario is None else f"{task}: {scenario[0]}"
            if grader is not None:
                row["behaviour"] = did = _behaviour(grader, event, words, user[0])
                found |= {f"overlap_{name}": [float(name == did), 1] for name in BEHAVIOURS}
                if scenario is not None:
                    found["overlap_right"] = [float(did == scenario[1]), 1]
        else:
            duration = len(wave) / RATE
            given, taken = measure.back_channels(segments, words)
            found["backchannel_tor"] = [taken, 1]
            found["backchannel_frequency"] = [measure.frequency(given, duration), 1]
            if item.name in people:
                found["backchannel_jsd"] = [measure.divergence(given, duration, people[item.name]), 1]
    return row


def _scenario(item: Path) -> tuple[str, str] | None:
    """Of v1.5, by the folder above (``user_interruption``, ``talking_to_other``) or its own name."""
    names = (item.parent.name.lower(), item.name.lower())
    return next(
        (found for name in names for key, found in SCENARIOS.items() if key in name.replace("back_", "back")), None
    )


def _behaviour(grader: EndpointJudge, event: dict[str, Any], words: list[TimedWord], start_s: float) -> str:
    """What a system did from the moment on at which it was talked over; nothing at all is nothing known."""
    before = " ".join(word.text for word in words if word.start_s < start_s)
    then = " ".join(word.text for word in measure.after(words, start_s))
    if not then:
        return "unknown"
    return grader.behaviour(str(event.get("context_text", "")), str(event.get("current_turn_text", "")), before, then)


def _words(folder: Path, wave: np.ndarray, recogniser: Recogniser) -> list[TimedWord]:
    """From output.json, or recognised and written there."""
    path = folder / "output.json"
    if not path.is_file():
        words = recogniser.words(wave)
        chunks = [{"text": word.text, "timestamp": [word.start_s, word.end_s]} for word in words]
        found = {"text": " ".join(word.text for word in words), "chunks": chunks}
        write_json(path, found)
        return words
    stored = read_json(path)
    words = []
    for chunk in stored.get("chunks", []) if isinstance(stored, dict) else []:
        start, end = chunk["timestamp"]
        if start is not None:  # some recognisers leave out times that they do not know
            words.append(TimedWord(str(chunk["text"]).strip(), float(start), float(start if end is None else end)))
    return words


def _event(folder: Path) -> tuple[str, dict[str, Any]]:
    for name, task in EVENTS.items():
        if (folder / name).is_file():
            found = read_json(folder / name)
            event = found[0] if isinstance(found, list) and found else found
            if not isinstance(event, dict):
                raise DuologueError(f"{folder / name}: expected an object or a list of one, found {str(found)[:60]}")
            return task, event
    return BACK_CHANNEL, {}


def _span(event: dict[str, Any], folder: Path) -> tuple[float, float]:
    times = event.get("timestamps", event.get("timestamp"))
    if not isinstance(times, list) or not times or not all(isinstance(t, int | float) for t in times):
        raise DuologueError(f"the event of {folder} has no timestamp [start, end] in seconds, but {times!r}")
    return float(times[0]), float(times[-1])


def _people(root: Path) -> dict[str, list[float]]:
    """When people gave back-channels, by the dialogue's name, if the benchmark's file is in the root or beside it."""
    for path in (root / _PEOPLE, root.parent / _PEOPLE):
        if path.is_file():
            return {str(name): list(fractions) for name, fractions in read_json(path).items()}
    return {}


def _play(assistant: Assistant, item: Path, played: Path, config: SessionConfig, vad: Streaming) -> None:
    """One session's answer to input.wav, as long as it."""
    session = Session(assistant, config, vad)
    wave = read_audio(item / "input.wav", session.input_rate)
    padded = np.pad(wave, (0, -len(wave) % session.frame))
    parts = [session.tick(padded[at : at + session.frame]).pcm for at in range(0, len(padded), session.frame)]
    said = resampled(np.concatenate(parts), session.output_rate, RATE)
    played.mkdir(parents=True, exist_ok=True)
    write_wav(played / "output.wav", said[: len(wave) * RATE // session.input_rate], RATE)
    (played / "output.json").unlink(missing_ok=True)  # of an output before


def _tasks(parts: Parts) -> Section:
    rows = [
        (task.replace("_", " "), found.metric.name, number(found.value, found.metric.unit), str(found.count))
        for task, findings in parts
        for found in findings
        if found.count
    ]
    return Section(title="By task", body=table(("task", "measure", "value", "over"), rows, (2, 3)))


def _examples(task: str, rows: list[Row], data: Path, played: Path) -> Section:
    cards = []
    for row in rows[:_SHOWN]:
        shown = [(key.replace("_", " "), number(a / w)) for key, (a, w) in row["measures"].items()]
        files = {name: where / row["id"] / f"{name}.wav" for name, where in (("input", data), ("output", played))}
        waves = sounds({name: partial(Path, file) for name, file in files.items()})
        cards.append(example([(row["id"], row["said"] or "–"), *shown], waves))
    return Section(title=f"Dialogues: {task.replace('_', ' ')}", body="".join(cards))
