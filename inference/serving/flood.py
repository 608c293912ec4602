"""Does what one client sends delay others? Users who speak, without and with clients that flood the server with text.

    python -m duologue.inference.serving.flood demo/assets/examples/*.flac                  a server of its own, nano
    python -m duologue.inference.serving.flood demo/assets/examples/*.flac --url http://127.0.0.1:8000

The users (load.py) talk, each for half of the time unless told otherwise, in spans of which every second one has the
others in it: one client sends a text of 300 KB to be answered again and again; another half as much as may be sent,
which is read; a third breaks off in the middle of sending the one, and while the other is read. The report, one JSON
object, has the p99 lateness of all frames without and with them, in milliseconds, and its ratio: 1.5 at most is wanted.
A client that is itself late gives its later frames more time, so ``client_behind_ms`` must be small. The server must
have more session slots than users (``--sessions`` of ``duologue serve``).
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import itertools
import json
import os
import re
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from multiprocessing import get_context
from multiprocessing.connection import Connection, Pipe
from pathlib import Path
from typing import Any

import httpx

from ...checkpoints.program import program
from ...data_prep.audio import read_audio
from ...model.errors import DuologueError
from .http.limits import Limits
from .load import RATE, Outcome, read, talk

_TEXT = "what is seven plus two "
_PATH = "/v1/chat/completions"
_BEFORE_S = 3.0  # from when the users are inside to the first span
SERVED = Limits().text_chars // 2  # characters that fit into the context of a small model too
_START_S = 4.0  # that the process of the others may take to start
_LEAVE_S = 0.3  # from a text to its client's leaving


@dataclass
class Flood:
    """What became of the requests, by HTTP status or what was done; and how long /health took at most (s)."""

    statuses: Counter[str] = field(default_factory=Counter)
    health_s: float = 0.0
    health: Counter[str] = field(default_factory=Counter)

    def add(self, other: Flood) -> None:
        """What became of another span's."""
        self.statuses.update(other.statuses)
        self.health.update(other.health)
        self.health_s = max(self.health_s, other.health_s)


def _body(characters: int) -> bytes:
    text = (_TEXT * (characters // len(_TEXT) + 1))[:characters].rsplit(" ", 1)[0]
    return json.dumps({"model": "any", "messages": [{"role": "user", "content": text}], "max_tokens": 8}).encode()


async def _send(url: str, key: str, body: bytes, pause_s: float, end: float, seen: Flood) -> None:
    """One client that sends this again and again, and waits for each answer, the last one's too."""
    headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
    async with httpx.AsyncClient(timeout=60) as client:
        while True:
            try:
                answer = await client.post(url + _PATH, content=body, headers=headers)
                seen.statuses[f"{len(body)} bytes: {answer.status_code}"] += 1
            except httpx.HTTPError as error:
                seen.statuses[type(error).__name__] += 1
            if time.monotonic() > end:
                return
            await asyncio.sleep(pause_s)


async def _leave(url: str, key: str, half: bytes, whole: bytes, pause_s: float, end: float, seen: Flood) -> None:
    """One that leaves while ``whole`` is read, and in the middle of sending ``half``, by turns."""
    host, port = url.rpartition("//")[2].rsplit(":", 1)
    for i in itertools.count():
        if i > 1 and time.monotonic() > end:
            return
        body = half if i % 2 else whole
        head = f"POST {_PATH} HTTP/1.1\r\nHost: {host}:{port}\r\nAuthorization: Bearer {key}\r\n"
        head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        try:
            _, writer = await asyncio.open_connection(host.strip("[]"), int(port))
            writer.write(head.encode() + (body[: len(body) // 2] if i % 2 else body))
            await writer.drain()
            await asyncio.sleep(0.0 if i % 2 else _LEAVE_S)
            writer.transport.abort()
            seen.statuses["left in the middle of sending" if i % 2 else "left while it was read"] += 1
        except OSError as error:
            seen.statuses[type(error).__name__] += 1
        await asyncio.sleep(pause_s)


async def _health(url: str, end: float, seen: Flood) -> None:
    async with httpx.AsyncClient(timeout=60) as client:
        while not seen.health or time.monotonic() < end:
            began = time.monotonic()
            answer = await client.get(f"{url}/health")
            seen.health_s = max(seen.health_s, time.monotonic() - began)
            seen.health[answer.json()["status"]] += 1
            await asyncio.sleep(0.5)


def percentile_ms(counts: dict[float, float], part: float) -> float:
    """The lateness that so large a part of the frames does not exceed, milliseconds: linear within a bucket (s)."""
    wanted, low, below = part * counts[float("inf")], 0.0, 0.0
    for bound in sorted(counts):
        if counts[bound] >= wanted:
            inside = counts[bound] - below
            return 1e3 * (low + (bound - low) * (wanted - below) / inside if inside and bound < float("inf") else low)
        low, below = bound, counts[bound]
    return 1e3 * low


async def _others(url: str, key: str, characters: int, served: int, pause_s: float, seconds: float) -> Flood:
    """The clients that flood the server, for so long; each ends with an answer, however slowly it comes."""
    seen, long, end = Flood(), _body(served or characters), time.monotonic() + seconds
    clients = [
        _send(url, key, _body(characters), pause_s, end, seen),
        _leave(url, key, _body(characters), long, pause_s, end, seen),
        _health(url, end, seen),
    ]
    if served:
        clients.append(_send(url, key, long, pause_s, end, seen))
    for result in await asyncio.gather(*clients, return_exceptions=True):
        if isinstance(result, Exception):
            seen.statuses[repr(result)[:80]] += 1
    return seen


def _flood(results: Connection, *how: Any) -> None:
    """The whole life of their process. It gives way: elsewhere they would run on machines of their own."""
    os.nice(10)
    results.send(asyncio.run(_others(*how)))


async def _flooded(*how: Any) -> Flood:
    """Flood the server from a process of its own, lest the users be late for it."""
    results, theirs = Pipe(duplex=False)
    process = get_context("spawn").Process(target=_flood, args=(theirs, *how), daemon=True)
    process.start()
    theirs.close()
    try:
        seen: Flood = await asyncio.to_thread(results.recv)
    except EOFError:
        raise DuologueError("the flood did not run to its end; see the message above") from None
    finally:
        process.terminate()
    return seen


async def measure(
    url: str,
    recordings: list[Path],
    *,
    users: int = 4,
    seconds: float = 30.0,
    spans: int = 4,
    characters: int = 300_000,
    served: int = SERVED,
    pause_s: float = 0.05,
    speaking: float = 0.5,
    key: str = "none",
) -> dict[str, Any]:
    """So many users who speak, in so many spans of so long, every second one with the flood: what a report says."""
    sounds = [read_audio(path, RATE) for path in recordings]
    outcome, seen = Outcome(), Flood()
    totals: list[Counter[float]] = [Counter(), Counter()]
    rows = []
    talking_s = _BEFORE_S + spans * (seconds + _START_S / 2)
    async with asyncio.TaskGroup() as group:
        for i in range(users):
            group.create_task(talk(url, key, sounds, i, speaking, talking_s, 0.02 * i, outcome))
        await asyncio.sleep(_BEFORE_S)
        for span in range(spans):
            before = await asyncio.to_thread(read, url, key)
            if span % 2:
                seen.add(await _flooded(url, key, characters, served, pause_s, seconds))
            else:
                await asyncio.sleep(seconds)
            after = await asyncio.to_thread(read, url, key)
            counts = {bound: count - before.late.get(bound, 0) for bound, count in after.late.items()}
            totals[span % 2].update(counts)
            rows.append({"flood": bool(span % 2), "p99_late_ms": round(percentile_ms(counts, 0.99), 1)})
    await asyncio.sleep(1.0)
    left = await asyncio.to_thread(read, url, key)
    parts = (0.5, 0.95, 0.99)
    found = [{f"p{100 * part:g}": round(percentile_ms(dict(each), part), 2) for part in parts} for each in totals]
    return {
        "users": users,
        "inside": outcome.inside,
        "lost": outcome.lost,
        "errors": outcome.events["error"],
        "answers": dict(outcome.statuses),
        "frames": [total[float("inf")] for total in totals],
        "late_ms_without": found[0],
        "late_ms_with": found[1],
        "p99_ratio": round(found[1]["p99"] / max(1e-9, found[0]["p99"]), 2),
        "spans": rows,
        "requests": dict(seen.statuses),
        "health": dict(seen.health),
        "health_slowest_s": round(seen.health_s, 3),
        "sessions_left": left.sessions,
        "client_behind_ms": round(1e3 * outcome.behind_s, 1),
    }


@contextlib.contextmanager
def _server(model: str, users: int, workers: int) -> Iterator[str]:
    """A server of one's own: its address."""
    command = [sys.executable, "-m", "duologue", "serve", "--model", model, "--port", "0", "--workers", str(workers)]
    command += ["--sessions", str(users + 2)]
    settings = {**os.environ, "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=settings) as run:
        assert run.stdout is not None
        try:
            for line in run.stdout:
                if found := re.search(r"http://[^\s/]+", line):
                    yield found[0]
                    return
            raise DuologueError("the server did not start; see the message above")
        finally:
            run.terminate()


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description="Users who speak, without and with a flood of text.")
    parser.add_argument("recordings", type=Path, nargs="+")
    parser.add_argument("--url", help="a server that runs; otherwise one is started")
    parser.add_argument("--model", default="nano")
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--users", type=int, default=4)
    parser.add_argument("--seconds", type=float, default=30.0, help="of one span")
    parser.add_argument("--spans", type=int, default=4)
    parser.add_argument("--characters", type=int, default=300_000)
    parser.add_argument("--served", type=int, default=SERVED, help="characters of the text that is read; 0: none")
    parser.add_argument("--pause", dest="pause_s", type=float, default=0.05, help="seconds between a client's requests")
    parser.add_argument("--speaking", type=float, default=0.5, help="fraction of the time that each user speaks")
    parser.add_argument("--api-key", dest="key", default="none")
    given = vars(parser.parse_args())
    url, model, workers = (given.pop(name) for name in ("url", "model", "workers"))
    with contextlib.ExitStack() as stack:
        url = url or stack.enter_context(_server(model, given["users"], workers))
        print(json.dumps(asyncio.run(measure(url.rstrip("/"), **given)), indent=1))


if __name__ == "__main__":
    program(main)
