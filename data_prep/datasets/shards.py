"""A data set on disk: shards of 16-bit PCM beside JSON lines. It needs numpy alone, so any machine can train on it.

A folder holds
    dataset.json          format version, name, sample rate (Hz), seed, the recipe's parameters, counts
    shard-00000.npy       1-D int16: the PCM of all the shard's clips, one after the other, read by memory mapping
    shard-00000.jsonl     one object a clip: id, offset and samples (both in samples), text, voice, and free fields
    failed.jsonl          the clips that were skipped: id, shard, and why
Every file appears by rename. A shard counts from the moment its .jsonl is there, which is renamed last; so a run that
is killed leaves whole shards and a few temporary files, and goes on where it was.
"""

from __future__ import annotations

import json
import re
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, overload

import numpy as np

from ...checkpoints.files import appearing, expanded, read_json, read_json_lines, write_json, write_json_lines
from ...model.errors import DuologueError

FORMAT_VERSION = 1
DATASET_FILE = "dataset.json"
FAILED_FILE = "failed.jsonl"
SHARD_NAME = re.compile(r"shard-(\d{5})\.jsonl")
REQUIRED_FIELDS = ("id", "offset", "samples", "text", "voice")


@dataclass(frozen=True)
class Clip:
    """One recording: pcm (samples,) int16, a view of the mapped shard, and its JSON object."""

    pcm: np.ndarray
    meta: dict[str, Any]


@dataclass(frozen=True)
class Failure:
    """A clip that could not be made: its id and the reason, one line."""

    id: str
    reason: str


class Computed(Sequence[dict[str, Any]]):
    """A sequence of so many entries, each computed when it is asked for."""

    def __init__(self, size: int, entry: Callable[[int], dict[str, Any]]) -> None:
        self._size, self._entry = size, entry

    def __len__(self) -> int:
        return self._size

    @overload
    def __getitem__(self, index: int) -> dict[str, Any]: ...
    @overload
    def __getitem__(self, index: slice) -> list[dict[str, Any]]: ...
    def __getitem__(self, index: int | slice) -> dict[str, Any] | list[dict[str, Any]]:
        if isinstance(index, slice):
            return [self._entry(at) for at in range(*index.indices(self._size))]
        if not 0 <= index < self._size:
            raise IndexError(index)
        return self._entry(index)


class ShardWriter:
    """Writes a data set's folder shard by shard; shards may come in any order and from several processes.

    `parameters` are everything that decides what the clips are. A folder begun with other parameters is refused, so
    that resuming never mixes two data sets.
    """

    def __init__(self, folder: str | Path, *, name: str, sample_rate: int, seed: int, parameters: Mapping[str, Any]):
        self.folder = expanded(folder)
        self.header: dict[str, Any] = {
            "format": FORMAT_VERSION,
            "name": name,
            "sample_rate": sample_rate,
            "seed": seed,
            "parameters": dict(parameters),
        }
        self.folder.mkdir(parents=True, exist_ok=True)
        file = self.folder / DATASET_FILE
        if not file.exists():
            self._write_header(complete=False, counts={})
            return
        found = _read_header(file)
        for key, wanted in json.loads(json.dumps(self.header)).items():
            if found.get(key) != wanted:
                raise DuologueError(
                    f"{self.folder} was begun with {key} {found.get(key)!r}, not {wanted!r}: choose another folder"
                )

    def has(self, shard: int) -> bool:
        return _index_file(self.folder, shard).exists()

    def write(self, shard: int, clips: Sequence[Clip], failures: Sequence[Failure] = ()) -> None:
        """Store one whole shard. `offset` and `samples` are filled in; `id`, `text` and `voice` must be there."""
        offset, objects = 0, []
        for clip in clips:
            if clip.pcm.dtype != np.int16 or clip.pcm.ndim != 1:
                raise DuologueError(f"a clip must be 1-D int16, not {clip.pcm.ndim}-D {clip.pcm.dtype}")
            objects.append({**clip.meta, "offset": offset, "samples": len(clip.pcm)})
            offset += len(clip.pcm)
        pcm = (
            np.concatenate([clip.pcm for clip in clips]) if clips else np.zeros(0, np.int16)
        )  # (samples of the shard,)
        with appearing(_pcm_file(self.folder, shard)) as file:
            # what np.save writes; its own way to the disk forgets why it failed
            np.lib.format.write_array_header_1_0(file, np.lib.format.header_data_from_array_1_0(pcm))
            file.write(pcm.data)
        part = _failure_file(self.folder, shard)
        if failures:
            write_json_lines(part, ({"id": f.id, "shard": shard, "reason": f.reason} for f in failures))
        else:
            part.unlink(missing_ok=True)
        write_json_lines(_index_file(self.folder, shard), objects)

    def finish(self) -> dict[str, Any]:
        """Count what is there, merge the failures of all shards into failed.jsonl, mark the data set complete."""
        clips = samples = 0
        checksums = {}
        for shard in shard_numbers(self.folder):
            objects = _index(self.folder, shard)
            clips += len(objects)
            samples += sum(obj["samples"] for obj in objects)
            checksums[f"{shard:05d}"] = _checksum(_pcm_file(self.folder, shard))
        parts = sorted(self.folder.glob("shard-*.failed.jsonl"))
        merged = self.folder / FAILED_FILE
        known = {obj["id"]: obj for obj in (read_json_lines(merged) if merged.exists() else [])}
        known |= {obj["id"]: obj for part in parts for obj in read_json_lines(part)}
        write_json_lines(merged, (known[key] for key in sorted(known)))
        for rest in (*parts, *self.folder.glob(".*.tmp")):  # temporary files are of runs that were killed
            rest.unlink()
        counts = {"clips": clips, "failed": len(known), "hours": round(samples / self.header["sample_rate"] / 3600, 4)}
        self._write_header(complete=True, counts=counts, checksums=checksums)
        return counts

    def failures(self) -> list[Failure]:
        """The clips that a finished data set is without, by id."""
        rows = read_json_lines(self.folder / FAILED_FILE)
        return [Failure(row["id"], row["reason"]) for row in rows]

    def discard(self) -> None:
        """Take the data set away again, and its folder if there is nothing else in it."""
        names = ("shard-*", ".*.tmp", DATASET_FILE, FAILED_FILE)
        for path in [path for name in names for path in self.folder.glob(name)]:
            path.unlink()
        if not any(self.folder.iterdir()):
            self.folder.rmdir()

    def _write_header(self, **more: Any) -> None:
        write_json(self.folder / DATASET_FILE, {**self.header, **more})


class ShardedDataset:
    """The whole shards of a folder as one sequence of clips, in the order of the shards.

    A data set that is still being written can be read: what is whole when it is opened is there. PCM is memory mapped
    when first asked for, one map a shard, and maps are not pickled, so that loader processes open their own.
    Raises DuologueError for a folder that is no data set and for a shard whose two files do not agree.
    """

    def __init__(self, folder: str | Path):
        self.folder = expanded(folder)
        file = self.folder / DATASET_FILE
        if not file.exists():
            raise DuologueError(f"{self.folder} is not a data set: it has no {DATASET_FILE}")
        self.header = _read_header(file)
        self.sample_rate: int = self.header["sample_rate"]
        self.metas: list[dict[str, Any]] = []
        self._shard_of: list[int] = []
        self._maps: dict[int, np.ndarray] = {}
        for shard in shard_numbers(self.folder):
            objects = _index(self.folder, shard)
            self._check(shard, objects)
            self.metas += objects
            self._shard_of += [shard] * len(objects)

    def __len__(self) -> int:
        return len(self.metas)

    def __getitem__(self, index: int) -> Clip:
        meta = self.metas[index]
        pcm = self._map(self._shard_of[index])
        return Clip(pcm[meta["offset"] : meta["offset"] + meta["samples"]], meta)  # (samples,)

    def __iter__(self) -> Iterator[Clip]:
        return (self[index] for index in range(len(self)))

    @property
    def hours(self) -> float:
        return sum(meta["samples"] for meta in self.metas) / self.sample_rate / 3600

    def verify(self) -> None:
        """Read every byte and compare it with the checksums that were stored when the data set was finished."""
        for shard, stored in self.header.get("checksums", {}).items():
            found = _checksum(_pcm_file(self.folder, int(shard)))
            if found != stored:
                raise DuologueError(f"{_pcm_file(self.folder, int(shard))} has checksum {found}, not {stored}")

    def _map(self, shard: int) -> np.ndarray:
        if shard not in self._maps:
            self._maps[shard] = _open_pcm(_pcm_file(self.folder, shard))
        return self._maps[shard]

    def _check(self, shard: int, objects: list[dict[str, Any]]) -> None:
        file = _index_file(self.folder, shard)
        offset = 0
        for number, obj in enumerate(objects, start=1):
            for field in REQUIRED_FIELDS:
                if field not in obj:
                    raise DuologueError(f"{file}, line {number}: no field {field!r}")
            if obj["offset"] != offset:
                raise DuologueError(
                    f"{file}, line {number}: offset {obj['offset']}, but the clips before end at {offset}"
                )
            offset += obj["samples"]
        length = len(self._map(shard))
        if length != offset:
            raise DuologueError(
                f"{_pcm_file(self.folder, shard)} holds {length} samples, but {file.name} lists {offset}: "
                "delete both files and prepare again"
            )

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_maps": {}}


def shard_numbers(folder: Path) -> list[int]:
    """The numbers of the whole shards in `folder`, ascending."""
    matches = (SHARD_NAME.fullmatch(path.name) for path in folder.iterdir())
    return sorted(int(match[1]) for match in matches if match)


def _index_file(folder: Path, shard: int) -> Path:
    return folder / f"shard-{shard:05d}.jsonl"


def _index(folder: Path, shard: int) -> list[dict[str, Any]]:
    try:
        return read_json_lines(_index_file(folder, shard))
    except DuologueError as error:
        raise DuologueError(f"{error}; prepare this shard again") from None


def _pcm_file(folder: Path, shard: int) -> Path:
    return folder / f"shard-{shard:05d}.npy"


def _failure_file(folder: Path, shard: int) -> Path:
    return folder / f"shard-{shard:05d}.failed.jsonl"


def _open_pcm(path: Path) -> np.ndarray:
    try:
        pcm = np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError:
        raise DuologueError(f"{path} is missing, but its .jsonl is there: delete that and prepare again") from None
    except (ValueError, OSError, EOFError) as error:
        # numpy refuses to map an array of no samples; such a shard (every clip failed) is whole all the same
        if path.stat().st_size and (empty := _load_empty(path)) is not None:
            return empty
        raise DuologueError(f"{path} cannot be read ({error}): delete this shard and prepare again") from None
    if pcm.dtype != np.int16 or pcm.ndim != 1:
        raise DuologueError(f"{path} holds {pcm.ndim}-D {pcm.dtype}, but PCM is 1-D int16")
    return pcm


def _load_empty(path: Path) -> np.ndarray | None:
    try:
        array = np.load(path, allow_pickle=False)
    except (ValueError, OSError, EOFError):
        return None
    return array if array.size == 0 and array.dtype == np.int16 else None


def _checksum(path: Path) -> int:
    checksum = 0
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            checksum = zlib.crc32(block, checksum)
    return checksum


def _read_header(file: Path) -> dict[str, Any]:
    header = read_json(file)
    if not isinstance(header, dict) or header.get("format") != FORMAT_VERSION:
        found = header.get("format") if isinstance(header, dict) else header
        raise DuologueError(f"{file} has format {found!r}, but this version reads {FORMAT_VERSION}")
    return header
