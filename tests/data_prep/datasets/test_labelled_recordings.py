"""Recordings that nobody has written down: cut at pauses, labelled by a recogniser, readers kept apart."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile

from duologue.checkpoints.recognisers.recogniser import TimedWord
from duologue.data_prep.datasets.pauses import cut_between
from duologue.data_prep.datasets.shards import ShardedDataset
from duologue.data_prep.prepare import main
from duologue.data_prep.recipes import recordings
from duologue.model.errors import DuologueError

RATE = 16_000


def speech(*spans: tuple[float, float]) -> np.ndarray:
    """Seconds of noise at an amplitude, one behind the other."""
    rng = np.random.default_rng(0)
    return np.concatenate([level * rng.standard_normal(round(s * RATE)) for s, level in spans]).astype(np.float32)


class Listener:
    """Hears two words a second, each the second in which it is said; of what is quiet it hears none."""

    name = "listener"

    def __init__(self) -> None:
        self.heard = 0

    def __call__(self, waveform: np.ndarray) -> str:
        return " ".join(word.text for word in self.words(waveform))

    def words(self, waveform: np.ndarray) -> list[TimedWord]:
        self.heard += 1
        if np.abs(waveform).max() < 0.02:
            return []
        halves = range(int(2 * len(waveform) / RATE))
        return [TimedWord(f"{half // 2}{',' if half % 2 else ''}", half / 2 + 0.1, half / 2 + 0.45) for half in halves]


@pytest.fixture
def listener(monkeypatch: pytest.MonkeyPatch) -> Listener:
    made = Listener()
    monkeypatch.setattr(recordings, "find_recogniser", lambda name, language: made)
    return made


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    source = tmp_path / "source"
    source.mkdir()
    entries = []
    for reader in range(8):
        wave = speech((3, 0.1), (0.4, 0.001), (3, 0.1)) if reader else speech((1, 0.003))
        soundfile.write(source / f"{reader}.flac", wave, RATE)
        entries.append({"audio": f"{reader}.flac", "set": "readers", "speaker": f"r{reader}"})
    soundfile.write(source / "known.flac", speech((1, 0.1)), RATE)
    entries.append({"audio": "known.flac", "set": "readers", "speaker": "r9", "text": "known"})
    (source / "manifest.jsonl").write_text("".join(json.dumps(entry) + "\n" for entry in entries))
    return source


def test_pieces_are_labelled(folder: Path, listener: Listener) -> None:
    settings = [f"source={folder}", "part=speech", "recogniser=a/folder", "longest_s=4", "held_out=0"]
    counts = main("recordings", [*settings, f"out={folder.parent / 'a'}", "shard_clips=3"])
    assert (counts["clips"], counts["failed"]) == (14, 1)  # not what is written down already
    metas = ShardedDataset(folder.parent / "a").metas
    first, second = metas[:2]
    assert (first["text"], second["text"]) == ("0 0, 1 1, 2 2,", "3 3, 4 4, 5 5,")
    assert first["spoken"] == "zero zero one one two two"
    assert (first["id"], first["voice"], first["recogniser"]) == ("1.flac-0", "readers:r1", "folder")
    assert first["start"] == 0 and first["end"] == second["start"] == pytest.approx(3.2, abs=0.15)
    assert second["end"] == pytest.approx(6.4)
    failed = json.loads((folder.parent / "a" / "failed.jsonl").read_text())
    assert failed["id"] == "0.flac-0" and failed["reason"] == "the recogniser heard no words"


def test_it_goes_on_where_it_stopped(folder: Path, listener: Listener) -> None:
    settings = [f"source={folder}", "part=speech", "recogniser=x", "longest_s=4", "held_out=0", "shard_clips=2"]
    out = folder.parent / "a"
    main("recordings", [*settings, f"out={out}"])
    for path in [*out.glob("shard-00001*"), out / "dataset.json"]:
        path.rename(folder.parent / path.name)
    listener.heard = 0
    main("recordings", [*settings, f"out={out}"])
    assert listener.heard == 2
    assert (out / "dataset.json").read_bytes() == (folder.parent / "dataset.json").read_bytes()
    listener.heard = 0
    main("recordings", [*settings, f"out={out}"])
    assert not listener.heard
    with pytest.raises(DuologueError, match="was begun with parameters"):
        main("recordings", [*settings, f"out={out}", "longest_s=5"])


def test_readers_are_kept_apart(folder: Path, listener: Listener) -> None:
    settings = [f"source={folder}", "recogniser=x", "held_out=0.5"]
    voices = []
    for part in ("speech", "speech_held_out"):
        main("recordings", [*settings, f"out={folder.parent / part}", f"part={part}"])
        voices.append({meta["voice"] for meta in ShardedDataset(folder.parent / part).metas})
    assert voices[0] and voices[1] and not voices[0] & voices[1] and len(voices[0] | voices[1]) == 7


@pytest.mark.parametrize(
    ("spans", "longest", "ends"),
    [
        ([(3, 0.1)], 4, [3]),
        ([(3, 0.1), (0.5, 0.001), (3, 0.1)], 4, [3.25, 6.5]),
        ([(3, 0.1), (0.5, 0.001), (3, 0.1), (0.5, 0.002), (3, 0.1)], 4, [3.25, 6.75, 10]),
        ([(9, 0.1)], 2, None),
    ],
)
def test_where_it_is_cut(spans: list[tuple[float, float]], longest: float, ends: list[float] | None) -> None:
    """In the pauses; where there are none, into pieces that are not too long and not too short."""
    wave = speech(*spans)
    pieces = cut_between([], wave, RATE, longest)
    assert [start for start, *_ in pieces] == [0, *(end for _, end, _ in pieces[:-1])] and pieces[-1][1] == len(wave)
    assert all(0.9 * RATE < end - start <= longest * RATE for start, end, _ in pieces)
    if ends is not None:
        assert [end / RATE for _, end, _ in pieces] == pytest.approx(ends, abs=0.26)


def test_no_word_is_cut() -> None:
    """The quietest place is within a word; it is cut between two, and each word is in one piece."""
    wave = speech((2, 0.1), (0.2, 0.001), (1, 0.1), (0.2, 0.01), (2.6, 0.1))
    words = [TimedWord("a", 0.2, 1.5), TimedWord("b", 1.6, 3.2), TimedWord("c", 3.4, 5.0), TimedWord("d", 5.1, 6.2)]
    (first, cut, before), (again, last, after) = cut_between(words, wave, RATE, 4)
    assert (first, again, last) == (0, cut, len(wave)) and cut / RATE == pytest.approx(3.3, abs=0.1)
    assert [word.text for word in before] == ["a", "b"] and [word.text for word in after] == ["c", "d"]


@pytest.mark.parametrize(
    ("overrides", "complaint"),
    [
        (["recogniser=x"], "part=train: a recogniser labels the parts speech and speech_held_out"),
        (["recogniser=x", "part=speech", "sample_rate=8000"], "sample_rate=8000: a recogniser hears 16000 Hz"),
        (["longest_s=1"], "longest_s=1: expected at least 2 seconds"),
        (["held_out=2"], "held_out=2.0: expected a fraction"),
        (["recogniser=x", "part=speech", "held_out=1"], "has no recordings without words of the part speech"),
    ],
)
def test_wrong_settings(folder: Path, overrides: list[str], complaint: str) -> None:
    with pytest.raises(DuologueError, match=complaint):
        main("recordings", [f"source={folder}", f"out={folder.parent / 'a'}", *overrides])
    assert not (folder.parent / "a").exists()
