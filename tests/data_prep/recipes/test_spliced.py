"""Recorded words in the places of those words, at the level of the rest; the same for the same seed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from duologue.data_prep.datasets.shards import Clip, ShardedDataset, ShardWriter
from duologue.data_prep.prepare import main
from duologue.data_prep.recipes.spliced import Config, _runs, splice
from duologue.data_prep.text.spoken import UNITS
from duologue.model.errors import DuologueError

RATE = 16_000


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Two people who say the digits: tones of a pitch a word, hummed high and low, and one clip of two words."""
    folder = tmp_path_factory.mktemp("recordings") / "digits"
    writer = ShardWriter(folder, name="recordings-train", sample_rate=RATE, seed=0, parameters={})
    clips = []
    for voice, factor in (("fsdd:ann", 1), ("fsdd:bob", 2)):
        for digit, word in enumerate([*UNITS[:10], "one two"]):
            t = np.arange(RATE // 4) / RATE
            hum = 2_000 * np.sin(2 * np.pi * factor * (1_000 + 100 * digit) * t)
            pcm = np.concatenate([np.zeros(4_000), hum, np.zeros(4_000)]).astype(np.int16)
            clips.append(Clip(pcm, {"id": f"{voice}-{digit}", "text": word, "voice": voice, "prosody": None}))
    writer.write(0, clips)
    writer.finish()
    return str(folder)


def test_runs() -> None:
    words = ["what", "is", "seven", "plus", "forty", "two"]
    assert _runs(words, {2, 5}) == [(0, "what is"), (2, "seven"), (3, "plus forty"), (5, "two")]
    assert _runs(words, set(range(6))) == list(enumerate(words))


def test_a_recorded_word_is_heard_where_it_is_said(source: str, tmp_path: Path) -> None:
    config = Config(source=source, out=str(tmp_path), fraction=1.0, voices="espeak:en-us+f3")
    for index in range(6):
        clip = splice(index, config)
        words = clip.meta["text"].split()
        recorded = [word for word in words if word in UNITS[:10]]
        assert recorded and clip.meta["recorded"] in (["fsdd:ann"], ["fsdd:bob"]), "one person says all of them"
        factor = 1 if clip.meta["recorded"] == ["fsdd:ann"] else 2
        frames = np.lib.stride_tricks.sliding_window_view(clip.pcm.astype(float), 1600)[::400]
        tones = np.abs(np.fft.rfft(frames * np.hanning(1600), axis=1))  # (frames, bins of 10 Hz)
        for word in set(recorded):
            bin_ = factor * (1_000 + 100 * UNITS.index(word)) // 10
            fraction = tones[:, bin_ - 1 : bin_ + 2].sum(1) / tones.sum(1)
            assert fraction.max() > 0.9, (word, clip.meta["text"])
        assert np.array_equal(clip.pcm, splice(index, config).pcm)
        assert 10 * np.log10(np.mean((clip.pcm / 32768.0) ** 2)) == pytest.approx(-23, abs=5)


def test_as_a_command(source: str, tmp_path: Path) -> None:
    out = str(tmp_path / "mixed")
    counts = main("spliced", [f"source={source}", f"out={out}", "n=6", "shard_size=3", "voices=espeak:en-us+f3"])
    assert counts["clips"] == 6
    metas = ShardedDataset(out).metas
    assert all(meta["answer"] and meta["voice"] == "espeak:en-us+f3" for meta in metas)


def test_bad_sources_are_refused(source: str, tmp_path: Path) -> None:
    with pytest.raises(DuologueError, match="fraction=0"):
        Config(source=source, out="x", fraction=0)
    writer = ShardWriter(tmp_path / "long", name="recordings-train", sample_rate=RATE, seed=0, parameters={})
    meta = {"id": "0", "text": "two words", "voice": "a", "prosody": None}
    writer.write(0, [Clip(np.ones(2_000, np.int16), meta)])
    writer.finish()
    with pytest.raises(DuologueError, match="no recordings of single words"):
        splice(0, Config(source=str(tmp_path / "long"), out="x"))
    with pytest.raises(DuologueError, match="is not a data set"):
        splice(0, Config(source=str(tmp_path), out="x"))
