"""What happens in a full-duplex conversation, stamped in stream time; and as lines of a file."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Self

import numpy as np

from ...checkpoints.files import read_json_lines, write_json_lines


class EventKind(Enum):
    """What happened."""

    SPEECH_STARTED = "speech_started"
    SPEECH_STOPPED = "speech_stopped"
    TURN_IGNORED = "turn_ignored"  # what was heard was nobody's turn
    USER_TEXT = "user_text"  # a piece of what the model heard
    MANNER = "manner"  # its text: in what manner the turn was spoken that is to be answered
    ANSWER_STARTED = "answer_started"  # it has been decided to answer
    ANSWER_TEXT = "answer_text"  # a piece of the answer
    ANSWER_CALL = "answer_call"  # a piece of the functions that it calls, as the model writes them
    TRANSCRIBED = "transcribed"  # there is no more of USER_TEXT
    ANSWER_AUDIBLE = "answer_audible"  # its first sample is played
    DUCKED = "ducked"
    RESUMED = "resumed"
    INTERRUPTED = "interrupted"  # its text: as much of the answer as was heard
    ANSWER_FINISHED = "answer_finished"


@dataclass(frozen=True)
class Event:
    """Something that happened at ``at_ms`` of the stream.

    glued: a piece of text that goes on with the last one without a space between.
    probabilities: of each manner, with its name.
    """

    kind: EventKind
    at_ms: int
    text: str = ""
    glued: bool = False
    probabilities: tuple[tuple[str, float], ...] = ()

    @classmethod
    def piece(cls, kind: EventKind, at_ms: int, text: str) -> Self:
        """Of a piece of text with the space before it."""
        return cls(kind, at_ms, text.removeprefix(" "), not text.startswith(" "))

    @property
    def delta(self) -> str:
        """The text with the space before it."""
        return self.text if self.glued else f" {self.text}"


@dataclass(frozen=True)
class Tick:
    """What one chunk of microphone brought: as long a chunk for the loudspeaker, (n,) float32, and events."""

    pcm: np.ndarray
    events: list[Event]


def write_events(path: Path, events: Iterable[Event]) -> None:
    """One JSON object a line: at_ms, kind, text; and where there are such, glued and probabilities."""
    write_json_lines(
        path,
        (
            {"at_ms": e.at_ms, "kind": e.kind.value, "text": e.text}
            | ({"glued": True} if e.glued else {})
            | ({"probabilities": dict(e.probabilities)} if e.probabilities else {})
            for e in events
        ),
    )


def read_events(path: Path) -> list[Event]:
    """What :func:`write_events` wrote; none where there is no such file."""
    rows = read_json_lines(path) if path.is_file() else []
    return [
        Event(
            EventKind(row["kind"]), row["at_ms"], row["text"], row.get("glued", False),
            tuple(row.get("probabilities", {}).items()),
        )
        for row in rows
    ]  # fmt: skip


def text_of(events: Iterable[Event], kind: EventKind) -> str:
    """The pieces of text of one kind, one after the other."""
    return "".join(event.delta for event in events if event.kind is kind).removeprefix(" ")
