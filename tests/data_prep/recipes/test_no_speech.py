"""Clips in which nobody speaks: no words, every kind, every level, the same for the same seed."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import soundfile

from duologue.data_prep.datasets.shards import ShardedDataset
from duologue.data_prep.prepare import main
from duologue.data_prep.recipes.no_speech import KINDS, Config, no_speech_clip
from duologue.data_prep.sounds.made import MADE
from duologue.model.errors import DuologueError

RATE = 16_000


@pytest.fixture
def recordings(tmp_path: Path) -> Path:
    folder = tmp_path / "recordings"
    folder.mkdir()
    entries = [
        {"set": "esc10", "label": "rain", "audio": "1-rain.wav", "licence": "CC0", "source_repo": "github:a/b"},
        {"set": "esc10", "label": "dog bark", "audio": "4-dog.wav"},  # of the fold that is kept apart
        {"set": "talk", "text": "hello", "audio": "hello.wav"},
    ]
    for at, entry in enumerate(entries):
        wave = np.sin(np.arange(3 * RATE) * (0.1 + 0.1 * at)).astype(np.float32)
        soundfile.write(folder / str(entry["audio"]), wave, RATE)
    (folder / "manifest.jsonl").write_text("".join(json.dumps(entry) + "\n" for entry in entries))
    return folder


def test_nobody_speaks(tmp_path: Path, recordings: Path) -> None:
    out = tmp_path / "none"
    settings = [f"source={recordings}", f"out={out}", "n=60", "workers=1", "longest_s=2", "shard_size=30"]
    counts = main("no_speech", settings)
    assert (counts["clips"], counts["failed"]) == (60, 0)
    data = ShardedDataset(out)
    assert all(meta["text"] == "" and meta["verdict"] == "noise" for meta in data.metas)
    assert all(0.4 * RATE - 1 <= meta["samples"] <= 2 * RATE for meta in data.metas)
    heard = Counter(meta["heard"] for meta in data.metas)
    assert set(heard) <= {"rain", *KINDS} and 20 < heard["rain"] < 40
    rain = {(meta.get("licence"), meta.get("source")) for meta in data.metas if meta["heard"] == "rain"}
    assert rain == {("CC0", "github:a/b")}
    main("no_speech", [*settings[:1], f"out={tmp_path / 'dev'}", "n=20", "workers=1", "part=noises_dev", "recorded=1"])
    assert {meta["heard"] for meta in ShardedDataset(tmp_path / "dev").metas} == {"dog bark"}


def test_of_all_kinds_and_levels() -> None:
    config = Config(out="unused", longest_s=1.0)
    clips = [no_speech_clip(index, config) for index in range(120)]
    assert {clip.meta["heard"] for clip in clips} == set(KINDS)
    levels = [20 * np.log10(max(1e-6, np.sqrt(np.mean((clip.pcm / 32768) ** 2)))) for clip in clips]
    assert min(levels) < -70 and max(levels) > -20 and max(np.abs(clip.pcm).max() for clip in clips) <= 32767
    assert any(not clip.pcm.any() for clip in clips)  # digital silence
    again = no_speech_clip(7, config)
    assert np.array_equal(again.pcm, clips[7].pcm) and again.meta == clips[7].meta


def test_a_clip_of_noise_may_be_a_pair(tmp_path: Path) -> None:
    """What is answered to it, and what is not."""
    turns = [{"text": "a", "reply": "Four."}, {"text": "b", "reply": "Paris."}, {"text": "c", "reply": "Pardon?"}]
    (tmp_path / "chat.jsonl").write_text(json.dumps({"turns": turns}) + "\n")
    config = Config(out="unused", longest_s=0.5, reply="Pardon?", rejected=str(tmp_path / "chat.jsonl"))
    metas = [no_speech_clip(index, config).meta for index in range(12)]
    assert {meta["answer"] for meta in metas} == {"Pardon?"}
    assert {tuple(meta["rejected"]) for meta in metas} == {("Four.",), ("Paris.",)}


@pytest.mark.parametrize("kind", MADE)
def test_made_sounds_are_heard(kind: str) -> None:
    for seed in range(8):
        wave = MADE[kind](RATE, RATE, np.random.default_rng(seed))
        assert wave.shape == (RATE,) and wave.dtype == np.float32 and np.isfinite(wave).all()
        assert np.abs(wave).max() > 0.01
    assert not np.array_equal(*(MADE[kind](RATE, RATE, np.random.default_rng(seed)) for seed in (0, 1)))


@pytest.mark.parametrize(
    ("overrides", "complaint"),
    [
        (["part=train"], "part=train: expected noises or noises_dev"),
        (["recorded=2"], "recorded=2.0: expected a fraction"),
        (["shortest_s=3", "longest_s=2"], "shortest_s=3, longest_s=2: expected"),
        (["source=."], "has no manifest.jsonl"),
        (["rejected=x.jsonl"], "rejected=x.jsonl without reply=, the better answer"),
        (["reply=Pardon?", "rejected=x.jsonl"], "no such file or folder: x.jsonl"),
    ],
)
def test_wrong_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, overrides: list[str], complaint: str) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DuologueError, match=complaint):
        main("no_speech", [f"out={tmp_path / 'out'}", *overrides])
    assert not (tmp_path / "out").exists()
