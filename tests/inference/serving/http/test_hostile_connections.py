"""Clients that would hold up a server or use it up: by frames, chunks, bodies that never end, answers never read."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import time
from collections.abc import Iterator

import httpx
import numpy as np
import pytest
from running_server import ENGINE, Running, running, wait

from duologue.data_prep.audio import read_audio
from duologue.inference.serving.app import ServeConfig
from duologue.inference.serving.http import handshake
from duologue.inference.serving.http.access import Access, AccessConfig
from duologue.inference.serving.http.body import read_body
from duologue.inference.serving.http.feeding import AT_ONCE_S, Feeder
from duologue.inference.serving.http.limits import Limits
from duologue.inference.serving.protocol.errors import RequestError
from duologue.inference.serving.protocol.session_update import update
from duologue.inference.serving.protocol.settings import Settings
from duologue.inference.serving.requests import decoding
from duologue.inference.serving.workers.pool import PoolFull
from duologue.model.errors import DuologueError

UPGRADE = (
    "GET /v1/realtime HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{}\r\n"
)
BEGUN = b"POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 90000\r\n\r\n"
KEY = "a-key-of-some-length"


@pytest.fixture(scope="module")
def server() -> Iterator[Running]:
    with running() as found:
        yield found


@pytest.fixture
def raw(server: Running) -> Iterator[socket.socket]:
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as connected:
        yield connected


def ends(raw: socket.socket) -> bytes:
    """What comes until the server hangs up."""
    found = b""
    try:
        while piece := raw.recv(65_536):
            found += piece
    except ConnectionResetError:
        pass
    return found


@pytest.mark.parametrize("origin", ["http://[", "http://[::1", "http://[x]", "http://a b", "https://", "null", ""])
def test_an_origin_that_is_none(server: Running, caplog: pytest.LogCaptureFixture, origin: str) -> None:
    assert httpx.get(f"{server.url}/v1/models", headers={"Origin": origin}).status_code == 403
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as raw:
        raw.sendall(UPGRADE.format(f"Origin: {origin}\r\n").encode())
        assert b" 403 " in raw.recv(1000)
    assert not [record for record in caplog.records if record.exc_info]
    with pytest.raises(DuologueError, match="must be like"):
        AccessConfig(origins=(origin,))


def test_all_values_of_a_header_count(server: Running) -> None:
    own, other = ("Origin", server.url), ("Origin", "http://evil.example")
    assert httpx.get(f"{server.url}/v1/models", headers=[own]).status_code == 200
    for both in ([own, other], [other, own]):
        assert httpx.get(f"{server.url}/v1/models", headers=both).status_code == 403


def test_wrong_keys_from_many_addresses_are_limited_together() -> None:
    async def app(scope, receive, send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})

    access, found = Access(app, AccessConfig(keys=(KEY,))), []

    async def ask(key: str, address: str) -> int:
        async def send(message) -> None:
            if "status" in message:
                found.append(message["status"])

        headers = [(b"host", b"localhost"), (b"authorization", f"Bearer {key}".encode())]
        scope = {"type": "http", "method": "GET", "path": "/v1/models", "headers": headers, "client": (address, 1)}
        await access(scope, None, send)
        return found[-1]

    async def attack() -> None:
        assert await ask(KEY, "10.9.9.9") == 200
        tried = [await ask(f"wrong {i}", f"10.0.{i // 250}.{i % 250}") for i in range(2_000)]
        assert tried.count(401) < 1_200 and tried[-1] == 429
        assert await ask(KEY, "10.9.9.9") == 200, "who was right before goes on"

    asyncio.run(attack())


@pytest.mark.parametrize("body", ["Content-Length: 5\r\n", "Transfer-Encoding: chunked\r\n"])
def test_a_handshake_with_a_body_is_no_handshake(raw: socket.socket, body: str) -> None:
    raw.sendall(UPGRADE.format(body).encode())
    assert b" 101 " not in ends(raw)


@pytest.mark.parametrize("frame", [b"\x89\x80", b"\x8a\x80", b"\x00\x80"], ids=["ping", "pong", "fragment"])
def test_frames_that_are_no_messages_are_limited(server: Running, raw: socket.socket, frame: bytes) -> None:
    raw.sendall(UPGRADE.format("").encode())
    assert b" 101 " in raw.recv(1000)
    raw.sendall(b"\x01\x80\0\0\0\0" + (frame + b"\0\0\0\0") * 4_000)
    raw.sendall((frame + b"\0\0\0\0") * 500)
    assert b"frames come too fast" in ends(raw)
    wait(lambda: server.service.pool.slots == 0)


def test_text_that_is_no_utf8_is_no_fault_of_ours(raw: socket.socket, caplog: pytest.LogCaptureFixture) -> None:
    raw.sendall(UPGRADE.format("").encode())
    raw.recv(1000)
    raw.sendall(b"\x81\x82\0\0\0\0\xff\xfe")
    assert b"\x88\x02\x03\xef" in ends(raw)  # close 1007
    assert not [record for record in caplog.records if record.exc_info]


def test_others_have_their_turn_between_pieces() -> None:
    class Transport:
        reading = True

        def is_closing(self) -> bool:
            return False

        def pause_reading(self) -> None:
            self.reading = False

        def resume_reading(self) -> None:
            self.reading = True

    async def flood() -> None:
        loop, transport, taken, longest, last = asyncio.get_running_loop(), Transport(), b"", 0.0, time.monotonic()

        def take(piece: bytes) -> None:
            nonlocal taken
            time.sleep(0.001)
            taken += piece

        data = bytes(range(256)) * 500
        Feeder(loop, transport, take, lambda: False).put(data)
        while not transport.reading:
            await asyncio.sleep(0)
            longest, last = max(longest, time.monotonic() - last), time.monotonic()
        assert taken == data
        assert longest < 0.05 > AT_ONCE_S

    asyncio.run(flood())


def test_a_body_may_not_stop(raw: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(handshake, "BODY_S", 0.2)
    raw.sendall(BEGUN + b"{")
    assert ends(raw) == b""


def test_who_reads_nothing_is_cut_off(server: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before all that it has asked for could be sent: 1,000 answers, more than the system's buffers hold."""
    monkeypatch.setattr(handshake, "UNREAD_S", 0.2)
    answer = len(httpx.get(f"{server.url}/openapi.json").content)
    connections = server.server.server_state.connections
    wait(lambda: not connections)
    with socket.socket() as raw:
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        raw.settimeout(10)
        raw.connect(("127.0.0.1", server.port))
        wait(lambda: connections)
        raw.sendall(b"GET /openapi.json HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n" * 1000)
        wait(lambda: not connections)
        assert len(ends(raw)) < 1000 * answer


def test_a_body_that_never_ends_does_not_keep_the_server_from_ending(caplog: pytest.LogCaptureFixture) -> None:
    with running(ServeConfig(model="tiny", pool=ENGINE, grace_s=0.5)) as found:
        raw = socket.create_connection(("127.0.0.1", found.port), timeout=10)
        raw.sendall(BEGUN + b"{")
        assert httpx.get(f"{found.url}/health").status_code == 200
        began = time.monotonic()
    assert time.monotonic() - began < 10
    assert not [record for record in caplog.records if record.exc_info]
    raw.close()


def test_requests_have_a_size_together() -> None:
    access = AccessConfig(requests_bytes=100_000)
    with running(ServeConfig(model="tiny", pool=ENGINE, access=access)) as found:
        with socket.create_connection(("127.0.0.1", found.port)) as raw:
            raw.sendall(BEGUN + b" " * 80_000)
            wait(lambda: httpx.post(f"{found.url}/v1/chat/completions", content=b" " * 50_000).status_code == 503)
            refused = httpx.post(f"{found.url}/v1/chat/completions", content=b" " * 50_000)
            assert int(refused.headers["retry-after"]) >= 1 and refused.json()["error"]["code"] == "server_overloaded"
            assert httpx.get(f"{found.url}/v1/models").status_code == 200
        wait(lambda: httpx.post(f"{found.url}/v1/chat/completions", content=b" " * 50_000).status_code == 400)


@pytest.mark.parametrize("text", [rb"\"" * 4_000_000, rb"\\" * 4_000_000], ids=["quotes", "backslashes"])
def test_a_text_of_backslashes_costs_little(text: bytes) -> None:
    began = time.process_time()
    with pytest.raises(RequestError) as refused:
        asyncio.run(read_body(b'{"a": "' + text + b'"}', Limits()))
    assert refused.value.status == 413
    assert time.process_time() - began < 0.5


def test_few_recordings_are_decoded_at_a_time() -> None:
    release, begun = threading.Event(), []

    def slow() -> None:
        begun.append(1)
        release.wait(10)

    async def flood() -> None:
        gate = decoding.Decoding()
        waiting = [asyncio.create_task(gate(slow)) for _ in range(decoding._WAITING)]
        await asyncio.sleep(0.1)
        with pytest.raises(PoolFull):
            await gate(slow)
        await asyncio.to_thread(int)  # other threads are free
        for task in waiting[4:]:
            task.cancel()
        await asyncio.sleep(0.1)
        release.set()
        await asyncio.gather(*waiting, return_exceptions=True)
        assert len(begun) <= 4, "who has left before its turn costs nothing"
        await gate(slow)

    asyncio.run(flood())


@pytest.mark.parametrize("part", ["audio", "audio.input", "audio.output"])
def test_a_part_of_a_session_with_a_type(part: str) -> None:
    change: dict = {"type": "x"}
    for name in reversed(part.split(".")):
        change = {name: change}
    done = update(Settings.initial("tiny", "sess_1"), change)
    assert [error.param for error in done.errors] == [f"session.{part}.type"]
    assert done.settings == Settings.initial("tiny", "sess_1")


@pytest.mark.parametrize("frames", [10_007, 65_536])
def test_a_constant_in_two_channels_is_silence(frames: int) -> None:
    level = 0.1  # of which rounding makes less power than none
    assert len(read_audio((16_000, np.full((frames, 2), level, np.float32)))) == frames


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("speech", {"input": "hello", "response_format": []}),
        ("speech", {"input": "hello", "response_format": {}}),
        ("completions", {"temperature": 1e-320}),
        ("completions", {"temperature": 10**30}),  # the API has 0 to 2
        ("completions", {"temperature": 10**400}),
        ("completions", {"temperature": 1, "top_p": 1e-320}),
    ],
)
def test_values_of_the_wrong_kind_or_size(
    server: Running, caplog: pytest.LogCaptureFixture, path: str, body: dict
) -> None:
    asked = {"messages": [{"role": "user", "content": "hello"}], "max_tokens": 2, **body}
    where = {"speech": "/v1/audio/speech", "completions": "/v1/chat/completions"}[path]
    answer = httpx.post(f"{server.url}{where}", content=json.dumps(asked), timeout=60)
    assert answer.status_code == (400 if path == "speech" or body["temperature"] > 2 else 200), answer.text
    assert not [record for record in caplog.records if record.exc_info]
