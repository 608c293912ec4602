"""Packets of a microphone: whatever order they come in and whatever is lost, time goes on as the user's did."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

pytest.importorskip("aiortc")
import av
from hypothesis import given
from hypothesis import strategies as st

from duologue.inference.serving.webrtc.ice import ice_server
from duologue.inference.serving.webrtc.microphone import OUT_RATE, RATE, Microphone, Reordering
from duologue.model.errors import DuologueError

SAMPLES = 960


def packets(count: int) -> list[tuple[int, int, bytes]]:
    """A tone, with sequence numbers and timestamps that pass their end."""
    encoder = av.CodecContext.create("libopus", "w")
    encoder.format, encoder.layout, encoder.sample_rate = "s16", "mono", RATE
    found = []
    for number in range(count):
        t = np.arange(number * SAMPLES, (number + 1) * SAMPLES) / RATE
        frame = av.AudioFrame.from_ndarray(
            (9_000 * np.sin(2 * np.pi * 440 * t)).astype(np.int16)[None], format="s16", layout="mono"
        )
        frame.sample_rate, frame.pts, frame.time_base = RATE, number * SAMPLES, Fraction(1, RATE)
        (packet,) = encoder.encode(frame)
        found.append((65_530 + number & 0xFFFF, 2**32 - 3_000 + number * SAMPLES & 0xFFFFFFFF, bytes(packet)))
    return found


PACKETS = packets(40)


def heard(arriving: list[tuple[int, int, bytes]]) -> np.ndarray:
    pieces: list[bytes] = []
    microphone = Microphone(pieces.append)
    for packet in arriving:
        microphone.arrived(*packet)
    return np.frombuffer(b"".join(pieces), "<i2").astype(np.float32) / 32_768


@given(
    st.lists(st.integers(0, 3), min_size=40, max_size=40), st.sets(st.integers(1, 33), max_size=6),
    st.sets(st.integers(0, 39), max_size=4),
)  # fmt: skip
def test_time_goes_on(late: list[int], lost: set[int], twice: set[int]) -> None:
    """Packets up to three places late, some lost, some twice: as many samples as without."""
    order = sorted(range(40), key=lambda number: (number + late[number] * (number < 34), number))
    arriving = [PACKETS[number] for number in order if number not in lost for _ in range(1 + (number in twice))]
    whole, found = heard(PACKETS), heard(arriving)
    assert abs(len(found) - len(whole)) <= 4 * SAMPLES * OUT_RATE / RATE
    assert len(whole) > 0.78 * OUT_RATE
    if not lost and order[0] == 0:  # nobody was too late
        assert np.array_equal(found, whole)


def test_in_order_nothing_waits() -> None:
    reordering = Reordering()
    for sequence, timestamp, payload in PACKETS:
        assert reordering.push(sequence, timestamp, payload) == [(timestamp, payload)]
    assert reordering.push(*PACKETS[-1]) == []


@given(st.lists(st.tuples(st.integers(0, 65_535), st.integers(0, 2**32 - 1), st.binary(max_size=40)), max_size=60))
def test_whatever_comes_is_no_fault_and_no_flood(arriving: list[tuple[int, int, bytes]]) -> None:
    """At most 3 s at once, and a second of what is filled up."""
    assert len(heard(arriving)) <= 4 * OUT_RATE


def test_who_sends_all_at_once_is_heard_again_after_it() -> None:
    now, pieces = [0.0], list[bytes]()
    microphone = Microphone(pieces.append, now=lambda: now[0])

    def seconds(first: int, count: int, pace_s: float) -> float:
        pieces.clear()
        for number in range(first, first + count):
            now[0] += pace_s
            microphone.arrived(number, number * SAMPLES, PACKETS[number % 40][2])
        return sum(map(len, pieces)) / 2 / OUT_RATE

    assert 2.9 < seconds(0, 1_500, 0.0) <= 3.0  # of 30 s
    assert seconds(1_500, 250, 0.02) > 4.5


def test_ice_servers() -> None:
    turn = ice_server("turn:user:pass%40word@turn.example.org:3478?transport=tcp")
    assert (turn.urls, turn.username, turn.credential) == (
        "turn:turn.example.org:3478?transport=tcp", "user", "pass@word",
    )  # fmt: skip
    assert ice_server("stun:stun.example.org").username is None
    for wrong in ("http://example.org", "stun:", "turn.example.org"):
        with pytest.raises(DuologueError, match="it must be like stun:"):
            ice_server(wrong)
