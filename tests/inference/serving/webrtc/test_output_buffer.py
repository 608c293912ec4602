"""What a call's track plays: events in their order, no sound lost or doubled, little waiting."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

pytest.importorskip("openai")
from hypothesis import given
from hypothesis import strategies as st

from duologue.inference.serving.realtime.output_buffer import RATE, OutputBuffer

CHUNK, TAKE = RATE * 80 // 1000, RATE * 20 // 1000


class Track:
    """A buffer, and whoever takes from it."""

    def __init__(self) -> None:
        self.events: list[tuple[str, str]] = []
        self.buffer = OutputBuffer(self._send, RATE)
        self.heard: list[np.ndarray] = []

    def _send(self, kind: str, **fields: Any) -> None:
        self.events.append((kind.rpartition(".")[2], fields["response_id"]))

    def take(self, times: int = 1) -> None:
        self.heard += [self.buffer.take(TAKE) for _ in range(times)]

    def audible(self) -> np.ndarray:
        """Samples that are not silent."""
        heard = np.concatenate(self.heard)
        return heard[heard != 0]


def chunk(number: int) -> np.ndarray:
    return np.full(CHUNK, number + 1, np.float32)


def test_frames_that_come_in_time_are_played_without_a_gap() -> None:
    track = Track()
    for number in range(10):
        track.buffer.play("a", chunk(number))
        track.take(4)
    track.buffer.finish("a")
    track.take(4)
    assert track.events == [("started", "a"), ("stopped", "a")]
    heard = np.concatenate(track.heard)
    assert np.array_equal(track.audible(), np.concatenate([chunk(number) for number in range(10)]))
    silent = int(np.argmax(heard != 0))
    assert silent <= 0.04 * RATE and (heard[silent : silent + 10 * CHUNK] != 0).all()


@pytest.mark.parametrize("early", [True, False])
def test_a_late_frame_costs_a_gap_and_later_ones_none(early: bool) -> None:
    track = Track()
    track.buffer.play("a", chunk(0))
    track.take(5 if early else 10)  # it begins with the second, and the next one is due after the fifth
    for number in range(1, 6):
        track.buffer.play("a", chunk(number))
        track.take(4)
    track.buffer.finish("a")
    track.take(8)
    assert np.array_equal(track.audible(), np.concatenate([chunk(number) for number in range(6)]))
    gaps = np.diff(np.flatnonzero(np.concatenate(track.heard)))
    assert (gaps > 1).sum() == (0 if early else 1)


def test_what_is_cleared_is_not_played_and_what_was_is_known() -> None:
    track = Track()
    track.buffer.play("a", chunk(0))
    track.take(4)
    assert track.buffer.played("a") == 3 * TAKE and track.buffer.played("b") == 0
    track.buffer.clear()
    track.take(3)
    track.buffer.finish("a")
    track.take(3)
    assert track.events == [("started", "a"), ("cleared", "a")] and len(track.audible()) == 3 * TAKE
    track.buffer.clear()
    assert len(track.events) == 2


@given(st.lists(st.sampled_from(["play", "finish", "take", "take", "clear"]), max_size=60))
def test_whatever_happens(what: list[str]) -> None:
    """Each response starts once and ends once, in order; none is started before another has ended."""
    track, response, waiting = Track(), 0, False
    for each in what:
        if each == "play":
            track.buffer.play(str(response), chunk(0))
            waiting = True
        elif each == "finish" and waiting:
            track.buffer.finish(str(response))
            response, waiting = response + 1, False
        elif each == "clear":
            track.buffer.clear()
            response, waiting = response + 1, False
        elif each == "take":
            track.take()
    track.buffer.finish(str(response))
    track.take(400)
    playing: str | None = None
    seen: list[str] = []
    for kind, its in track.events:
        if kind == "started":
            assert playing is None and its not in seen
            playing, seen = its, [*seen, its]
        else:
            assert playing == its
            playing = None
    assert playing is None and seen == sorted(seen, key=int)
