"""Who speaks when: scripted dialogues played to a system that listens while it speaks.

    SCENE/input.wav     what the microphone hears, 16 kHz
    SCENE/scene.json    the truth: who says what from when to when
    SCENE/output.wav    what the loudspeaker said meanwhile, as long as the input
    SCENE/events.jsonl  of our own sessions: what happened, in stream time

A foreign system is judged by its output.wav alone: where silero hears speech in it and what pocketsphinx understands.
Our own is judged by the same, with the text of its answers from the events.

Source: Full-Duplex-Bench (arXiv 2503.04721), section 4: a take-over is more than three words or a second of speech, for
what is shorter may be an "uh huh". Where events say that it was an answer, it is one however short ("snow is white"),
to a question and to what is nobody's question alike.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ....checkpoints.files import read_json, write_json
from ....checkpoints.recognisers.recogniser import Recogniser, find_recogniser
from ....data_prep.audio import read_audio, resampled, write_wav
from ....data_prep.speech.engine import SAMPLE_RATE, Voice
from ....data_prep.speech.synthesis import require
from ....data_prep.speech.voices import find_voices
from ....data_prep.text.spoken import normalise
from ....model.errors import DuologueError
from ....model.streaming import Streaming
from ...assistant.assistant import Assistant, load
from ...front_end.speech_gate import WINDOW_MS, GateConfig, SpeechGate
from ...session.events import Event, EventKind, read_events, write_events
from ...session.policy import FRAME_MS, PRESETS
from ...session.session import Session
from ...session.state import SessionConfig
from ..inputs.loudspeaker import Microphone
from ..inputs.scenes import ECHOING, Scene, SceneKind, render
from ..judges.slots import is_right
from ..metrics.duplex import METRICS, measures
from ..metrics.statistics import fraction, measured, percentiles
from ..report.duplex import sections
from ..report.reporting import finish, good_rows
from ..report.run_folder import Row, progress, resume_rows

Segment = tuple[int, int]  # ms

_JOIN_MS = 320  # a shorter gap is inside one utterance
_GOES_ON_MS = 400  # of speech after a disturbance: the answer was not given up
_OVER = (
    SceneKind.BACK_CHANNEL, SceneKind.COUGH, SceneKind.INTERRUPTION, SceneKind.STOP, SceneKind.RECALL,
    SceneKind.ECHO_INTERRUPTION,
)  # fmt: skip


def run(
    *,
    model: str | Assistant | None = None,
    out: Path,
    outputs: Path | None = None,
    export: bool = False,
    profile: str = "quick",
    voices: str | None = None,
    scenes: int | None = None,
    kinds: tuple[str, ...] = (),
    preset: str = "balanced",
    without: tuple[str, ...] = (),
    seed: int = 0,
    quiet: bool = False,
) -> dict[str, Any]:
    """Play scenes to ``model``, judge what it did, and write ``out``/report.json and report.html.

    Args:
        scenes: how many of each kind; quick: 4, card: 34.
        kinds: of which kinds; none: of all. Scenes with an echo are for our own sessions alone.
        preset: whose waits the session keeps.
        without: what the session does without, to see what it brings: speculation, monitor, words or echo.
        outputs: a folder of scenes in which another system left its output.wav files: play nothing, judge those.
        export: only write the scenes into ``out``, for another system to play.

    Raises:
        DuologueError: an unknown profile, kind, preset or voice, a missing synthesiser or output.wav.
    """
    if profile not in ("quick", "card"):
        raise DuologueError(f"unknown profile {profile!r}: the profiles are quick, card")
    if preset not in PRESETS:
        raise DuologueError(f"there is no preset {preset!r}; it must be {', '.join(PRESETS)}")
    config = session_without(SessionConfig(duplex=PRESETS[preset]), without)
    count = scenes or {"quick": 4, "card": 34}[profile]
    out.mkdir(parents=True, exist_ok=True)
    items: list[Any]  # scenes to make, or folders of scenes that are there
    if outputs is not None:
        items = sorted(path.parent for path in outputs.glob("*/scene.json"))
        if not items:
            raise DuologueError(f"{outputs} holds no scenes: make some with export=true, and play them to the system")
        speakers: tuple[Voice, ...] = ()
    else:
        speakers = find_voices(voices or {"quick": "dev", "card": "flite:awb,flite:slt,festival:ked_diphone"}[profile])
        require(*{voice.engine for voice in speakers})
        chosen = [kind for kind in _kinds(kinds) if not (export and kind in ECHOING)]
        items = [(kind, index) for index in range(count) for kind in chosen]
    if export:
        for kind, index in progress(items, "writing", 0, len(items), quiet):
            scene = render(kind, index, seed, speakers)
            write_scene(scene, out / scene.name)
        return {"scenes": len(items)}
    from ....checkpoints.importers.silero_vad import load_vad

    vad, recogniser = load_vad(), find_recogniser()
    assistant = load(model or "nano") if not isinstance(model, Assistant) and outputs is None else model

    def work(at: int, item: Any) -> Row:
        costs: list[float] = []
        if outputs is not None:
            scene, folder = read_scene(item), item
        else:
            assert isinstance(assistant, Assistant)
            kind, index = item
            scene = render(kind, index, seed, speakers)
            folder = out / scene.name
            write_scene(scene, folder)
            costs = play(assistant, scene, folder, config, vad)
        turn_state = judge(scene, folder, vad, recogniser)
        audible = [e.at_ms for e in read_events(folder / "events.jsonl") if e.kind is EventKind.ANSWER_AUDIBLE]
        if costs and audible and scene.kind is SceneKind.QUESTION:
            turn_state["compute_ms"] = lateness(costs, FRAME_MS)[audible[-1] // FRAME_MS]
        return turn_state | {"id": scene.name, "measures": measures(turn_state), "tick_ms": costs}

    def name(item: Any) -> str:
        return item.name if outputs is not None else f"{item[0].value}-{seed}-{item[1]:04d}"

    rows = resume_rows(out / "judged.jsonl", "playing", items, work, quiet, name)
    good = good_rows(rows)
    settings = {"suite": "duplex", "profile": profile, "voices": [v.key for v in speakers],
                "scenes": count if outputs is None else len(items), "kinds": list(kinds),
                "preset": None if outputs else preset, "without": list(without),
                "outputs": None if outputs is None else str(outputs), "seed": seed}  # fmt: skip
    found = summarise(good)
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
    session = Session(assistant, config, vad)
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


def speech_segments(waveform: np.ndarray, vad: Streaming) -> list[Segment]:
    """Where silero hears speech in (n,) samples at 16 kHz: [start, end) in ms, gaps below _JOIN_MS closed."""
    with torch.inference_mode():
        probabilities = vad(torch.from_numpy(waveform)[None])[0].tolist()
    gate, segments = SpeechGate(GateConfig(threshold=0.5, release=0.35, onset_ms=2 * WINDOW_MS)), []
    for probability in [*probabilities, 0.0]:
        was_open = gate.open
        gate.push(probability)
        if gate.open and not was_open:
            segments.append((gate.now_ms - gate.speech_ms, gate.now_ms))
        elif gate.open:
            segments[-1] = (segments[-1][0], gate.now_ms)
    joined: list[Segment] = []
    for start, end in segments:
        if joined and start - joined[-1][1] < _JOIN_MS:
            joined[-1] = (joined[-1][0], end)
        else:
            joined.append((start, end))
    return joined


def judge(scene: Scene, folder: Path, vad: Streaming, recogniser: Recogniser) -> Row:
    """What the system did in a scene, from its output.wav (and its events, where there are some).

    Raises:
        DuologueError: there is no output.wav.
    """
    path = folder / "output.wav"
    if not path.is_file():
        raise DuologueError(
            f"there is no {path}: play {folder / 'input.wav'} to the system and write what it says there"
        )
    said = read_audio(path, SAMPLE_RATE)
    events = read_events(folder / "events.jsonl")
    segments = speech_segments(said, vad)
    user = [span for span in scene.spans if not span.text.startswith("[")]
    row: Row = {
        "name": scene.name,
        "kind": scene.kind.value,
        "voice": scene.voice,
        "segments": [list(s) for s in segments],
    }
    end = user[-1].end_ms if user else 0

    def words(start_ms: int, end_ms: int | None = None) -> str:
        cut = said[start_ms * SAMPLE_RATE // 1000 : None if end_ms is None else end_ms * SAMPLE_RATE // 1000]
        return recogniser(cut)

    def took_over(start_ms: int) -> bool:
        if any(e.kind is EventKind.ANSWER_AUDIBLE and e.at_ms >= start_ms for e in events):
            return True
        spoken = sum(b - max(a, start_ms) for a, b in segments if b > start_ms)
        return spoken >= 1000 or (spoken > 0 and len(words(start_ms).split()) > 3)

    def answer(after_ms: int) -> str:
        written = [e.text for e in events if e.kind is EventKind.ANSWER_TEXT and e.at_ms >= after_ms]
        return " ".join(written) if events else words(after_ms)

    if scene.kind in (SceneKind.NOISE, SceneKind.TALKER, SceneKind.STATEMENT):
        return row | {"answered": took_over(0)}
    first = scene.turns[0]
    if scene.kind in _OVER:
        onset, over = scene.spans[1].start_ms, scene.spans[1].end_ms
        speaking = next(((a, b) for a, b in segments if a < onset < b), None)
        row |= {"valid": speaking is not None}
        if speaking is None:
            return row  # it was not speaking when it was disturbed: nothing can be said
        after = sum(b - max(a, over) for a, b in segments if b > over)
        goes_on = after >= _GOES_ON_MS
        if scene.kind in (SceneKind.BACK_CHANNEL, SceneKind.COUGH):
            if events:  # they say so; else it may have been over
                return row | {"given_up": any(e.kind is EventKind.INTERRUPTED and e.at_ms >= onset for e in events)}
            return row | {
                "given_up": not goes_on and not is_right(answer(0), first.answer, first.slot, by_recogniser=True)
            }
        row |= {"stop_ms": speaking[1] - onset}
        if scene.kind is SceneKind.ECHO_INTERRUPTION:
            row |= {"stopped": any(e.kind is EventKind.INTERRUPTED and e.at_ms >= onset for e in events)}
        if scene.kind is SceneKind.STOP:
            return row | {"obeyed": after < 1000}
        if scene.kind is SceneKind.RECALL:
            told = [e.text for e in events if e.kind is EventKind.INTERRUPTED and e.at_ms >= onset]
            heard = told[0] if told else words(speaking[0], speaking[1])
            return row | {"heard": heard, "again": answer(over), "consistent": recalls(answer(over), heard, bool(told))}
        second = scene.turns[1]
        return row | {
            "taken": took_over(over),
            "right": is_right(answer(over), second.answer, second.slot, by_recogniser=not events),
            "response_ms": next((a - over for a, _ in segments if a > over), None),
        }
    row |= {
        "taken": took_over(end),
        "right": is_right(answer(end), first.answer, first.slot, by_recogniser=not events),
        "response_ms": next((max(0, a - end) for a, b in segments if b > end), None),
        "interrupted": sum(e.kind is EventKind.INTERRUPTED for e in events),
        "ducked": sum(e.kind is EventKind.DUCKED for e in events),
        "echo_answered": sum(e.kind is EventKind.ANSWER_STARTED for e in events) > 1,
    }
    decided = [e.at_ms for e in events if e.kind is EventKind.ANSWER_STARTED and e.at_ms >= end]
    audible = [e.at_ms for e in events if e.kind is EventKind.ANSWER_AUDIBLE and e.at_ms >= end]
    row |= {"endpoint_ms": decided[0] - end if decided else None, "audible_ms": audible[0] - end if audible else None}
    if scene.kind is SceneKind.PAUSE:
        row |= {"early": any(user[0].end_ms < a < end for a, _ in segments)}
    return row


def recalls(again: str, heard: str, exact: bool) -> bool:
    """Whether what is said again is what was heard: at least half of it and nothing more, word for word if ``exact``.

    Transcribed by a recogniser, half of the words may be wrong, and one may be added.
    """
    said, wanted = normalise(again).split(), normalise(heard).split()
    if not said or len(said) > len(wanted) + (not exact) or 2 * len(said) < len(wanted):
        return False
    starts = range(len(wanted) - len(said) + 1) if len(said) <= len(wanted) else (0,)
    missed = min(sum(a != b for a, b in zip(said, wanted[start:], strict=False)) for start in starts)
    return missed <= (0 if exact else len(said) // 2)


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
    }


def lines(found: dict[str, Any]) -> list[tuple[str, str]]:
    """The figures as (name, value), for people."""
    out = []
    for name, value in found.items():
        if isinstance(value, dict) and "p50" in value:
            text = "–" if value["p50"] is None else f"{value['p50']:.0f} / {value['p95']:.0f} ms (median, 95th)"
        elif isinstance(value, dict):
            text = ", ".join(f"{key} {'–' if v is None else round(v, 3)}" for key, v in value.items())
        else:
            text = "–" if value is None else f"{100 * value:.1f} %"
        out.append((name.replace("_", " "), text))
    return out
