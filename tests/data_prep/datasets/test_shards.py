"""The data set on disk: what goes in comes out, whole or not at all, and what is broken says so."""

from __future__ import annotations

import json
import os
import pickle
from pathlib import Path

import numpy as np
import pytest

from duologue.data_prep.datasets.shards import Clip, Failure, ShardedDataset, ShardWriter
from duologue.model.errors import DuologueError


def make_clips(shard: int, count: int = 3) -> list[Clip]:
    rng = np.random.default_rng(shard)
    return [
        Clip(
            rng.integers(-30000, 30000, size=int(rng.integers(1, 2000))).astype(np.int16),
            {"id": f"{shard}-{at}", "text": "hello there", "voice": "flite:rms", "category": "drill"},
        )
        for at in range(count)
    ]


def open_writer(folder: Path, **parameters: int) -> ShardWriter:
    return ShardWriter(folder, name="toy", sample_rate=16000, seed=4, parameters=parameters)


def write_two(folder: Path) -> list[Clip]:
    writer = open_writer(folder)
    writer.write(1, make_clips(1))
    writer.write(0, make_clips(0), [Failure("0-9", "no voice")])
    writer.finish()
    return make_clips(0) + make_clips(1)


def test_what_goes_in_comes_out(tmp_path: Path) -> None:
    wanted = write_two(tmp_path)
    dataset = ShardedDataset(tmp_path)
    assert len(dataset) == len(wanted) == 6
    for found, clip in zip(dataset, wanted, strict=True):
        np.testing.assert_array_equal(found.pcm, clip.pcm)
        assert found.pcm.dtype == np.int16
        assert clip.meta.items() <= found.meta.items()
    assert dataset.hours == pytest.approx(sum(len(clip.pcm) for clip in wanted) / 16000 / 3600)
    assert dataset.header["complete"] and dataset.header["counts"]["clips"] == 6
    assert json.loads((tmp_path / "failed.jsonl").read_text()) == {"id": "0-9", "shard": 0, "reason": "no voice"}
    dataset.verify()


def test_it_crosses_to_another_process(tmp_path: Path) -> None:
    wanted = write_two(tmp_path)
    dataset = ShardedDataset(tmp_path)
    dataset[5].pcm.sum()
    copy = pickle.loads(pickle.dumps(dataset))
    np.testing.assert_array_equal(copy[5].pcm, wanted[5].pcm)
    assert len(pickle.dumps(dataset)) < 4000  # the samples are not in it


def test_nothing_half_written_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whichever write is cut off, the shard is not there, and writing it again makes it whole."""
    for survive in range(2):
        folder = tmp_path / str(survive)
        writer = open_writer(folder)
        writer.write(0, make_clips(0))
        left = survive
        real = os.replace

        def cut_off(source: str, target: str, real=real) -> None:
            nonlocal left
            if left == 0:
                raise KeyboardInterrupt
            left -= 1
            real(source, target)

        monkeypatch.setattr(os, "replace", cut_off)
        with pytest.raises(KeyboardInterrupt):
            writer.write(1, make_clips(1))
        monkeypatch.setattr(os, "replace", real)
        assert not writer.has(1)
        assert len(ShardedDataset(folder)) == 3
        writer.write(1, make_clips(1))
        assert len(ShardedDataset(folder)) == 6


def test_a_growing_set_can_be_read(tmp_path: Path) -> None:
    writer = open_writer(tmp_path)
    assert len(ShardedDataset(tmp_path)) == 0
    writer.write(7, make_clips(7))
    assert [clip.meta["id"] for clip in ShardedDataset(tmp_path)] == ["7-0", "7-1", "7-2"]


def test_a_shard_of_failures_alone_is_whole(tmp_path: Path) -> None:
    writer = open_writer(tmp_path)
    writer.write(0, [], [Failure("a", "mute")])
    writer.write(1, make_clips(1))
    assert writer.finish() == {"clips": 3, "failed": 1, "hours": pytest.approx(0, abs=0.01)}
    assert len(ShardedDataset(tmp_path)) == 3


def test_failures_stay_when_finished_twice_and_go_when_mended(tmp_path: Path) -> None:
    writer = open_writer(tmp_path)
    writer.write(0, make_clips(0), [Failure("a", "mute")])
    writer.finish()
    writer.write(1, make_clips(1), [Failure("b", "mute")])
    assert writer.finish()["failed"] == 2


def test_another_data_set_is_not_overwritten(tmp_path: Path) -> None:
    open_writer(tmp_path, n=3)
    open_writer(tmp_path, n=3)
    with pytest.raises(DuologueError, match="parameters"):
        open_writer(tmp_path, n=4)


def spoil(folder: Path, how: str) -> None:
    pcm, index = folder / "shard-00001.npy", folder / "shard-00001.jsonl"
    if how == "truncated":
        pcm.write_bytes(pcm.read_bytes()[:-100])
    elif how == "no header":
        pcm.write_bytes(b"rubbish")
    elif how == "empty":
        pcm.write_bytes(b"")
    elif how == "missing":
        pcm.unlink()
    elif how == "floats":
        np.save(pcm, np.zeros(10, np.float32))
    elif how == "too short":
        np.save(pcm, np.zeros(10, np.int16))
    elif how == "half a line":
        index.write_text(index.read_text()[:-30])
    elif how == "a line lost":
        index.write_text("\n".join(index.read_text().splitlines()[1:]) + "\n")
    elif how == "a field lost":
        index.write_text(index.read_text().replace('"voice"', '"voce"'))
    elif how == "no object":
        index.write_text("7\n")


@pytest.mark.parametrize(
    "how",
    ["truncated", "no header", "empty", "missing", "floats", "too short", "half a line", "a line lost", "a field lost",
     "no object"],
)  # fmt: skip
def test_a_corrupted_shard_says_so(tmp_path: Path, how: str) -> None:
    write_two(tmp_path)
    spoil(tmp_path, how)
    with pytest.raises(DuologueError, match="shard-00001") as caught:
        ShardedDataset(tmp_path)
    assert "\n" not in str(caught.value)


def test_a_changed_sample_is_found_by_its_checksum(tmp_path: Path) -> None:
    write_two(tmp_path)
    path = tmp_path / "shard-00000.npy"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(DuologueError, match="checksum"):
        ShardedDataset(tmp_path).verify()


@pytest.mark.parametrize("text", [None, "{", '{"format": 99}', "3"])
def test_a_folder_that_is_no_data_set(tmp_path: Path, text: str | None) -> None:
    if text is not None:
        (tmp_path / "dataset.json").write_text(text)
    with pytest.raises(DuologueError, match=r"data set|dataset\.json"):
        ShardedDataset(tmp_path)


def test_clips_must_be_flat_int16(tmp_path: Path) -> None:
    with pytest.raises(DuologueError, match="int16"):
        open_writer(tmp_path).write(0, [Clip(np.zeros(4, np.float32), {"id": "a"})])
