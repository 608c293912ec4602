"""The feed that carries a reply's samples to the browser."""

import base64
import threading

import numpy as np
import pytest

pytest.importorskip("gradio")

from duologue.demo import player
from duologue.demo.player import SpeechFeed


def samples_of(answer: dict) -> np.ndarray:
    return np.frombuffer(base64.b64decode(answer["pcm"]), "<i2")


def test_pieces_are_pulled_in_order_and_once() -> None:
    feed = SpeechFeed(16_000)
    name = feed.open()
    wave = np.arange(-500, 500).astype("<i2")
    got, have, done = [], 0, False
    feed.push(name, wave[:300].tobytes())
    feed.push(name, b"")
    first = feed.pull(name, 0)
    feed.push(name, wave[300:].tobytes())
    feed.close(name)
    got.append(samples_of(first))
    have, done = first["have"], first["done"]
    assert not done and first["rate"] == 16_000
    last = feed.pull(name, have)
    got.append(samples_of(last))
    assert last["done"]
    np.testing.assert_array_equal(np.concatenate(got), wave)


def test_a_pull_waits_for_samples() -> None:
    feed = SpeechFeed(16_000)
    name = feed.open()
    threading.Timer(0.1, lambda: feed.push(name, bytes(10))).start()
    assert len(samples_of(feed.pull(name, 0))) == 5


def test_a_pull_does_not_wait_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(player, "PATIENCE", 0.05)
    feed = SpeechFeed(16_000)
    assert feed.pull(feed.open(), 0) == {"pcm": "", "have": 0, "done": False, "rate": 16_000}
    assert feed.pull("unknown", 0)["done"]


def test_old_turns_are_dropped_and_names_differ() -> None:
    feed = SpeechFeed(16_000)
    names = [feed.open() for _ in range(player.KEPT + 1)]
    assert len(set(names)) == len(names)
    assert feed.pull(names[0], 0)["done"]
    feed.push(names[0], bytes(6))  # its writer is still at work, and does no harm
    assert feed.pull(names[0], 0)["pcm"] == ""
