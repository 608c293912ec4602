"""A WebRTC client of aiortc's, with a microphone that plays a sound; and a relay that loses and delays its packets."""

from __future__ import annotations

import asyncio
import json
import random
import re
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from fractions import Fraction
from typing import Any

import aioice.ice
import av
import httpx
import numpy as np
import pytest
from aiortc import MediaStreamTrack, RTCConfiguration, RTCPeerConnection, RTCSessionDescription

from duologue.inference.serving.protocol.events import SERVER
from duologue.inference.serving.webrtc.microphone import Microphone
from duologue.inference.serving.webrtc.peer import Tap, jitter_buffer

RATE, SAMPLES = 48_000, 960
PATIENCE = 60.0  # s, for a busy machine


@pytest.fixture(scope="module")
def loopback_alone() -> Any:
    """Both ends have the address 127.0.0.1 alone, whatever networks this machine has."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(aioice.ice, "get_host_addresses", lambda use_ipv4, use_ipv6: ["127.0.0.1"])
        yield


class Voice(MediaStreamTrack):
    """A microphone: what is said to it, 20 ms at a time by the clock; silence otherwise."""

    kind = "audio"

    def __init__(self) -> None:
        super().__init__()
        self._unsaid = np.zeros(0, np.float32)
        self._count, self._began = 0, 0.0
        self.said = asyncio.Event()  # all that was said has been sent
        self.said_at = 0.0

    def say(self, wave: np.ndarray, rate: int = 16_000) -> None:
        """(n,) float32."""
        self._unsaid = np.concatenate([self._unsaid, np.repeat(wave, RATE // rate).astype(np.float32)])
        self.said.clear()

    async def recv(self) -> av.AudioFrame:
        self._began = self._began or time.monotonic()
        await asyncio.sleep(max(0.0, self._began + self._count * SAMPLES / RATE - time.monotonic()))
        piece, self._unsaid = self._unsaid[:SAMPLES], self._unsaid[SAMPLES:]
        if len(piece) and not len(self._unsaid):
            self.said_at = time.monotonic()
            self.said.set()
        pcm = (np.pad(piece, (0, SAMPLES - len(piece))) * 32_767).astype(np.int16)
        frame = av.AudioFrame.from_ndarray(pcm[None], format="s16", layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = RATE, self._count * SAMPLES, Fraction(1, RATE)
        self._count += 1
        return frame


class Caller:
    """One end of a call. events: that came, each checked by the package's own type. heard: packets' loudness, and when
    they came. at_once: they are heard as they come, without aiortc's jitter buffer."""

    def __init__(self, at_once: bool = False) -> None:
        self.connection = RTCPeerConnection(RTCConfiguration(iceServers=[]))
        self.voice = Voice()
        self.events: list[dict[str, Any]] = []
        self.heard: list[tuple[float, float]] = []
        self.location = ""
        self.closed = asyncio.Event()
        self._came = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        if at_once:
            with jitter_buffer(Tap(Microphone(self._hear))):
                self.connection.addTrack(self.voice)
        else:
            self.connection.addTrack(self.voice)
        self.channel = self.connection.createDataChannel("oai-events")
        self.channel.on("message", self._message)
        self.channel.on("close", self.closed.set)
        self.connection.on("track", lambda track: self._tasks.append(asyncio.create_task(self._listen(track))))

    async def offer(self) -> str:
        await self.connection.setLocalDescription(await self.connection.createOffer())
        return self.connection.localDescription.sdp

    async def call(
        self, url: str, key: str = "", change: Callable[[str], str] = lambda answer: answer, **how: Any
    ) -> httpx.Response:
        """change: of the answer."""
        headers = {"content-type": "application/sdp"} | ({"authorization": f"Bearer {key}"} if key else {})
        sdp = await self.offer()
        async with httpx.AsyncClient(timeout=PATIENCE) as http:
            answer = await http.post(f"{url}/v1/realtime/calls", content=sdp, headers=headers, **how)
        if answer.status_code == 201:
            await self.accept(answer.headers["location"], change(answer.text))
        return answer

    async def accept(self, location: str, answer: str) -> None:
        self.location = location
        await self.connection.setRemoteDescription(RTCSessionDescription(answer, "answer"))

    def send(self, kind: str, **fields: Any) -> None:
        self.channel.send(json.dumps({"type": kind, **fields}))

    async def until(self, kind: str, times: int = 1) -> list[dict[str, Any]]:
        """Events up to the one of a type (its so manieth)."""
        async with asyncio.timeout(PATIENCE):
            while sum(event["type"] == kind for event in self.events) < times:
                self._came.clear()
                await self._came.wait()
        return self.events

    def of(self, kind: str) -> list[dict[str, Any]]:
        return [event for event in self.events if event["type"] == kind]

    async def close(self) -> None:
        await self.connection.close()
        for task in self._tasks:
            task.cancel()

    def _message(self, text: str) -> None:
        event = json.loads(text)
        SERVER[event["type"]].model_validate(event, strict=False)
        self.events.append(event)
        self._came.set()

    def _hear(self, pcm: bytes) -> None:
        loud = np.sqrt(np.mean((np.frombuffer(pcm, "<i2").astype(np.float32) / 32_768) ** 2))
        self.heard.append((time.monotonic(), float(loud)))

    async def _listen(self, track: MediaStreamTrack) -> None:
        while True:
            frame = await track.recv()
            assert isinstance(frame, av.AudioFrame)
            pcm = frame.to_ndarray().astype(np.float32)
            self.heard.append((time.monotonic(), float(np.sqrt(np.mean(pcm**2))) / 32_768))


class LossyRelay(asyncio.DatagramProtocol):
    """UDP between a caller and one address of the service: of packets some are lost, and each is late by chance.

    lost: fraction. jitter_s: at most; packets overtake one another.
    """

    def __init__(self, to: tuple[str, int], lost: float, jitter_s: float, seed: int = 0) -> None:
        self._to, self._lost, self._jitter_s, self._random = to, lost, jitter_s, random.Random(seed)
        self._caller: tuple[str, int] | None = None
        self.passed = self.dropped = 0

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def datagram_received(self, data: bytes, source: tuple[str, int]) -> None:
        if source == self._to:
            target = self._caller
        else:
            self._caller, target = source, self._to
        if target is None or self._random.random() < self._lost:
            self.dropped += 1
            return
        self.passed += 1
        delay = self._random.random() * self._jitter_s
        asyncio.get_running_loop().call_later(delay, self._transport.sendto, data, target)

    @property
    def address(self) -> tuple[str, int]:
        return self._transport.get_extra_info("sockname")[:2]

    def close(self) -> None:
        self._transport.close()


async def relayed(answer: str, lost: float, jitter_s: float) -> tuple[str, LossyRelay]:
    """The answer with a relay's address in the place of the service's."""
    host, port = re.findall(r"a=candidate:\S+ 1 udp \d+ (127\S+) (\d+) typ host", answer)[0]
    _, relay = await asyncio.get_running_loop().create_datagram_endpoint(
        lambda: LossyRelay((host, int(port)), lost, jitter_s), local_addr=("127.0.0.1", 0)
    )
    return answer.replace(f"{host} {port} typ", f"{host} {relay.address[1]} typ"), relay


@asynccontextmanager
async def calling(url: str, key: str = "", at_once: bool = False, **how: Any) -> AsyncIterator[Caller]:
    """A call that is connected, and has been greeted."""
    caller = Caller(at_once)
    try:
        answer = await caller.call(url, key, **how)
        assert answer.status_code == 201, answer.text
        await caller.until("session.created")
        yield caller
    finally:
        await caller.close()
