"""Making a data set shard by shard, in several processes: the same for any number of them, and resumable.

Each recipe says how one shard is made; here it is decided which are still missing, and who makes them.
"""

from __future__ import annotations

import dataclasses
import functools
import multiprocessing
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from typing import Any

from ...model.errors import DuologueError
from ..speech.engine import SAMPLE_RATE
from .shards import Clip, Failure, ShardWriter

MakeShard = Callable[[], tuple[list[Clip], list[Failure]]]
LEAST = {"n": 1, "seed": 0, "workers": 0, "shard_size": 1}  # what a config's numbers must at least be


def require_at_least(config: Any, least: Mapping[str, int]) -> None:
    """Raises DuologueError that names the field of ``config`` that is smaller than it must be."""
    for name, smallest in least.items():
        if getattr(config, name) < smallest:
            raise DuologueError(f"{name}={getattr(config, name)}: expected at least {smallest}")


def run_clips(
    name: str, config: Any, make: Callable[[int, Any], Clip], *, progress: bool, newer: Sequence[str] = ()
) -> dict[str, Any]:
    """Make or complete a data set of clips that depend on the config and their number alone; returns its counts.

    Args:
        config: has out, n, seed, workers and shard_size; where its source lies does not decide what the clips are.
        make: the clip of a number, a function of a module, for it is pickled; its DuologueErrors are failures.
        newer: settings that the manifest leaves out where they have their defaults.
    """
    usual = {field.name: field.default for field in dataclasses.fields(config)}
    left_out = {"out", "workers", "source", *(key for key in newer if getattr(config, key) == usual[key])}
    parameters = {key: value for key, value in dataclasses.asdict(config).items() if key not in left_out}
    writer = ShardWriter(config.out, name=name, sample_rate=SAMPLE_RATE, seed=config.seed, parameters=parameters)
    return run_shards(
        writer,
        [functools.partial(_clips, config, make, shard) for shard in range(-(-config.n // config.shard_size))],
        clips=config.n,
        shard_size=config.shard_size,
        workers=config.workers,
        progress=progress,
    )


def _clips(config: Any, make: Callable[[int, Any], Clip], shard: int) -> tuple[list[Clip], list[Failure]]:
    clips, failures = [], []
    for index in range(shard * config.shard_size, min((shard + 1) * config.shard_size, config.n)):
        try:
            clips.append(make(index, config))
        except DuologueError as error:
            failures.append(Failure(f"{config.seed}-{index:07d}", str(error)))
    return clips, failures


def run_shards(
    writer: ShardWriter, shards: Sequence[MakeShard], *, clips: int, shard_size: int, workers: int, progress: bool
) -> dict[str, Any]:
    """Make the shards that are missing and finish the data set; returns its counts.

    Args:
        shards: how each is made, in their order; to be pickled into the workers.
        clips: how many there will be, failures included, in shards of `shard_size`.
        workers: processes; 0 takes one a processor.

    Raises DuologueError when every clip failed (nothing is left of the data set then) or a worker was killed.
    """
    missing = [shard for shard in range(len(shards)) if not writer.has(shard)]
    workers = min(workers or os.cpu_count() or 1, max(1, len(missing)))
    there = set(range(len(shards))) - set(missing)
    done = sum(min(shard_size, clips - shard * shard_size) for shard in there)
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, disable=not progress) as bar:
        task = bar.add_task(writer.header["name"], total=clips, completed=done)
        for made in _results(writer, {shard: shards[shard] for shard in missing}, workers):
            bar.advance(task, made)
    counts = writer.finish()
    if counts["clips"] == 0:
        kinds: dict[str, str] = {}
        for failure in writer.failures():
            kinds.setdefault(failure.reason.partition(":")[0], failure.reason)
        writer.discard()
        raise DuologueError(f"every clip failed, so nothing was kept: {'; '.join([*kinds.values()][:3])}")
    return counts


def _work(writer: ShardWriter, shard: int, make: MakeShard) -> int:
    """In a worker: make and store one shard. Returns how many clips it was to have."""
    clips, failures = make()
    writer.write(shard, clips, failures)
    return len(clips) + len(failures)


def _results(writer: ShardWriter, missing: dict[int, MakeShard], workers: int) -> Iterator[int]:
    if workers <= 1:
        yield from (_work(writer, shard, make) for shard, make in missing.items())
        return
    # fresh interpreters: a forked one would inherit locks and the parent's festival
    with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as pool:
        pending: set[Future[int]] = {pool.submit(_work, writer, shard, make) for shard, make in missing.items()}
        try:
            while pending:
                finished, pending = wait(pending, return_when=FIRST_COMPLETED)
                yield from (future.result() for future in finished)
        except BrokenProcessPool:
            raise DuologueError(
                "a worker was killed, perhaps for memory: run the command again, with fewer workers="
            ) from None
        finally:
            for future in pending:
                future.cancel()
