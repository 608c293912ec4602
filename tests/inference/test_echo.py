"""An echo is known from its first frame; a person is not taken for one, also over an echo."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from duologue.inference.echo import EchoGuard

FRAME, REACH = 1_280, 6_400


def levels(microphone: np.ndarray, loudspeaker: np.ndarray) -> list[float]:
    """What the guard says frame by frame; the loudspeaker's frame t is played while the microphone's t + 1 is heard."""
    guard, said = EchoGuard.begin(FRAME, REACH), []
    for at in range(0, len(microphone), FRAME):
        said.append(guard.hear(torch.from_numpy(microphone[at : at + FRAME].astype(np.float32))))
        guard.play(torch.from_numpy(loudspeaker[at : at + FRAME].astype(np.float32)))
    return said


def voice(seed: int, frames: int = 20) -> np.ndarray:
    """Coloured noise in syllables."""
    rng = np.random.default_rng(seed)
    noise = np.convolve(rng.standard_normal(frames * FRAME), np.ones(8) / 8, "same")
    return 0.2 * noise * (1 + np.sin(np.arange(len(noise)) / 800.0)) / 2


def echo(played: np.ndarray, delay_ms: int, db: float) -> np.ndarray:
    late = FRAME + delay_ms * 16
    return 10 ** (db / 20) * np.concatenate([np.zeros(late), played])[: len(played)]


@pytest.mark.parametrize("delay_ms", [0, 20, 137, 300, 400])
@pytest.mark.parametrize("db", [-10, -20, -40])
def test_an_echo_is_known(delay_ms: int, db: float) -> None:
    played = voice(0)
    room = 3e-5 * np.random.default_rng(9).standard_normal(len(played))
    said = levels(echo(played, delay_ms, db) + room, played)
    first = 1 + delay_ms * 16 // FRAME
    assert min(said[first + 1 : -1]) > 0.6 and max(said[:1]) < 0.01


def test_a_person_is_no_echo() -> None:
    played, person = voice(0), voice(1)
    assert max(levels(person, played)) < 0.1
    assert max(levels(person + echo(played, 100, -20), played)) < 0.15, "also over an echo"
    assert levels(person, np.zeros_like(played)) == [0.0] * 20
    assert levels(np.zeros_like(person), played) == [0.0] * 20
