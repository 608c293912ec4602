"""What a client leaves behind when it goes: nothing. Sessions that ended, broke off or were cut off are forgotten, and
memory stays level however many there were (SESSIONS=500 pytest -m slow)."""

from __future__ import annotations

import ctypes
import gc
import json
import logging
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

pytest.importorskip("fastapi")
from running_server import Running, pcm16, running, sound, wait
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from duologue.inference.serving.realtime.conversation import Conversation
from duologue.inference.session.session import Session

STATM = Path("/proc/self/statm")
QUESTION = pcm16(sound((0.4, True)))


def answered(server: Running) -> None:
    """A spoken question, and its answer to the end."""
    with connect(f"{server.url.replace('http', 'ws')}/v1/realtime?model=tiny") as connection:
        for event in (
            {"type": "session.update", "session": {"type": "realtime", "audio": {"input": {"turn_detection": None}}}},
            {"type": "input_audio_buffer.append", "audio": QUESTION},
            {"type": "input_audio_buffer.commit"},
            {"type": "response.create"},
        ):
            connection.send(json.dumps(event))
        while '"response.done"' not in str(connection.recv(timeout=60)):
            pass


def broken_off(server: Running) -> None:
    """The client goes in the middle of an answer, and without a farewell."""
    url = f"{server.url.replace('http', 'ws')}/v1/realtime?model=tiny"
    connection = connect(url)
    text = '{"type": "conversation.item.create", "item": {"type": "message", "role": "user", "content": '
    connection.send(text + '[{"type": "input_text", "text": "what is two plus two"}]}}')
    connection.send('{"type": "response.create"}')
    while "response.output_audio.delta" not in str(connection.recv(timeout=60)):
        pass
    connection.socket.close()


def cut_off(server: Running) -> None:
    """A client that sends too much at once."""
    url = f"{server.url.replace('http', 'ws')}/v1/realtime?model=tiny"
    with connect(url) as connection, pytest.raises(ConnectionClosed):
        connection.send("x" * (5 << 20))
        while True:
            connection.recv(timeout=60)


def requests(server: Running) -> None:
    """One over HTTP, and one that is refused."""
    body: dict[str, Any] = {"messages": [{"role": "user", "content": "what is two plus two"}], "max_tokens": 2}
    for messages in (body, {**body, "messages": 3}):
        httpx.post(f"{server.url}/v1/chat/completions", json=messages, timeout=60)


WAYS = [answered, broken_off, cut_off, requests]


def left(kind: type) -> int:
    """How many of a kind are still there."""
    gc.collect()
    return sum(type(each) is kind for each in gc.get_objects())


@pytest.fixture(scope="module")
def server() -> Iterator[Running]:
    with running(speed=50.0) as found:
        yield found


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
def test_nothing_is_left(server: Running, way: Callable[[Running], None]) -> None:
    before = left(Session)  # those of another test's server may still be there
    for _ in range(3):
        way(server)
    wait(lambda: server.service.pool.slots == 0)
    wait(lambda: left(Conversation) == 0 and left(Session) <= before)


@pytest.mark.slow
@pytest.mark.timeout(5400)
@pytest.mark.skipif(not STATM.exists(), reason="no /proc: nobody tells how much memory is in use")
def test_memory_is_level(server: Running, request: pytest.FixtureRequest) -> None:
    """Between the first tenth of the sessions and the last, no more is added than noise."""
    count = int(os.environ.get("SESSIONS", "500"))
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    page, seen = os.sysconf("SC_PAGE_SIZE"), list[float]()
    logging.disable(logging.CRITICAL)  # pytest keeps what is logged, and with it the clients' own buffers
    request.addfinalizer(lambda: logging.disable(logging.NOTSET))
    for number in range(count):
        WAYS[number % len(WAYS)](server)
        gc.collect()
        if trim is not None:
            trim(0)  # what the allocator holds in reserve is no leak
        seen.append(int(STATM.read_text().split()[1]) * page / 2**20)
    tenth = max(1, count // 10)
    early, late = min(seen[tenth : 2 * tenth]), min(seen[-tenth:])
    print(f"{early:.1f} MiB after {tenth} sessions, {late:.1f} MiB after {count}")
    assert late - early < 0.02 * early, seen[:: max(1, count // 20)]
