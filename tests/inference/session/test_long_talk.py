"""A conversation with the bundled nano that goes on and on: at its end it still answers as at its beginning."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

import duologue
from duologue.data_prep.audio import read_audio
from duologue.inference.session.events import EventKind

ASSETS = sorted((Path(duologue.__file__).parent / "demo/assets/examples").glob("*.flac"))
FRAME = 1_280


@pytest.mark.slow
def test_a_quarter_of_an_hour_does_not_make_it_deaf() -> None:
    """With 1,024 positions of past turns nano took everybody for noise after ten minutes, and went on to."""
    sounds = [read_audio(path, 16_000) for path in ASSETS]
    parts = [np.pad(np.pad(sound, (0, len(sound))), (0, -2 * len(sound) % FRAME)) for sound in sounds]
    frames = np.concatenate(parts).astype(np.float32).reshape(-1, FRAME)
    session, minutes = duologue.Session(duologue.load("nano")), []
    for minute in range(15):
        found: Counter[EventKind] = Counter()
        for at in range(750 * minute, 750 * (minute + 1)):
            found.update(event.kind for event in session.tick(frames[at % len(frames)]).events)
        minutes.append((found[EventKind.ANSWER_AUDIBLE], found[EventKind.TURN_IGNORED]))
    answered, ignored = (sum(column) for column in zip(*minutes, strict=True))
    assert ignored < 0.1 * answered, minutes
    assert sum(row[0] for row in minutes[-5:]) > 0.8 * sum(row[0] for row in minutes[:5]), minutes
