"""Who speaks when: scripted dialogues played to a system that listens while it speaks.

    SCENE/input.wav     what the microphone hears, 16 kHz
    SCENE/scene.json    the truth: who says what from when to when
    SCENE/output.wav    what the loudspeaker said meanwhile, as long as the input
    SCENE/events.jsonl  of our own sessions: what happened, in stream time

How they are judged: :mod:`..judges.scenes`.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ....checkpoints.files import read_json, write_json
from ....checkpoints.recognisers.recogniser import (
    ENGLISH,
    POCKETSPHINX,
    find_recogniser,
    usual_recogniser,
)
from ....data_prep.audio import read_audio, resampled, write_wav
from ....data_prep.speech.engine import SAMPLE_RATE, Voice
from ....data_prep.speech.synthesis import require
from ....data_prep.speech.voices import find_voices
from ....model.errors import DuologueError
from ....model.streaming import Streaming
from ...assistant.assistant import Assistant
from ...session.events import Event, EventKind, read_events, write_events
from ...session.notes import notes
from ...session.policy import FRAME_MS, PRESETS
from ...session.session import Session
from ...session.state import SessionConfig
from ..inputs.loudspeaker import Microphone
from ..inputs.material import Material
from ..inputs.questions import BUNDLED
from ..inputs.scenes import ECHOING, Scene, SceneKind, render
from ..judges.scenes import judge
from ..metrics.duplex import METRICS, measures
from ..metrics.statistics import fraction, measured, percentiles
from ..report.duplex import sections
from ..report.reporting import finish, good_rows
from ..report.run_folder import Row, loaded, open_folder, progress, resume_rows


def run(
    *,
    model: str | Assistant | None = None,
    out: Path,
    outputs: Path | None = None,
    data: str | Path = BUNDLED,
    statements: Path | None = None,
    export: bool = False,
    profile: str = "quick",
    voices: str | None = None,
    scenes: int | None = None,
    kinds: tuple[str, ...] = (),
    preset: str = "balanced",
    without: tuple[str, ...] = (),
    recogniser: str | None = None,
    language: str = ENGLISH,
    seed: int = 0,
    quiet: bool = False,
) -> dict[str, Any]:
    """Play scenes to ``model``, judge what it did, and write ``out``/report.json and report.html.

    Args:
        data: the question set that is asked from, by its name or file.
        statements: a file of statements that need no answer, one a line; None: the question set's own, else English
            ones.
        scenes: how many of each kind; quick: 4, card: 34.
        kinds: of which kinds; none: of all. Scenes with an echo are for our own sessions alone.
        preset: whose waits the session keeps.
        without: what the session does without, to see what it brings: speculation, monitor, words or echo.
        recogniser, language: of the answers' speech (see :func:`find_recogniser`).
        outputs: a folder of scenes in which another system left its output.wav files: play nothing, judge those.
        export: only write the scenes into ``out``, for another system to play.

    Raises:
        DuologueError: an unknown profile, kind, preset, voice or question set, a missing synthesiser or output.wav.
    """
    if profile not in ("quick", "card"):
        raise DuologueError(f"unknown profile {profile!r}: the profiles are quick, card")
    if preset not in PRESETS:
        raise DuologueError(f"there is no preset {preset!r}; it must be {', '.join(PRESETS)}")
    config = session_without(SessionConfig(duplex=PRESETS[preset]), without)
    count = scenes or {"quick": 4, "card": 34}[profile]
    items: list[Any]  # scenes to make, or folders of scenes that are there
    if outputs is not None:
        items = sorted(path.parent for path in outputs.glob("*/scene.json"))
        if not items:
            raise DuologueError(f"{outputs} holds no scenes: make some with export=true, and play them to the system")
        speakers, material = tuple[Voice, ...](), None
    else:
        material = Material(data, statements)
        speakers = find_voices(voices or {"quick": "dev", "card": "flite:awb,flite:slt,festival:ked_diphone"}[profile])
        require(*{voice.engine for voice in speakers})
        chosen = [kind for kind in _kinds(kinds) if not (export and kind in ECHOING)]
        items = [(kind, index) for index in range(count) for kind in chosen]
    if export:
        assert material is not None
        out.mkdir(parents=True, exist_ok=True)
        for kind, index in progress(items, "writing", 0, len(items), quiet):
            scene = render(kind, index, seed, speakers, material)
            write_scene(scene, out / scene.name)
        return {"scenes": len(items)}
    from ....checkpoints.importers.silero_vad import load_vad

    vad, hearing = load_vad(), find_recogniser(recogniser, language)
    assistant, source = (None, None) if outputs is not None else loaded(model or BUNDLED)
    settings: dict[str, Any] = {
        "suite": "duplex", "profile": profile, "model": source, "voices": [v.key for v in speakers],
        "scenes": count if outputs is None else len(items), "kinds": list(kinds),
        "preset": None if outputs else preset, "without": list(without),
        "outputs": None if outputs is None else str(outputs), "seed": seed,
    }  # fmt: skip
    usual = {"data": BUNDLED, "statements": None, "recogniser": POCKETSPHINX, "language": ENGLISH}
    given = {"data": str(data), "statements": statements and str(statements),
             "recogniser": recogniser or usual_recogniser(), "language": language}  # fmt: skip
    settings |= {name: value for name, value in given.items() if value != usual[name]}  # reports of before lack them
    open_folder(out, settings)

    def work(at: int, item: Any) -> Row:
        costs: list[float] = []
        if outputs is not None:
            scene, folder = read_scene(item), item
        else:
            assert assistant is not None and material is not None
            kind, index = item
            scene = render(kind, index, seed, speakers, material)
            folder = out / scene.name
            write_scene(scene, folder)
            costs = play(assistant, scene, folder, config, vad)
        turn_state = judge(scene, folder, vad, hearing)
        audible = [e.at_ms for e in read_events(folder / "events.jsonl") if e.kind is EventKind.ANSWER_AUDIBLE]
        if costs and audible and scene.kind is SceneKind.QUESTION:
            turn_state["compute_ms"] = lateness(costs, FRAME_MS)[audible[-1] // FRAME_MS]
        return turn_state | {"id": scene.name, "measures": measures(turn_state), "tick_ms": costs}

    def name(item: Any) -> str:
        return item.name if outputs is not None else f"{item[0].value}-{seed}-{item[1]:04d}"

    rows = resume_rows(out / "judged.jsonl", "playing", items, work, quiet, name)
    good = good_rows(rows)
    found = summarise(good) | {"session": [] if assistant is None else notes(assistant.model)}
    shown = sections(good, lines(found), outputs or out)
    kept = [{key: value for key, value in row.items() if key != "tick_ms"} for row in rows]
    return finish(out, "Who speaks when", settings, METRICS, kept, shown, details=found, quiet=quiet)


def _kinds(names: Sequence[str]) -> list[SceneKind]:
    known = {kind.value: kind for kind in SceneKind}
    for name in names:
        if name not in known:
            raise DuologueError(f"there are no scenes of kind {name!r}; the kinds are {', '.join(known)}")
    return [known[name] for name in names] or list(SceneKind)


def session_without(config: SessionConfig, parts: Sequence[str]) -> SessionConfig:
    """The session that does without so many of its parts."""
    lacking: dict[str, dict[str, Any]] = {
        "speculation": {"duplex": replace(config.duplex, speculate_ms=0)},
        "monitor": {"monitor": False},
        "words": {"word_monitor": False},
        "echo": {"echo": 1.0},
    }
    for part in filter(None, parts):
        if part not in lacking:
            raise DuologueError(f"a session cannot do without {part!r}; it can without {', '.join(lacking)}")
        config = replace(config, **lacking[part])
    return config


def write_scene(scene: Scene, folder: Path) -> None:
    """The input and its truth."""
    folder.mkdir(parents=True, exist_ok=True)
    write_wav(folder / "input.wav", scene.pcm, SAMPLE_RATE)
    write_json(folder / "scene.json", scene.truth())


def read_scene(folder: Path) -> Scene:
    """What :func:`write_scene` wrote. Raises DuologueError where it cannot be read."""
    try:
        return Scene.from_truth(read_json(folder / "scene.json"),
                                read_audio(folder / "input.wav", SAMPLE_RATE))  # fmt: skip
    except DuologueError:
        raise
    except (ValueError, KeyError, TypeError, OSError) as error:
        raise DuologueError(f"{folder / 'scene.json'} is no scene: {error!r}") from None


def play(assistant: Assistant, scene: Scene, folder: Path, config: SessionConfig, vad: Streaming) -> list[float]:
    """Play a scene to a session of its own, in a loop where it has an echo; the wall clock of each tick in ms."""
    instructions = next((turn.system for turn in scene.turns if turn.system), "")
    session = Session(assistant, replace(config, instructions=instructions), vad)
    wave = read_audio(folder / "input.wav", session.input_rate)
    wave = np.pad(wave, (0, -len(wave) % session.frame))
    microphone = Microphone(scene.echo, len(wave))
    played, costs = [], []
    events: list[Event] = []
    for at in range(0, len(wave), session.frame):
        heard = microphone.hear(wave[at : at + session.frame], at)
        started = time.perf_counter()
        tick = session.tick(heard)
        costs.append(1e3 * (time.perf_counter() - started))
        if scene.echo is not None:
            microphone.play(resampled(tick.pcm, session.output_rate, session.input_rate), at + session.frame)
        played.append(tick.pcm)
        events += tick.events
    write_wav(folder / "output.wav", np.concatenate(played), session.output_rate)
    write_events(folder / "events.jsonl", events)
    return costs


def lateness(costs: Sequence[float], tick_ms: int) -> list[float]:
    """How late each tick would be done, in ms, were they paced by a clock: each begins when it has been heard whole."""
    late, done = [], 0.0
    for number, cost in enumerate(costs, start=1):
        done = max(done, number * tick_ms) + cost
        late.append(done - number * tick_ms)
    return late


def summarise(rows: Sequence[Row]) -> dict[str, Any]:
    """Fractions of the scenes of a kind in which something happened, and milliseconds.

    Over an answer only the scenes count in which it was being spoken (`valid`).
    """
    of = {kind: [row for row in rows if row["kind"] == kind.value and row.get("valid", True)] for kind in SceneKind}
    found: dict[str, Any] = {}
    for key in dict.fromkeys(metric.key for metric in METRICS):
        amounts = [amount for amount, _ in measured(rows, key)]
        found[key] = percentiles(amounts) if key.endswith("_ms") else fraction(amounts)
    costs = [cost for row in rows for cost in row["tick_ms"]]
    return found | {
        "ignorable_answered_by_kind": {
            kind.value: fraction(row["answered"] for row in of[kind])
            for kind in (SceneKind.NOISE, SceneKind.TALKER, SceneKind.STATEMENT)
        },
        "audible_ms": percentiles([row["audible_ms"] for row in of[SceneKind.QUESTION]]),
        "tick_ms": percentiles(costs) | {"p99": float(np.percentile(costs, 99)) if costs else None},
        "valid": {kind.value: len(of[kind]) for kind in SceneKind},
        "notes": {note: sorted({row["kind"] for row in rows if row.get("note") == note})
                  for note in sorted({row["note"] for row in rows if row.get("note")})},
    }  # fmt: skip


def lines(found: dict[str, Any]) -> list[tuple[str, str]]:
    """The figures as (name, value), for people."""
    out = []
    for name, value in found.items():
        if name == "session":
            out += [("session", line) for line in value]
            continue
        if name == "notes":
            out += [(f"scenes of {', '.join(kinds)}".replace("_", " "), note) for note, kinds in value.items()]
            continue
        if isinstance(value, dict) and "p50" in value:
            text = "–" if value["p50"] is None else f"{value['p50']:.0f} / {value['p95']:.0f} ms (median, 95th)"
        elif isinstance(value, dict):
            text = ", ".join(f"{key} {'–' if v is None else round(v, 3)}" for key, v in value.items())
        else:
            text = "–" if value is None else f"{100 * value:.1f} %"
        out.append((name.replace("_", " "), text))
    return out
