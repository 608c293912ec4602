"""The edge of every program: what becomes of its lines."""

from __future__ import annotations

import os
import sys

import pytest

from duologue.checkpoints.program import say


def test_a_reader_that_has_left_does_not_end_the_work(monkeypatch: pytest.MonkeyPatch) -> None:
    """``duologue listen talk.wav -o replies.wav | head -1`` writes replies.wav."""
    reading, writing = os.pipe()
    with open(writing, "w") as stdout:
        monkeypatch.setattr(sys, "stdout", stdout)
        say("the first")
        assert os.read(reading, 100) == b"the first\n"
        os.close(reading)
        say("the second")
        say("the third")
