"""Utterances in a row as one long recording: how a model copes with speech that it must cut at its pauses itself."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ....data_prep.audio import read_audio
from ....data_prep.datasets.speech_sets import Utterance
from ....model.errors import DuologueError

RATE = 16_000
PAUSE_S = 0.6  # between two utterances


def join(utterances: Sequence[Utterance], count: int, pause_s: float = PAUSE_S) -> list[Utterance]:
    """Every ``count`` utterances of a set as one, in their order, with pauses between; a set's last may be fewer.

    Raises:
        DuologueError: a pause below 0, or above 10 seconds.
    """
    if not 0 <= pause_s <= 10:
        raise DuologueError(f"pause is {pause_s}; it must be 0 to 10 seconds")
    if count == 1:
        return list(utterances)
    sets: dict[str, list[Utterance]] = {}
    for utterance in utterances:
        sets.setdefault(utterance.set, []).append(utterance)
    return [_joined(rows[at : at + count], pause_s) for rows in sets.values() for at in range(0, len(rows), count)]


def _joined(parts: Sequence[Utterance], pause_s: float) -> Utterance:
    def sound() -> tuple[int, np.ndarray]:
        pause = np.zeros(round(pause_s * RATE), np.float32)
        waves = [piece for part in parts for piece in (pause, read_audio(part.sound(), RATE))]
        return RATE, np.concatenate([*waves[1:], pause])

    return Utterance(
        id=f"{parts[0].id}+{len(parts) - 1}", text=" ".join(part.text for part in parts), set=parts[0].set, sound=sound
    )
