"""An echo is taken out from its second loud frame on, however late it comes; a person stays, also over an echo."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from duologue.inference.evaluation.inputs.loudspeaker import Echo
from duologue.inference.front_end.echo import EchoGuard

FRAME, REACH = 1_280, 25_600


def run(microphone: np.ndarray, loudspeaker: np.ndarray, echo: float = 0.7) -> tuple[np.ndarray, list[bool]]:
    """The microphone without the echo, and of each frame whether only an echo was in it.

    The loudspeaker's frame t is played while the microphone's t + 1 is heard.
    """
    guard, clean, only = EchoGuard.begin(FRAME, REACH), [], []
    for at in range(0, len(microphone), FRAME):
        heard = guard.hear(torch.from_numpy(microphone[at : at + FRAME].astype(np.float32)), echo)
        guard.play(torch.from_numpy(loudspeaker[at : at + FRAME].astype(np.float32)))
        clean.append(heard.pcm.numpy())
        only.append(heard.echo)
    return np.concatenate(clean), only


def voice(seed: int, frames: int = 40) -> np.ndarray:
    """Coloured noise in syllables."""
    rng = np.random.default_rng(seed)
    noise = np.convolve(rng.standard_normal(frames * FRAME), np.ones(8) / 8, "same")
    return 0.2 * noise * (1 + np.sin(np.arange(len(noise)) / 800.0)) / 2


def echo(played: np.ndarray, delay_ms: int, db: float, room_s: float = 0.2, seed: int = 0) -> np.ndarray:
    response = Echo(delay_ms, db, room_s, direct_db=0.0, seed=seed).response()
    return np.convolve(np.concatenate([np.zeros(FRAME + delay_ms * 16), played]), response)[: len(played)]


def power_db(x: np.ndarray) -> float:
    return 10 * float(np.log10(np.mean(np.square(x, dtype=np.float64)) + 1e-12))


@pytest.mark.parametrize(
    ("delay_ms", "db", "room_s"), [(0, -6, 0.2), (137, -15, 0.5), (800, -30, 0.2), (1500, -6, 0.5)]
)
def test_an_echo_is_taken_out_however_late_it_comes(delay_ms: int, db: float, room_s: float) -> None:
    played = voice(0)
    back = echo(played, delay_ms, db, room_s) + 3e-5 * np.random.default_rng(9).standard_normal(len(played))
    clean, only = run(back, played)
    first = 1 + delay_ms * 16 // FRAME
    assert not any(only[:first]) and all(only[first + 3 :])
    later = (first + 5) * FRAME
    assert power_db(clean[later:]) < power_db(back[later:]) - 9


def test_the_tail_of_an_echo_is_known_after_the_answer_is_over() -> None:
    played = np.concatenate([voice(0, 12), np.zeros(30 * FRAME)])
    back = echo(played, 1_300, -6) + 3e-5 * np.random.default_rng(9).standard_normal(len(played))
    _, only = run(back, played)
    first = 1 + 1_300 * 16 // FRAME
    assert first > 12, "it comes when all has been played"
    assert all(only[first + 2 : first + 12])


def test_without_an_echo_the_signal_stays_as_it_is() -> None:
    played, person = voice(0, 20).astype(np.float32), voice(1, 20).astype(np.float32)
    silence = np.zeros_like(played)
    for microphone, loudspeaker in ((person, played), (person, silence), (silence, played)):
        clean, only = run(microphone, loudspeaker)
        assert np.array_equal(clean, microphone) and not any(only)
    clean, only = run(back := echo(played, 100, -6).astype(np.float32), played, echo=1.0)
    assert np.array_equal(clean, back) and not any(only), "nothing is taken out"


@pytest.mark.parametrize("delay_ms", [60, 1_100])
def test_a_person_as_loud_as_the_echo_is_heard_over_it(delay_ms: int) -> None:
    played, person = voice(0, 60), np.zeros(60 * FRAME)
    back = echo(played, delay_ms, -6)
    start = 34 * FRAME
    person[start:] = voice(1, 26) * np.sqrt(np.mean(back[start:] ** 2) / np.mean(voice(1, 26) ** 2))
    clean, only = run(back + person, played)
    assert all(only[20:34])
    assert sum(only[34:]) <= 12 and not any(all(only[at : at + 4]) for at in range(34, 57)), "only in their pauses"
    error = power_db((clean - person)[start:]) - power_db(back[start:])
    assert error < -4, "what is left of the echo is far fainter than it was"
    echo_only, _ = run(np.where(np.arange(len(back)) < start + 20 * FRAME, back + person, back), played)
    assert power_db(echo_only[-6 * FRAME :]) < power_db(back[-6 * FRAME :]) - 9, "they do not spoil the filter"


def test_another_delay_is_found_again() -> None:
    """A client's playback buffer ran empty: from then on the echo comes 300 ms later."""
    played = voice(0, 60)
    early, late = echo(played, 200, -6), echo(played, 500, -6)
    _, only = run(np.where(np.arange(len(played)) < 30 * FRAME, early, late), played)
    assert all(only[8:30]) and all(only[34:])


def test_the_guard_is_a_value() -> None:
    played, guard = torch.from_numpy(voice(0).astype(np.float32)), EchoGuard.begin(FRAME, REACH)
    back = torch.from_numpy(echo(voice(0), 100, -6).astype(np.float32))
    for at in range(0, 10 * FRAME, FRAME):
        guard.hear(back[at : at + FRAME], 0.7)
        guard.play(played[at : at + FRAME])
    other = guard.clone()
    before = guard.hear(back[10 * FRAME : 11 * FRAME], 0.7)
    guard.play(played[10 * FRAME : 11 * FRAME])
    again = other.hear(back[10 * FRAME : 11 * FRAME], 0.7)
    assert torch.equal(before.pcm, again.pcm) and before.echo == again.echo and before.echo
