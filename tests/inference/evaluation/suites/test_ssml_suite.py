"""The suite of marks: what its measures find in readings that were made by hand, and a run of it."""

import numpy as np
import pytest
from tiny_assistant import tiny_assistant

from duologue.inference.evaluation.suites import ssml
from duologue.inference.evaluation.suites.ssml import Sentence, compared
from duologue.model.errors import DuologueError

RATE = 16_000


def tone(seconds, hertz=120.0, level=0.1):
    at = np.arange(round(seconds * RATE)) / RATE
    return (level * sum(np.sin(2 * np.pi * k * hertz * at) for k in (1, 2, 3))).astype(np.float32)


PLAIN = np.concatenate([tone(0.6), tone(0.4, 150), tone(0.6, 130)])


def as_asked(kind, wanted, marked):
    return bool(compared(Sentence("", "", kind, wanted), PLAIN, marked, RATE)["as_asked"][0])


def test_pauses_and_rates_are_measured():
    for seconds, right in ((0.5, True), (0.58, True), (0.35, False), (0.7, False)):
        paused = np.concatenate([PLAIN[:9600], np.zeros(round(seconds * RATE), np.float32), PLAIN[9600:]])
        assert as_asked("break", 500, paused) == right, seconds
    silent = np.concatenate([np.zeros(3000, np.float32), tone(2.0), np.zeros(9000, np.float32)])
    assert as_asked("prosody", 0.8, silent) and not as_asked("prosody", 1.0, silent)


def test_emphasis_is_the_words_alone():
    def marked(*, seconds=0.5, hertz=165.0, level=0.15, behind=0.1):
        return np.concatenate([tone(0.6), tone(seconds, hertz, level), tone(0.6, 130, behind)])

    assert as_asked("emphasis", 0, marked())
    assert as_asked("emphasis", 0, marked(hertz=150))  # two of three
    assert not as_asked("emphasis", 0, marked(hertz=150, level=0.1)) and not as_asked("emphasis", 0, PLAIN)
    found = compared(Sentence("", "", "emphasis", 0), PLAIN, marked(), RATE)
    assert found["longer"][0] == pytest.approx(1.25, abs=0.05) and found["higher"][0] == pytest.approx(1.1, abs=0.03)
    assert found["louder_db"][0] == pytest.approx(3.5, abs=0.5)


def test_a_run(tmp_path):
    assistant = tiny_assistant()
    report = ssml.run(model=assistant, out=tmp_path, sentences=3, words=False, quiet=True)
    rows = report["rows"]
    assert report["settings"]["split"] == "test"
    assert [row["kind"] for row in rows] == ["break", "prosody", "emphasis"]
    assert all(row["measures"]["as_asked"][0] for row in rows if row["kind"] == "break")
    assert (tmp_path / "readings" / "0002.marked.wav").exists() and "emphasis" in report["parts"]


def test_a_split_that_does_not_exist_is_one_clear_error(tmp_path):
    with pytest.raises(DuologueError, match="split is 'all'; it must be train, dev, test"):
        ssml.run(model=tiny_assistant(), out=tmp_path, split="all", words=False, quiet=True)
