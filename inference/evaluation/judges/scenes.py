"""What a system did in a scene, from what its loudspeaker said.

A foreign system is judged by its output.wav alone: where silero hears speech in it and what a recogniser understands.
Our own is judged by the same, with the text of its answers from the events. Right is an answer that holds its
question's slot; of a set without slots it is known that a question was answered, and not whether it was right.

Source: Full-Duplex-Bench (arXiv 2503.04721), section 4: a take-over is more than three words or a second of speech, for
what is shorter may be an "uh huh". Where events say that it was an answer, it is one however short ("snow is white"),
to a question and to what is nobody's question alike.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from ....checkpoints.recognisers.recogniser import Recogniser
from ....data_prep.audio import read_audio
from ....data_prep.datasets.question_sets import Dialogue
from ....data_prep.speech.engine import SAMPLE_RATE
from ....data_prep.text.spoken import normalise
from ....model.errors import DuologueError
from ....model.streaming import Streaming
from ...front_end.speech_gate import WINDOW_MS, GateConfig, SpeechGate
from ...session.events import EventKind, read_events, text_of
from ..inputs.scenes import Scene, SceneKind
from ..report.run_folder import Row
from .slots import is_right

Segment = tuple[int, int]  # ms

_JOIN_MS = 320  # a shorter gap is inside one utterance
_GOES_ON_MS = 400  # of speech after a disturbance: the answer was not given up
_OVER = (
    SceneKind.BACK_CHANNEL, SceneKind.COUGH, SceneKind.INTERRUPTION, SceneKind.STOP, SceneKind.RECALL,
    SceneKind.ECHO_INTERRUPTION,
)  # fmt: skip


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
    } | ({"note": scene.note} if scene.note else {})
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
        written = text_of((e for e in events if e.at_ms >= after_ms), EventKind.ANSWER_TEXT)
        return written if events else words(after_ms)

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
            return row | {"given_up": not goes_on and not _right(answer(0), first, True)}
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
            "right": _right(answer(over), second, not events),
            "response_ms": next((a - over for a, _ in segments if a > over), None),
        }
    row |= {
        "taken": took_over(end),
        "right": _right(answer(end), first, not events),
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


def _right(reply: str, asked: Dialogue, by_recogniser: bool) -> bool | None:
    """Whether it holds the question's slot; None: it has none."""
    return is_right(reply, asked.answer, asked.slot, by_recogniser=by_recogniser) if asked.slot else None


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
