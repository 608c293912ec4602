"""`duologue listen`: a recording played to a session, and what it said meanwhile, sample by sample as long."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from ...data_prep.audio import AudioSource, read_audio, write_wav
from ..assistant.assistant import Assistant
from .events import Tick, write_events
from .session import Session
from .state import SessionConfig


def replay(session: Session, waveform: np.ndarray) -> Iterator[Tick]:
    """The ticks of a whole recording (n,), which is filled up with silence to whole frames."""
    padded = np.pad(waveform.astype(np.float32), (0, -len(waveform) % session.frame))
    for start in range(0, len(padded), session.frame):
        yield session.tick(padded[start : start + session.frame])


def converse(
    assistant: Assistant,
    recording: AudioSource,
    output: Path,
    events: Path | None = None,
    config: SessionConfig | None = None,
    say: Callable[[str], None] | None = None,
) -> None:
    """Play a recording to a session: write what it says, sample by sample as long, and what happened as JSON lines.

    say: is given a readable line an event.

    Raises:
        DuologueError: the recording cannot be used, or a file cannot be written.
    """
    from rich.console import Console
    from rich.progress import Progress

    session = Session(assistant, config)
    waveform = read_audio(recording, session.input_rate)
    played, happened = [], []
    with Progress(console=Console(stderr=True), transient=True) as progress:
        bar = progress.add_task("listening", total=len(waveform))
        for tick in replay(session, waveform):
            played.append(tick.pcm)
            happened += tick.events
            progress.advance(bar, session.frame)
            for event in tick.events:
                if say is not None:
                    say(f"{event.at_ms / 1000:8.2f} s  {event.kind.value.replace('_', ' '):<16}{event.text}".rstrip())
    length = len(waveform) * session.output_rate // session.input_rate
    write_wav(output, np.concatenate(played)[:length], session.output_rate)
    if events is not None:
        write_events(events, happened)
