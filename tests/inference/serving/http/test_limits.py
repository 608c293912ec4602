"""Nothing that one client sends delays another: lengths, sizes, who leaves, who says nothing, who waits for a slot."""

from __future__ import annotations

import asyncio
import base64
import concurrent.futures
import contextlib
import json
import socket
import threading
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("fastapi")
import httpx
import websockets
from running_server import ENGINE, collect, pcm16, running, sound, wait
from test_serving import KEY, OTHER, refusal, wav, ws
from tiny_assistant import HEARD, SAID
from websockets.sync.client import connect

from duologue.inference.serving import flood
from duologue.inference.serving.app import ServeConfig
from duologue.inference.serving.http import handshake
from duologue.inference.serving.http.access import AccessConfig
from duologue.inference.serving.http.admission import Admission
from duologue.inference.serving.http.body import decoded, read_body
from duologue.inference.serving.http.limits import Limits, Throttle, check_texts
from duologue.inference.serving.protocol.errors import RequestError
from duologue.inference.serving.requests.answering import Stream
from duologue.inference.serving.transports.outbox import Outbox
from duologue.inference.serving.workers.pool import PoolFull, WorkerPoolConfig
from duologue.inference.session.state import SessionConfig
from duologue.model.errors import DuologueError
from duologue.model.language_model.causal_lm import LLM

ONE = WorkerPoolConfig(sessions=1, late_ms=1e9)
HEAD = "POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {}\r\n\r\n"
ASKED = [{"role": "user", "content": "what is two plus two"}]


@pytest.fixture(scope="module")
def server():
    with running() as found:
        yield found


def complete(found, messages, **more) -> httpx.Response:
    body = {"model": "tiny", "messages": messages, **more}
    return httpx.post(f"{found.url}/v1/chat/completions", json=body, timeout=60)


# Lengths.


@pytest.mark.parametrize("characters", [24_000, 97_000, 300_000, 4_000_000])
def test_a_text_has_a_length(server, characters: int) -> None:
    text = ("what " * characters)[:characters]
    answer = complete(server, [{"role": "user", "content": text}])
    assert answer.status_code == 400
    error = answer.json()["error"]
    assert error["code"] in ("string_above_max_length", "too_large") or characters > 1 << 20
    if characters < 1 << 20:
        assert str(characters) in error["message"] and "16000" in error["message"]
        assert error["param"] == "messages.0.content"


@pytest.mark.parametrize(
    "messages",
    [
        [{"role": "user", "content": "what " * 1000}] * 5,
        [{"role": "system", "content": "what " * 5000}, *ASKED],
        [{"role": "user", "content": [{"type": "text", "text": "what " * 1000}] * 5}],
        [{"role": "user", "content": "what", "name": "x" * 20_000}],
        [{"role": "user", "content": "what", "x" * 20_000: 1}],
    ],
    ids=["together", "instructions", "parts", "a name", "a field"],
)
def test_texts_have_a_length_together(server, messages) -> None:
    answer = complete(server, messages)
    assert answer.status_code == 400 and answer.json()["error"]["code"] == "string_above_max_length"


def test_what_does_not_fit_the_context_is_an_error_of_the_clients(server) -> None:
    answer = complete(server, [{"role": "user", "content": "what " * 2500}])
    assert answer.status_code == 400 and "2500 tokens" in answer.json()["error"]["message"]
    past = [{"role": role, "content": "what " * 450} for _ in range(3) for role in ("user", "assistant")]
    answer = complete(server, [*past, *ASKED])
    assert answer.status_code == 400 and "context has 2048 positions" in answer.json()["error"]["message"]
    answer = complete(server, ASKED * 300)
    assert answer.status_code == 400 and "300 messages; at most 256" in answer.json()["error"]["message"]
    assert server.service.pool.slots == 0


def test_json_has_a_size(server) -> None:
    post = f"{server.url}/v1/chat/completions"
    for body, status in (
        (b'{"messages": [' + b"{}," * 1_000_000 + b"{}]}", 413),
        (b'{"messages": [' + b"1," * 60_000 + b"1]}", 413),
        (b'{"messages": "' + b"\\u0041" * 300_000 + b'"}', 413),
        (b'{"messages": [' + b"1," * 6_000 + b"1]}", 413),
        (b"[" * 40_000, 400),
        (b'{"x":"' + b"A" * 100_000 + b'","a":' + b"[" * 600 + b"1" + b"]" * 600 + b"}", 400),
        (b'{"a":' + b"[" * 40 + b"1" + b"]" * 40 + b"}", 400),
        (b'{"a":' * 20_000, 400),
        (b'"' * 200_000, 413),
    ):
        began = time.monotonic()
        answer = httpx.post(post, content=body, headers={"Content-Type": "application/json"}, timeout=60)
        assert answer.status_code == status and answer.json()["error"]["message"], answer.text[:200]
        assert time.monotonic() - began < 5


@pytest.mark.parametrize(
    "text", ["", 'a "quoted" text', "back\\slash\\", '\\"', "é\n😀", "x" * 5], ids=lambda text: ascii(text)[:12]
)
def test_a_body_is_read_as_json(text: str) -> None:
    """With recordings of any place in it, which are cut out of it."""
    recording = bytes(np.random.default_rng(0).integers(0, 256, 3 << 20, dtype=np.uint8))
    data = base64.b64encode(recording).decode()
    value = {"before": text, "sound": {"data": data}, "list": [text, data, 1, None], text: {"x": [text]}}
    for ascii_only in (True, False):
        read = asyncio.run(read_body(json.dumps(value, ensure_ascii=ascii_only).encode(), Limits()))
        assert asyncio.run(decoded(read["sound"]["data"])) == recording
        read["sound"]["data"] = bytes(read["sound"]["data"]).decode()
        read["list"][1] = bytes(read["list"][1]).decode()
        assert read == value
    with pytest.raises(DuologueError, match="not base64"):
        asyncio.run(decoded(data[:99_999] + "*" + data[99_999:]))


def test_limits_are_named() -> None:
    ten = Limits(text_chars=10, values=20)
    with pytest.raises(RequestError, match=r"a\.b\.1 has 11 characters; a text has at most 10"):
        check_texts({"a": {"b": ["x", "y" * 11]}}, ten)
    with pytest.raises(RequestError, match="12 characters together; they may have 10"):
        check_texts({"a": "x" * 5, "b": "x" * 5}, ten)
    check_texts({"a": {"audio": "x" * 100}}, ten, "audio")
    with pytest.raises(RequestError, match="more than 20 values"):
        check_texts({"a": [1] * 20}, ten)
    with pytest.raises(DuologueError, match="queue is 0; it must be above 0"):
        Limits(queue=0)


LONG = "what " * 60_000
ITEM = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": LONG}]}


@pytest.mark.parametrize(
    "event",
    [
        {"type": "conversation.item.create", "item": ITEM},
        {"type": "conversation.item.create", "item": {**ITEM, "id": LONG}},
        {"type": "session.update", "session": {"type": "realtime", "instructions": LONG}},
        {"type": "session.update", "session": {"type": "realtime", "audio": LONG}},
        {"type": "response.create", "response": {"instructions": LONG}},
        {"type": "response.create", "response": {"conversation": "none", "input": [ITEM]}},
        {"type": "response.create", "response": {"conversation": "none", "metadata": {"x": LONG}}},
        {"type": LONG},
        {"type": "input_audio_buffer.clear", "event_id": LONG},
    ],
    ids=lambda event: event["type"][:24],
)
def test_texts_of_a_realtime_session_have_a_length(server, event) -> None:
    with server.client().realtime.connect(model="tiny") as connection:
        collect(connection, "session.created")
        connection.send(event)
        error = collect(connection, "error")[-1].error
        assert error.code == "string_above_max_length" and "300000 characters" in error.message
        connection.send({"type": "input_audio_buffer.clear"})
        collect(connection, "input_audio_buffer.cleared")


def test_a_session_does_not_grow(server) -> None:
    """However many fields a client sets."""
    with server.client().realtime.connect(model="tiny") as connection:
        collect(connection, "session.created")
        for i in range(6):
            connection.send({"type": "session.update", "session": {"type": "realtime", f"x{i}": "what " * 3_000}})
        collect(connection, "error")
        (session,) = server.service.sessions
        assert len(json.dumps(session.conversation.settings.session)) < 40_000


def test_a_realtime_event_has_so_many_values(server) -> None:
    with connect(ws(server)) as socket_:
        socket_.recv()
        socket_.send('{"type": "session.update", "session": [' + "1," * 100_000 + "1]}")
        assert json.loads(socket_.recv())["error"]["code"] == "too_large"
        items = [{"type": "message", "role": "user", "content": [{"type": "input_text", "text": "what"}]}] * 300
        response = {"conversation": "none", "input": items}
        socket_.send(json.dumps({"type": "response.create", "response": response}))
        assert "300 items; at most 256" in json.loads(socket_.recv())["error"]["message"]


def test_who_does_not_read_is_cut_off() -> None:
    """Whatever is sent to it is kept no longer than there is room for."""
    outbox = Outbox()
    for _ in range(50):
        outbox.put("x" * (4 << 20))
    assert asyncio.run(outbox.take()) == "" and outbox.empty and outbox.written == 50 * (4 << 20)
    outbox = Outbox()
    for _ in range(5_000):
        outbox.put("x")
    assert asyncio.run(outbox.take()) == ""


def test_many_items_are_read_once_the_last_has_come(server, monkeypatch) -> None:
    """Not anew after each of them; and a question that follows is asked behind all of them."""
    with server.client().realtime.connect(model="tiny") as connection:
        collect(connection, "session.created")
        (session,) = server.service.sessions
        calls: list[str] = []
        call = session.conversation.port.slot.call

        def counted(method, *args, **named):
            calls.append(method)
            return call(method, *args, **named)

        monkeypatch.setattr(session.conversation.port.slot, "call", counted)
        for i in range(60):
            kind, role = (("input_text", "user"), ("output_text", "assistant"))[i % 2]
            item = {"type": "message", "role": role, "content": [{"type": kind, "text": f"what is {i}"}]}
            connection.conversation.item.create(item=item, previous_item_id=None if i else "root")
        collect(connection, "conversation.item.done", 60)
        wait(lambda: not session.conversation.port.reading)
        assert 1 <= calls.count("remember") < 40
        connection.conversation.item.create(
            item={"type": "message", "role": "user", "content": [{"type": "input_text", "text": "what is two"}]}
        )
        connection.response.create()
        assert collect(connection, "response.done")[-1].response.status == "completed"
        assert calls[-1] == "type" or "remember" not in calls[len(calls) - calls[::-1].index("type") :]


# Who leaves.


@pytest.fixture
def slow(monkeypatch):
    """A language model that takes its time once ``on`` is set; how many steps it has made then."""
    found = SimpleNamespace(on=False, steps=0)
    extend = LLM.extend

    def slowly(self, embeds, state):
        if found.on:
            found.steps += 1
            time.sleep(0.03)
        return extend(self, embeds, state)

    monkeypatch.setattr(LLM, "extend", slowly)
    return found


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("text", ["what " * 1900, "what is two"], ids=["being read", "being answered"])
def test_who_leaves_gives_the_slot_back_at_once(slow, stream: bool, text: str) -> None:
    with running() as found:
        slow.on = True
        body = json.dumps({"messages": [{"role": "user", "content": text}], "stream": stream}).encode()
        with socket.create_connection(("127.0.0.1", found.port)) as raw:
            raw.sendall(HEAD.format(len(body)).encode() + body)
            wait(lambda: slow.steps > 3)
        wait(lambda: found.service.pool.slots == 0, 10)
        time.sleep(0.1)
        assert slow.steps < 90, "of 120 steps"
        assert "duologue_clients_left_total 1.0" in httpx.get(f"{found.url}/metrics").text or stream


def test_who_breaks_off_while_sending_is_no_fault_of_ours(server, caplog) -> None:
    with socket.create_connection(("127.0.0.1", server.port)) as raw:
        raw.sendall(HEAD.format(1000).encode() + b'{"messages": ')
    with socket.create_connection(("127.0.0.1", server.port)) as raw:
        raw.sendall(HEAD.replace("chat/completions", "audio/speech").format(1000).encode())
    wait(lambda: not server.server.server_state.tasks)
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


@pytest.mark.slow
def test_the_flood_bench_reports(server) -> None:
    """Its requests are answered or refused, and leave nothing behind."""
    server.service.pool.late_ms.clear()
    with TemporaryDirectory() as folder:
        path = Path(folder) / "speech.wav"
        path.write_bytes(wav(sound((1.0, True))))
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(flood, "_BEFORE_S", 0.3)
            report = asyncio.run(flood.measure(server.url, [path], users=2, seconds=2.5, spans=2, pause_s=0.02))
    assert report["inside"] == 2 and not report["lost"] and report["sessions_left"] == 0
    assert report["frames"][0] > 0 and report["frames"][1] > 0 and report["health"].keys() == {"ok"}
    assert report["requests"]["300076 bytes: 400"] > 0 and report["requests"]["left in the middle of sending"] > 0
    assert flood.percentile_ms({0.01: 50.0, 0.02: 100.0, float("inf"): 100.0}, 0.75) == 15.0


def test_a_stream_that_never_began_gives_the_slot_back() -> None:
    left: list[int] = []

    async def nothing():
        yield b""

    async def gone():
        return {"type": "http.disconnect"}

    async def stuck(message):
        raise OSError("gone")

    response = Stream(nothing(), SimpleNamespace(leave=lambda: left.append(1)), "text/plain")  # type: ignore[arg-type]
    with contextlib.suppress(BaseException):
        asyncio.run(response({"type": "http", "asgi": {"spec_version": "2.3"}}, gone, stuck))
    assert left


# The queue.


def transcribe(found, key: str = "none") -> httpx.Response:
    files = {"file": ("q.wav", wav(sound((1.0, True))))}
    headers = {"Authorization": f"Bearer {key}"}
    return httpx.post(f"{found.url}/v1/audio/transcriptions", files=files, headers=headers, timeout=60)


def test_requests_wait_for_a_slot() -> None:
    with running(ServeConfig(model="tiny", pool=ONE)) as found:
        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(lambda _: transcribe(found), range(8)))
        assert [answer.status_code for answer in answers] == [200] * 8
        assert {answer.json()["text"] for answer in answers} == {HEARD}
        metrics = httpx.get(f"{found.url}/metrics").text
        assert "duologue_queue_seconds_count 8" in metrics and "duologue_queue 0.0" in metrics
        assert found.service.pool.slots == 0


def test_beyond_the_queue_it_is_said_when_to_ask_again(slow) -> None:
    config = ServeConfig(model="tiny", pool=ONE, limits=Limits(queue=1, wait_s=0.3))
    with running(config) as found:
        assert complete(found, ASKED).status_code == 200
        slow.on = True
        with concurrent.futures.ThreadPoolExecutor(4) as pool:
            long = pool.submit(complete, found, [{"role": "user", "content": "what " * 900}])
            wait(lambda: found.service.pool.slots == 1)
            others = [pool.submit(complete, found, ASKED) for _ in range(3)]
            refused = [other.result() for other in others]
            # Who leaves the queue makes room in it.
            with pytest.raises(httpx.ReadTimeout):
                httpx.post(f"{found.url}/v1/chat/completions", json={"messages": ASKED}, timeout=0.1)
            wait(lambda: found.service.admission.waiting == 0)
            assert long.result().status_code == 200
        for answer in refused:
            assert answer.status_code == 503 and answer.json()["error"]["code"] == "server_overloaded"
            assert 1 <= int(answer.headers["retry-after"]) <= 5
        assert "within 0.3 s" in "".join(answer.text for answer in refused)
        assert "1 requests wait already" in "".join(answer.text for answer in refused)
        with connect(ws(found)):
            status, error = refusal(found)
            assert status == 503 and error["code"] == "server_overloaded"


class Slot:
    def __init__(self, room: Room) -> None:
        self.room = room

    def leave(self) -> None:
        self.room.leave(self)


class Room:
    """A pool with so many slots."""

    def __init__(self, slots: int) -> None:
        self.slots, self.inside, self.on_leave = slots, 0, None

    def room(self) -> int:
        return self.slots

    def sit(self, config):
        if self.inside >= self.slots:
            raise PoolFull("full")
        self.inside += 1
        return Slot(self)

    def leave(self, slot) -> None:
        self.inside -= 1
        self.on_leave(slot)


def test_the_queue_is_fair_between_keys() -> None:
    """First whose key has the fewest slots, then who came first."""

    async def scene() -> list[int]:
        admission = Admission(Room(3), Limits(), None, 2)
        first = [await admission.wait(0) for _ in range(2)]
        slot = await admission.wait(1)
        order: list[int] = []

        async def come(key: int) -> None:
            its = await admission.wait(key)
            order.append(key)
            first.append(its)

        tasks = [asyncio.create_task(come(key)) for key in (0, 0, 0, 1, 1)]
        await asyncio.sleep(0)
        for _ in range(5):
            (slot if slot is not None else first.pop(0)).leave()
            slot = None
            await asyncio.sleep(0.01)
        for _ in range(5):
            if not all(task.done() for task in tasks):
                first.pop(0).leave()
                await asyncio.sleep(0.01)
        await asyncio.wait_for(asyncio.gather(*tasks), 5)
        return order

    order = asyncio.run(scene())
    assert sorted(order) == [0, 0, 0, 1, 1] and order[0] == 1, "the other key had none left"
    assert order.index(0) <= 2


def test_who_leaves_the_queue_gives_up_the_slot_that_came_too_late() -> None:
    async def scene() -> None:
        room = Room(1)
        admission = Admission(room, Limits(), None, 0)
        slot = await admission.wait(-1)
        waits = asyncio.create_task(admission.wait(-1))
        await asyncio.sleep(0)
        slot.leave()  # the slot is now the other's
        waits.cancel()
        await asyncio.gather(waits, return_exceptions=True)
        assert room.inside == 0 and admission.waiting == 0

    asyncio.run(scene())


def test_no_key_takes_all_slots() -> None:
    access = AccessConfig(keys=(KEY, OTHER))
    config = ServeConfig(
        model="tiny", pool=WorkerPoolConfig(sessions=3, late_ms=1e9), access=access, limits=Limits(wait_s=0.1)
    )
    with running(config) as found, contextlib.ExitStack() as inside:
        mine, other = ({"Authorization": f"Bearer {key}"} for key in (KEY, OTHER))
        for _ in range(2):
            inside.enter_context(connect(ws(found), additional_headers=mine))
        status, error = refusal(found, additional_headers=mine)
        assert status == 429 and error["code"] == "rate_limit_exceeded"
        assert transcribe(found, KEY).status_code == 503, "requests count too"
        assert transcribe(found, OTHER).status_code == 200
        inside.enter_context(connect(ws(found), additional_headers=other))


def test_conversations_say_when_to_ask_again() -> None:
    async def scene() -> None:
        admission = Admission(Room(1), Limits(), None, 0)
        for _ in range(3):
            slot = admission.sit(-1, SessionConfig())
            admission._conversations.inside[slot] -= 20.0  # it has lasted so long
            slot.leave()
        admission.sit(-1, SessionConfig())
        with pytest.raises(PoolFull) as full:
            admission.sit(-1, SessionConfig())
        assert 10 <= full.value.retry_s <= 20

    asyncio.run(scene())


# Who says nothing.


@pytest.mark.parametrize(
    "sent", ["", "GET /health HTTP/1.1\r\nHost: x\r\n", "GET /v1/realtime HTTP/1.1\r\nUpgrade: websocket\r\n"]
)
def test_headers_have_to_come(server, monkeypatch, sent: str) -> None:
    monkeypatch.setattr(handshake, "HEADERS_S", 0.2)
    with socket.create_connection(("127.0.0.1", server.port)) as raw:
        raw.sendall(sent.encode())
        raw.settimeout(5)
        assert raw.recv(100) == b""
    with socket.create_connection(("127.0.0.1", server.port)) as raw:  # the first is whole, the second is not
        raw.sendall(b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        raw.settimeout(5)
        assert b"200 OK" in raw.recv(1000)
        raw.sendall((sent or "G").encode())
        while raw.recv(1000):
            pass
    assert not handshake._waiting


def test_a_body_may_come_slowly(server, monkeypatch) -> None:
    monkeypatch.setattr(handshake, "HEADERS_S", 0.1)
    body = json.dumps({"messages": ASKED}).encode()
    with socket.create_connection(("127.0.0.1", server.port)) as raw:
        raw.sendall(HEAD.format(len(body)).encode() + body[:10])
        time.sleep(0.3)
        raw.sendall(body[10:])
        raw.settimeout(30)
        assert b"200 OK" in raw.recv(1000)
    with connect(ws(server)) as socket_:
        socket_.recv()
        time.sleep(0.3)
        socket_.send('{"type": "input_audio_buffer.clear"}')
        assert "cleared" in socket_.recv()


def test_few_connections_may_be_silent(server, monkeypatch) -> None:
    monkeypatch.setattr(handshake, "MOST", 3)
    silent = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(6)]
    assert httpx.get(f"{server.url}/health").status_code == 200
    silent[0].settimeout(5)
    assert silent[0].recv(10) == b"", "who has been silent for longest is closed"
    for raw in silent:
        raw.close()


def test_an_idle_session_gives_its_slot_back() -> None:
    config = ServeConfig(model="tiny", pool=ENGINE, limits=Limits(idle_s=0.4))
    with running(config) as found:
        with found.client().realtime.connect(model="tiny") as idle, connect(ws(found)) as busy:
            stop = threading.Event()

            def silence() -> None:
                while not stop.wait(0.1):
                    busy.send(json.dumps({"type": "input_audio_buffer.append", "audio": pcm16(np.zeros(1280))}))

            sending = threading.Thread(target=silence)
            sending.start()
            error = collect(idle, "error")[-1].error
            assert error.code == "session_idle_timeout" and "minutes" in error.message
            with pytest.raises(websockets.ConnectionClosed) as closed:
                idle.recv()
            assert closed.value.rcvd.code == 1000
            wait(lambda: found.service.pool.slots == 1)  # silence is sound
            stop.set()
            sending.join()
        assert "duologue_idle_sessions_total 1.0" in httpx.get(f"{found.url}/metrics").text


def test_who_waits_for_an_answer_is_not_idle() -> None:
    config = ServeConfig(model="tiny", pool=ENGINE, limits=Limits(idle_s=0.2))
    with running(config, speed=2.0) as found, found.client().realtime.connect(model="tiny") as connection:
        item = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "what is two"}]}
        connection.conversation.item.create(item=item)
        connection.response.create()
        done = collect(connection, "response.done")[-1].response
        assert done.status == "completed" and done.output[0].content[0].transcript == SAID


def test_who_sends_too_fast_is_read_later() -> None:
    throttle = Throttle(100.0, 1000.0)
    assert throttle.wait_s(60) == 0 and 0.01 < throttle.wait_s(60) <= 0.02 and throttle.wait_s(1000) > 1.0
