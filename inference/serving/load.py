"""How much a server can take: clients that talk in real time, as many as are wanted, and what became of them.

    python -m duologue.inference.serving.load http://127.0.0.1:8000 demo/assets/plus.flac --sessions 8 --seconds 60

Each client plays the recordings over and over into its session, in chunks of 80 ms when they are due and never sooner,
with a pause behind each for the answer. Who is refused does not come back. Lateness is the server's own, of every
frame, from its metrics: it is known to the width of a histogram's bucket.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import itertools
import json
import time
import urllib.request
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ..audio import read_audio

RATE, CHUNK_S = 24_000, 0.08


@dataclass
class Outcome:
    """What all clients together saw."""

    inside: int = 0
    refused: Counter[int] = field(default_factory=Counter)  # by HTTP status
    events: Counter[str] = field(default_factory=Counter)
    lost: list[str] = field(default_factory=list)  # conversations that ended before their time
    behind_s: float = 0.0  # that a client was behind its own clock at most: above some ms, this machine is the limit


async def talk(url: str, key: str, sound: np.ndarray, seconds: float, offset: float, outcome: Outcome) -> None:
    """One client for so long; ``sound`` (n,) float32 at 24 kHz is played over and over."""
    from websockets.asyncio.client import connect
    from websockets.exceptions import ConnectionClosed, InvalidStatus

    await asyncio.sleep(offset)
    data = (np.clip(sound, -1, 1) * 32_767).astype("<i2").tobytes()
    size = 2 * round(RATE * CHUNK_S)
    chunks = [data[at : at + size] for at in range(0, len(data) - size + 1, size)]
    headers = {"Authorization": f"Bearer {key}"}
    try:
        async with connect(f"{url.replace('http', 'ws', 1)}/v1/realtime", additional_headers=headers) as connection:
            outcome.inside += 1

            async def listen() -> None:
                async for message in connection:
                    outcome.events[json.loads(message)["type"]] += 1

            listening = asyncio.create_task(listen())
            began = time.monotonic()
            for i, chunk in enumerate(itertools.cycle(chunks)):
                due = began + i * CHUNK_S
                if due - began > seconds:
                    break
                await asyncio.sleep(max(0.0, due - time.monotonic()))
                outcome.behind_s = max(outcome.behind_s, time.monotonic() - due)
                audio = base64.b64encode(chunk).decode()
                await connection.send(json.dumps({"type": "input_audio_buffer.append", "audio": audio}))
            listening.cancel()
    except InvalidStatus as refusal:
        outcome.refused[refusal.response.status_code] += 1
    except (ConnectionClosed, OSError) as error:
        outcome.lost.append(str(error))


def lateness(url: str, key: str) -> dict[float, float]:
    """Frames at most so late (s), cumulative, by the server's metrics."""
    request = urllib.request.Request(f"{url}/metrics", headers={"Authorization": f"Bearer {key}"})
    with urllib.request.urlopen(request, timeout=10) as answer:
        lines = answer.read().decode().splitlines()
    name = "duologue_tick_lateness_seconds_bucket"
    rows = [line.split('"') for line in lines if line.startswith(name)]
    return {float(row[1]): float(row[2].split()[-1]) for row in rows}


def percentile(before: dict[float, float], after: dict[float, float], share: float) -> tuple[float, float]:
    """Between which two bounds (ms) that share of the frames' lateness lies."""
    counts = {bound: after[bound] - before.get(bound, 0) for bound in sorted(after)}
    wanted, below = share * counts[float("inf")], 0.0
    for bound, count in counts.items():
        if count >= wanted:
            return 1e3 * below, 1e3 * bound
        below = bound
    return 1e3 * below, float("inf")


async def measure(url: str, recordings: list[Path], sessions: int, seconds: float, key: str) -> dict[str, Any]:
    """So many clients at once, for so long: what a report says of it."""
    import soxr

    pause = np.zeros(4 * RATE, np.float32)
    sounds = [soxr.resample(read_audio(path, 16_000), 16_000, RATE) for path in recordings]
    outcome, before = Outcome(), await asyncio.to_thread(lateness, url, key)
    async with asyncio.TaskGroup() as clients:
        for i in range(sessions):
            order = [part for j in range(len(sounds)) for part in (sounds[(i + j) % len(sounds)], pause)]
            clients.create_task(talk(url, key, np.concatenate(order), seconds, 0.137 * i, outcome))
    after = await asyncio.to_thread(lateness, url, key)
    return {
        "sessions": sessions,
        "seconds": seconds,
        "inside": outcome.inside,
        "refused": dict(outcome.refused),
        "lost": outcome.lost,
        "frames": after[float("inf")] - before.get(float("inf"), 0),
        "late_ms": {f"p{100 * share:g}": percentile(before, after, share) for share in (0.5, 0.95, 0.99)},
        "answers": outcome.events["response.done"],
        "errors": outcome.events["error"],
        "client_behind_ms": round(1e3 * outcome.behind_s, 1),
    }


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description="Real-time-paced load on a server.")
    parser.add_argument("url")
    parser.add_argument("recordings", type=Path, nargs="+")
    parser.add_argument("--sessions", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--api-key", default="none")
    given = parser.parse_args()
    report = measure(given.url, given.recordings, given.sessions, given.seconds, given.api_key)
    print(json.dumps(asyncio.run(report), indent=1))


if __name__ == "__main__":
    main()
