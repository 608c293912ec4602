"""What takes minutes: the time to first audio beside the WebSocket's, thousands of hostile messages, memory."""

from __future__ import annotations

import asyncio
import gc
import json
import os
import time
from collections.abc import Iterator

import numpy as np
import pytest

pytest.importorskip("fastapi")
pytest.importorskip("aiortc")
from hostile_messages import messages
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from running_server import ENGINE, Running, pcm16, running, samples, sound, wait
from webrtc_client import PATIENCE, calling, loopback_alone
from websockets.asyncio.client import connect

from duologue.inference.serving.app import ServeConfig
from duologue.inference.serving.http.limits import Limits

__all__ = ["loopback_alone"]
pytestmark = [pytest.mark.usefixtures("loopback_alone"), pytest.mark.slow]
AUDIBLE = 2e-3
HURRY = settings(phases=[Phase.generate], suppress_health_check=list(HealthCheck), database=None)
PIECE = 320  # samples at 16 kHz: 20 ms


@pytest.fixture(scope="module")
def server() -> Iterator[Running]:
    with running(ServeConfig(model="tiny", pool=ENGINE, limits=Limits(idle_s=3600)), speed=1.0) as found:
        yield found


async def by_websocket(server: Running, wave: np.ndarray, turns: int) -> list[float]:
    """From the last sample of speech sent to the first audible sample that a player plays which begins with the first
    delta, s, for each turn."""
    found: list[float] = []
    async with connect(f"ws{server.url[4:]}/v1/realtime") as socket:
        spoken_at, said = 0.0, asyncio.Event()

        async def speak() -> None:
            nonlocal spoken_at
            began, count = time.monotonic(), 0
            waiting = wave
            while True:
                if said.is_set():
                    waiting = wave
                    said.clear()
                piece, waiting = waiting[:PIECE], waiting[PIECE:]
                if len(piece) and not len(waiting):
                    spoken_at = time.monotonic()
                audio = pcm16(np.pad(piece, (0, PIECE - len(piece))))
                await socket.send(json.dumps({"type": "input_audio_buffer.append", "audio": audio}))
                count += 1
                await asyncio.sleep(max(0.0, began + count * 0.02 - time.monotonic()))

        speaking = asyncio.create_task(speak())
        begun, ahead, heard = 0.0, 0.0, False
        async for text in socket:
            event = json.loads(text)
            if event["type"] == "response.output_audio.delta" and not heard:
                begun = begun or time.monotonic()
                pcm = np.abs(samples(event["delta"])) > AUDIBLE
                if heard := bool(pcm.any()):
                    played_at = max(time.monotonic(), begun + ahead + int(np.argmax(pcm)) / 24_000)
                    found.append(played_at - spoken_at)
                ahead += len(pcm) / 24_000
            elif event["type"] == "response.done":
                begun, ahead, heard = 0.0, 0.0, False
                if len(found) == turns:
                    break
                said.set()
        speaking.cancel()
    return found


async def by_call(server: Running, wave: np.ndarray, turns: int) -> list[float]:
    """The same."""
    found: list[float] = []
    async with calling(server.url, at_once=True) as caller:
        for turn in range(turns):
            caller.voice.say(wave)
            await caller.until("output_audio_buffer.stopped", turn + 1)
            said_at = caller.voice.said_at
            found.append(next(when for when, loud in caller.heard if when > said_at and loud > AUDIBLE) - said_at)
    return found


def test_first_audio_is_as_soon_as_over_a_websocket(server: Running) -> None:
    """At the wire on both sides: the client's own jitter buffer, and its player, are not counted."""
    wave, turns = sound((0.4, False), (1.0, True)), 7

    async def run() -> tuple[list[float], list[float]]:
        return await by_websocket(server, wave, turns), await by_call(server, wave, turns)

    socket, call = ([1000 * seconds for seconds in found] for found in asyncio.run(run()))
    print(f"first audio, ms, median of {turns}: WebSocket {np.median(socket):.0f}, WebRTC {np.median(call):.0f}")
    print("all:", [round(ms) for ms in sorted(socket)], [round(ms) for ms in sorted(call)])
    assert np.median(call) - np.median(socket) < 100


@pytest.mark.timeout(5400)
def test_very_many_hostile_messages_on_a_data_channel(server: Running) -> None:
    """Each call ends by the limits or goes on; another call hears nothing of it, and no slot is lost."""
    most, a_call = int(os.environ.get("ATTACKS", "5000")), 100
    batches: list[list[str | bytes]] = []

    async def attack(batch: list[str | bytes]) -> None:
        async with calling(server.url) as caller:
            for message in batch:
                if caller.channel.readyState == "open":
                    caller.channel.send(message)
            if caller.channel.readyState == "open":
                caller.send("conversation.item.retrieve", item_id="no such item", event_id="the last")
            async with asyncio.timeout(PATIENCE):
                while not caller.closed.is_set() and not any(
                    event["error"]["event_id"] == "the last" for event in caller.of("error")
                ):
                    await asyncio.sleep(0.05)
            assert {event["error"]["type"] for event in caller.of("error")} <= {"invalid_request_error"}

    async def run() -> None:
        async with calling(server.url) as other:
            for batch in batches:
                await attack(batch)
            other.voice.say(sound((0.4, False), (1.0, True)))
            await other.until("output_audio_buffer.stopped")
            assert not other.of("error")

    @settings(HURRY, max_examples=most // a_call)
    @given(st.lists(messages, min_size=a_call, max_size=a_call))
    def drawn(batch: list[str | bytes]) -> None:
        batches.append(batch)

    drawn()
    asyncio.run(run())
    wait(lambda: server.service.pool.slots == 0)


def test_memory_is_level_over_calls(server: Running) -> None:
    """After twenty, it has what it needs."""

    async def some(count: int) -> None:
        for _ in range(count):
            async with calling(server.url):
                pass

    def resident() -> float:
        gc.collect()
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20

    asyncio.run(some(20))
    wait(lambda: server.service.pool.slots == 0)
    before = resident()
    asyncio.run(some(100))
    wait(lambda: server.service.pool.slots == 0)
    print(f"resident, MiB: {before:.0f} after 20 calls, {resident():.0f} after 120, both ends in one process")
    assert resident() - before < 16
