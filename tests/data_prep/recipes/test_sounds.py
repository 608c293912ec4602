"""Sounds to be told, beeps to be counted: what is heard is what the text and the answer say."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile

from duologue.data_prep.datasets.shards import ShardedDataset
from duologue.data_prep.datasets.splits import Split
from duologue.data_prep.nano.vocabulary import words
from duologue.data_prep.recipes.sounds import CAPTIONS, WORDINGS, Config, beeps, run, sound_clip, texts
from duologue.model.errors import DuologueError

RATE = 16_000


@pytest.fixture(scope="module")
def recordings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two labels, each recorded in fold 1 (twice: one recording in ten is set aside) and in fold 4."""
    folder = tmp_path_factory.mktemp("recordings")
    entries = []
    for at, (label, fold) in enumerate(
        [("rain", 1), ("rain", 1), ("rooster", 1), ("rooster", 1), ("rain", 4), ("rooster", 4)]
    ):
        name = f"{fold}-{at}.wav"
        soundfile.write(folder / name, np.full(5 * RATE, 0.1 * (at + 1), np.float32), RATE)
        entries.append({"set": "esc10", "label": label, "audio": name})
    (folder / "manifest.jsonl").write_text("".join(json.dumps(entry) + "\n" for entry in entries))
    return folder


def clips(config: Config) -> list[dict]:
    return [sound_clip(index, config).meta for index in range(24)]


def test_what_is_heard_is_what_is_said(recordings: Path) -> None:
    config = Config(source=str(recordings), out="unused", asked=0.0)
    found = set()
    for index in range(40):
        clip = sound_clip(index, config)
        meta = clip.meta
        found.add(meta["heard"])
        if meta["heard"].endswith("beeps"):
            count = int(meta["heard"].split()[0])
            loud = np.abs(clip.pcm.astype(np.float64)).reshape(-1)[: len(clip.pcm) // 80 * 80].reshape(-1, 80).max(1)
            bursts = np.flatnonzero(np.diff(np.concatenate([[0], (loud > 0.1 * loud.max()).astype(int)])) == 1)
            gaps = np.diff(bursts) * 5  # ms
            assert len(bursts[np.concatenate([[True], gaps > 100])]) == count
            assert meta["text"].split() == ["beep"] * count and meta["slot"].endswith("beep" if count == 1 else "beeps")
        else:
            assert meta["text"] == CAPTIONS[meta["heard"]] and meta["slot"] in meta["answer"]
    assert found >= {"rain", "rooster"}


def test_folds_and_wordings_are_kept_apart(recordings: Path) -> None:
    asked = {
        part: {
            meta["text"].split(" ", len(CAPTIONS[meta["heard"]].split()))[-1]
            for meta in clips(Config(source=str(recordings), out="unused", part=part, asked=1.0, voices="dev"))
            if meta["heard"] in CAPTIONS
        }
        for part in ("noises", "noises_dev")
    }
    assert asked["noises"] and asked["noises_dev"] and not asked["noises"] & asked["noises_dev"]
    assert asked["noises_dev"] <= {wording for wording, split in WORDINGS["what"].items() if split is Split.TEST}


def test_every_word_is_in_the_vocabulary() -> None:
    assert {word for text in texts() for word in text.split()} <= set(words())


def test_beeps_are_tones_with_silence_between() -> None:
    wave = beeps(3, np.random.default_rng(0))
    assert np.abs(wave).max() <= 1 and not wave[-1600:].any()


def test_a_set_is_written_and_resumed(recordings: Path, tmp_path: Path) -> None:
    few = {"n": 6, "shard_size": 3, "workers": 1}
    config = Config(source=str(recordings), out=str(tmp_path / "set"), asked=0.0, voices="dev", **few)
    assert run(config, progress=False)["clips"] == 6
    first = [clip["id"] for clip in ShardedDataset(config.out).metas]
    assert run(config, progress=False)["clips"] == 6 and len(set(first)) == 6


def test_a_recording_that_cannot_be_read_is_a_failed_clip(recordings: Path, tmp_path: Path) -> None:
    """It cost the whole run before."""
    source = tmp_path / "recordings"
    shutil.copytree(recordings, source)
    (source / "1-0.wav").write_text("no sound")
    out = tmp_path / "set"
    config = Config(source=str(source), out=str(out), asked=0.0, voices="dev", n=30, shard_size=15, workers=1)
    counts = run(config, progress=False)
    reasons = (out / "failed.jsonl").read_text()
    assert counts["clips"] + counts["failed"] == 30 and counts["clips"] > 15
    assert counts["failed"] == reasons.count("1-0.wav is not a recording") > 0


def test_bad_settings_are_refused(recordings: Path, tmp_path: Path) -> None:
    good = Config(source=str(recordings), out=str(tmp_path / "set"), voices="dev")
    for changes, message in (({"part": "train"}, "part=train"), ({"asked": 2.0}, r"asked=2\.0"), ({"n": 0}, "n=0")):
        with pytest.raises(DuologueError, match=message):
            replace(good, **changes)
    empty = tmp_path / "empty"
    empty.mkdir()
    (empty / "manifest.jsonl").write_text(json.dumps({"set": "noise", "label": "fan", "audio": "a.wav"}) + "\n")
    with pytest.raises(DuologueError, match="no recordings of ESC-10"):
        run(replace(good, source=str(empty)), progress=False)
