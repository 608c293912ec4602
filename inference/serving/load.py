"""How much a server can take: clients that talk in real time, as many as are wanted, and what became of them.

    python -m duologue.inference.serving.load http://127.0.0.1:8000 demo/assets/examples/*.flac --sessions 8

Each client plays the recordings over and over into its session, in chunks of 80 ms when they are due and never sooner.
Behind each is a pause, as long as makes it speak for the fraction of time that is wanted. Who is refused does not come
back. Lateness is the server's own, of every frame, from its metrics: it is known to the width of a histogram's bucket.
A line a minute, on stderr, shows whether lateness or memory grow; the report, one JSON object, has them all.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import contextlib
import itertools
import json
import sys
import time
import urllib.request
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ...checkpoints.files import expanded
from ...checkpoints.program import program
from ...data_prep.audio import read_audio
from ...model.errors import DuologueError

RATE, CHUNK_S = 24_000, 0.08


@dataclass
class Outcome:
    """What all clients together saw."""

    inside: int = 0
    chunks: int = 0  # sent
    spoken: int = 0  # of them, with speech
    answered_s: float = 0.0  # of sound that came back
    statuses: Counter[str] = field(default_factory=Counter)  # of answers, by how they ended
    refused: Counter[int] = field(default_factory=Counter)  # by HTTP status
    events: Counter[str] = field(default_factory=Counter)
    lost: list[str] = field(default_factory=list)  # conversations that ended before their time
    behind_s: float = 0.0  # that a client was behind its own clock at most: above some ms, this machine is the limit


async def talk(
    url: str, key: str, sounds: list[np.ndarray], first: int, speaking: float, seconds: float, offset_s: float,
    seen: Outcome,
) -> None:  # fmt: skip
    """One client for so long; ``sounds``, each (n,) float32 at 24 kHz, are spoken in turn for that fraction of time,
    from the ``first`` on."""
    from websockets.asyncio.client import connect
    from websockets.exceptions import ConnectionClosed, InvalidStatus

    await asyncio.sleep(offset_s)
    size, chunks = round(RATE * CHUNK_S), []
    for sound in (sounds[(first + i) % len(sounds)] for i in range(len(sounds))):
        count = -(-len(sound) // size)
        pieces = np.pad(sound, (0, count * size - len(sound))).reshape(count, size)
        chunks += [((np.clip(each, -1, 1) * 32_767).astype("<i2").tobytes(), True) for each in pieces]
        chunks += [(bytes(2 * size), False)] * round(count * (1 / speaking - 1))
    headers = {"Authorization": f"Bearer {key}"}
    try:
        async with connect(f"{url.replace('http', 'ws', 1)}/v1/realtime", additional_headers=headers) as connection:
            seen.inside += 1

            async def listen() -> None:
                async for message in connection:
                    event = json.loads(message)
                    seen.events[event["type"]] += 1
                    if event["type"] == "response.output_audio.delta":
                        seen.answered_s += len(event["delta"]) * 3 / 4 / 2 / RATE
                    elif event["type"] == "response.done":
                        seen.statuses[event["response"]["status"]] += 1

            listening = asyncio.create_task(listen())
            began = time.monotonic()
            for i, (chunk, spoken) in enumerate(itertools.cycle(chunks)):
                if i * CHUNK_S > seconds:
                    break
                due = began + i * CHUNK_S
                await asyncio.sleep(max(0.0, due - time.monotonic()))
                seen.behind_s = max(seen.behind_s, time.monotonic() - due)
                audio = base64.b64encode(chunk).decode()
                await connection.send(json.dumps({"type": "input_audio_buffer.append", "audio": audio}))
                seen.chunks, seen.spoken = seen.chunks + 1, seen.spoken + spoken
            await asyncio.sleep(1.0)  # for the last frames
            listening.cancel()
    except InvalidStatus as refusal:
        seen.refused[refusal.response.status_code] += 1
    except (ConnectionClosed, OSError) as error:
        seen.lost.append(str(error))


@dataclass(frozen=True)
class Reading:
    """The server's metrics: frames at most so late (s), cumulative; resident memory; conversations."""

    late: dict[float, float]
    memory_mib: float
    sessions: int


def read(url: str, key: str) -> Reading:
    """Ask the server. Raises DuologueError where it does not answer."""
    try:
        request = urllib.request.Request(f"{url}/metrics", headers={"Authorization": f"Bearer {key}"})
        with urllib.request.urlopen(request, timeout=30) as answer:
            lines = answer.read().decode().splitlines()
    except (OSError, ValueError) as error:
        raise DuologueError(f"cannot read {url}/metrics: {getattr(error, 'reason', error)}") from None
    rows = [line.split('"') for line in lines if line.startswith("duologue_tick_lateness_seconds_bucket")]
    plain = dict(line.split(" ") for line in lines if line.startswith(("duologue_memory", "duologue_sessions")))
    return Reading(
        {float(row[1]): float(row[2].split()[-1]) for row in rows},
        float(plain["duologue_memory_bytes"]) / 2**20,
        int(float(plain["duologue_sessions"])),
    )


def percentile(before: dict[float, float], after: dict[float, float], fraction: float) -> tuple[float, float]:
    """Between which two bounds (ms) that fraction of the frames' lateness lies."""
    counts = {bound: after[bound] - before.get(bound, 0) for bound in sorted(after)}
    wanted, below = fraction * counts[float("inf")], 0.0
    for bound, count in counts.items():
        if count >= wanted:
            return 1e3 * below, 1e3 * bound
        below = bound
    return 1e3 * below, float("inf")


async def watch(url: str, key: str, every_s: float, rows: list[dict[str, Any]]) -> None:
    """A row a minute: what lateness and memory were."""
    before, began = await asyncio.to_thread(read, url, key), time.monotonic()
    while True:
        await asyncio.sleep(every_s)
        now = await asyncio.to_thread(read, url, key)
        row = {
            "at_s": round(time.monotonic() - began),
            "sessions": now.sessions,
            "p99_late_ms": percentile(before.late, now.late, 0.99),
            "memory_mib": round(now.memory_mib, 1),
        }
        rows.append(row)
        print(json.dumps(row), file=sys.stderr, flush=True)
        before = now


async def measure(
    url: str,
    recordings: list[Path],
    sessions: int,
    seconds: float,
    key: str,
    fraction: float = 0.5,
    every_s: float = 60.0,
) -> dict[str, Any]:
    """So many clients at once, for so long, each speaking for that fraction of time: what a report says of it."""
    sounds = [read_audio(path, RATE) for path in recordings]
    outcome, before = Outcome(), await asyncio.to_thread(read, url, key)
    rows: list[dict[str, Any]] = []
    watching = asyncio.create_task(watch(url, key, every_s, rows))
    async with asyncio.TaskGroup() as clients:
        for i in range(sessions):
            clients.create_task(talk(url, key, sounds, i, fraction, seconds, 0.137 * i, outcome))
    watching.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await watching
    after = await asyncio.to_thread(read, url, key)
    return {
        "sessions": sessions,
        "seconds": seconds,
        "inside": outcome.inside,
        "refused": dict(outcome.refused),
        "lost": outcome.lost,
        "chunks_sent": outcome.chunks,
        "frames_done": after.late[float("inf")] - before.late.get(float("inf"), 0),
        "late_ms": {f"p{100 * part:g}": percentile(before.late, after.late, part) for part in (0.5, 0.95, 0.99)},
        "share_users_speak": round(outcome.spoken / max(1, outcome.chunks), 3),
        "share_answers_sound": round(outcome.answered_s / max(CHUNK_S, outcome.chunks * CHUNK_S), 3),
        "turns": outcome.events["input_audio_buffer.committed"],
        "answers": dict(outcome.statuses),
        "errors": outcome.events["error"],
        "memory_mib": [round(before.memory_mib, 1), round(after.memory_mib, 1)],
        "minutes": rows,
        "client_behind_ms": round(1e3 * outcome.behind_s, 1),
    }


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description="Real-time-paced load on a server.")
    parser.add_argument("url")
    parser.add_argument("recordings", type=expanded, nargs="+")
    parser.add_argument("--sessions", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--speaking", type=float, default=0.5, help="fraction of time that each client speaks")
    parser.add_argument("--every", type=float, default=60.0, help="seconds from one line of the watch to the next")
    parser.add_argument("--api-key", default="none")
    given = parser.parse_args()
    if not 0 < given.speaking <= 1:
        parser.error(f"--speaking is {given.speaking}; it must be above 0 and at most 1")
    report = measure(
        given.url, given.recordings, given.sessions, given.seconds, given.api_key, given.speaking, given.every
    )
    print(json.dumps(asyncio.run(report), indent=1))


if __name__ == "__main__":
    program(main)
