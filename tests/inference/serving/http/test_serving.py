"""The service around the conversations: who may come in, what is counted, how it ends; and the HTTP endpoints."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import io
import json
import logging
import re
import signal
import socket
import weakref

import httpx
import numpy as np
import openai
import pytest
import soundfile

pytest.importorskip("fastapi")
import websockets
from running_server import ENGINE, collect, pcm16, running, sound, wait
from tiny_assistant import SAID, tiny_assistant
from websockets.sync.client import connect

from duologue.inference.assistant.one_shot import OneShotRequest
from duologue.inference.serving.app import ServeConfig
from duologue.inference.serving.http.access import AccessConfig
from duologue.inference.serving.http.limits import Limits
from duologue.inference.serving.run import serve
from duologue.inference.serving.workers.pool import WorkerPoolConfig
from duologue.inference.session.state import SessionState
from duologue.model.errors import DuologueError

KEY, OTHER = "a-key-of-the-first", "a-key-of-the-second"


@pytest.fixture(scope="module")
def server():
    with running() as found:
        yield found


@pytest.fixture(scope="module")
def locked():
    access = AccessConfig(
        keys=(KEY, OTHER),
        sessions_per_key=2,
        origins=("https://good.example",),
        message_bytes=200_000,
        messages_per_s=20,
    )
    with running(ServeConfig(model="tiny", pool=ENGINE, access=access)) as found:
        yield found


def ws(found) -> str:
    return found.url.replace("http", "ws") + "/v1/realtime?model=tiny"


def wav(wave: np.ndarray) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, wave, 16_000, format="WAV")
    return file.getvalue()


def refusal(found, **how) -> tuple[int, dict]:
    with pytest.raises(websockets.InvalidStatus) as refused:
        connect(ws(found), **how)
    response = refused.value.response
    return response.status_code, json.loads(response.body)["error"]


@pytest.mark.parametrize("path", ["/metrics", "/v1/models", "/v1/chat/completions", "/", "/docs", "/openapi.json"])
def test_without_a_key_nothing_is_reachable(locked, path: str) -> None:
    for headers in (
        {},
        {"Authorization": "Bearer wrong"},
        {"Authorization": f"Bearer {KEY}x"},
        {"Authorization": "Bearer"},
    ):
        answer = httpx.request("POST" if "chat" in path else "GET", locked.url + path, headers=headers)
        assert answer.status_code == 401 and answer.json()["error"]["code"] == "invalid_api_key"


def test_keys_open_the_door_and_are_never_logged(locked, caplog) -> None:
    caplog.set_level(logging.DEBUG)
    assert httpx.get(f"{locked.url}/health").json() == {"status": "ok"}
    assert refusal(locked)[0] == 401
    assert refusal(locked, additional_headers={"Authorization": "Bearer wrong-key"})[0] == 401
    assert [model.id for model in locked.client(OTHER).models.list()] == ["tiny"]
    with locked.client(KEY).realtime.connect(model="tiny") as connection:
        assert connection.recv().type == "session.created"
    spoken = ["realtime", f"openai-insecure-api-key.{KEY}"]  # as browsers do
    with connect(ws(locked), subprotocols=spoken) as connection:
        assert connection.subprotocol == "realtime"
    for scheme in ("bearer", "BEARER"):
        assert httpx.get(f"{locked.url}/v1/models", headers={"Authorization": f"{scheme}  {KEY}"}).status_code == 200
    assert httpx.get(f"{locked.url}/v1/models", headers={"Authorization": f"Basic {KEY}"}).status_code == 401
    with pytest.raises(openai.AuthenticationError):
        locked.client("wrong-key").models.list()
    assert not any(
        KEY in record.getMessage() for record in caplog.records if record.name.startswith(("duologue", "uvicorn"))
    )


def test_other_origins_are_refused(locked, server) -> None:
    key = {"Authorization": f"Bearer {KEY}"}
    status, error = refusal(locked, origin="https://evil.example", additional_headers=key)
    assert status == 403 and error["code"] == "origin_not_allowed"
    connect(ws(locked), origin="https://good.example", additional_headers=key).close()
    assert refusal(server, origin="http://evil.example")[0] == 403
    connect(ws(server), origin=server.url).close()
    assert httpx.get(f"{server.url}/v1/models", headers={"Origin": "http://evil.example"}).status_code == 403


def test_a_key_has_so_many_conversations(locked) -> None:
    key = {"Authorization": f"Bearer {OTHER}"}
    wait(lambda: locked.service.pool.slots == 0)
    first, second = (connect(ws(locked), additional_headers=key) for _ in range(2))
    status, error = refusal(locked, additional_headers=key)
    assert status == 429 and error["code"] == "rate_limit_exceeded"
    connect(ws(locked), additional_headers={"Authorization": f"Bearer {KEY}"}).close()
    first.close()
    wait(lambda: locked.service.pool.slots == 1)
    connect(ws(locked), additional_headers=key).close()
    second.close()


def test_who_cannot_be_served_in_time_is_not_let_in() -> None:
    pool = WorkerPoolConfig(sessions=1, late_ms=1e9)
    config = ServeConfig(model="tiny", pool=pool, limits=Limits(wait_s=0.2))
    with running(config) as found, found.client().realtime.connect(model="tiny") as inside:
        collect(inside, "session.created")
        status, error = refusal(found)
        assert status == 503 and error["code"] == "server_overloaded" and error["type"] == "server_error"
        with pytest.raises(openai.InternalServerError):
            found.client().chat.completions.create(
                model="tiny", messages=[{"role": "user", "content": "what is two plus two"}]
            )
        inside.input_audio_buffer.append(audio=pcm16(sound((0.4, False), (1.0, True), (8.0, False))))
        assert collect(inside, "response.done")[-1].response.status == "completed"
        text = httpx.get(f"{found.url}/metrics").text
        assert 'duologue_refusals_total{reason="server_overloaded"} 2.0' in text
        (load,) = re.findall(r"^duologue_load (\S+)$", text, re.MULTILINE)
        assert float(load) > 0, "what its frames have cost"
        assert "duologue_sessions 1.0" in text and "duologue_room 1.0" in text
        assert 'duologue_responses_total{status="completed"} 1.0' in text
        assert "duologue_first_audio_seconds_count 1.0" in text and "duologue_tick_lateness_seconds_count 1" in text


def test_a_model_that_cannot_converse_says_so_and_serves_on() -> None:
    with running(assistant=tiny_assistant(speech=False)) as found:
        status, error = refusal(found)
        assert status == 400 and error["param"] == "model" and "no voice" in error["message"]
        asked = [{"role": "user", "content": "what is two plus two"}]
        answer = found.client().chat.completions.create(model="tiny", messages=asked)
        assert answer.choices[0].message.content == SAID
        assert httpx.get(f"{found.url}/health").status_code == 200


def test_a_late_engine_lets_nobody_in() -> None:
    """While those inside are served late; once they are gone, whoever comes is let in."""
    config = ServeConfig(model="tiny", pool=WorkerPoolConfig(sessions=4, late_ms=50))
    with running(config) as found:
        pool = found.service.pool
        with found.client().realtime.connect(model="tiny") as inside:
            inside.input_audio_buffer.append(audio=pcm16(sound((12.0, False))))
            late = pool.late_ms
            wait(lambda: len(late) > 140)
            late.extend([(late[-1][0], 100.0)] * 5)
            assert refusal(found)[1]["code"] == "server_overloaded"
        wait(lambda: pool.slots == 0)
        with contextlib.ExitStack() as others:
            for _ in range(2):  # the first, and who comes while it is inside
                another = others.enter_context(found.client().realtime.connect(model="tiny"))
                assert another.recv().type == "session.created"


def test_too_large_and_too_many(locked) -> None:
    key = {"Authorization": f"Bearer {KEY}"}
    with (
        connect(ws(locked), additional_headers=key) as connection,
        pytest.raises(websockets.ConnectionClosed) as closed,
    ):
        connection.recv()
        connection.send("x" * 300_000)
        connection.recv()
    assert closed.value.rcvd.code == 1009
    with connect(ws(locked), additional_headers=key) as connection:
        with pytest.raises(websockets.ConnectionClosed) as closed:
            for _ in range(500):
                connection.send('{"type": "input_audio_buffer.clear"}')
            while True:
                connection.recv(timeout=30)
        assert closed.value.rcvd.code == 1008
    answer = httpx.post(f"{locked.url}/v1/chat/completions", headers=key, content=b"x" * (33 << 20))
    assert answer.status_code == 413


def test_a_session_lasts_so_long() -> None:
    access = AccessConfig(session_s=0.5)
    config = ServeConfig(model="tiny", pool=ENGINE, access=access)
    with running(config) as found, found.client().realtime.connect(model="tiny") as connection:
        assert collect(connection, "error")[-1].error.code == "session_expired"
        with pytest.raises(websockets.ConnectionClosed):
            connection.recv()


@pytest.mark.parametrize(
    "when", ["greeted", "speaking", "answered", "asked in writing", "asked aside", "half a message"]
)
def test_a_killed_client_leaves_nothing(server, when: str, monkeypatch) -> None:
    """The socket goes without a word, at whatever point: the session and all it remembered go with it."""
    remembered: list[weakref.ref] = []  # (gc.get_objects() would disturb the worker's thread)
    for kind in (SessionState, OneShotRequest):

        def made(self, *arguments, _begin=kind.__init__, **named) -> None:
            _begin(self, *arguments, **named)
            remembered.append(weakref.ref(self))

        monkeypatch.setattr(kind, "__init__", made)
    (worker,) = server.service.pool._workers
    wait(lambda: server.service.pool.slots == 0)
    raw = socket.create_connection(("127.0.0.1", server.port))
    connection = connect(ws(server), sock=raw)
    connection.recv()
    (session,) = server.service.sessions
    gone = weakref.ref(session)
    del session
    if when == "speaking":
        connection.send(
            f'{{"type": "input_audio_buffer.append", "audio": "{pcm16(sound((0.4, False), (2.0, True)))}"}}'
        )
    elif when == "answered":
        asked = pcm16(sound((0.4, False), (1.0, True), (1.5, False)))
        connection.send(f'{{"type": "input_audio_buffer.append", "audio": "{asked}"}}')
        while "response.output_audio.delta" not in connection.recv(timeout=30):
            pass
    elif when.startswith("asked"):
        part = {"type": "input_text", "text": "what is 3 plus 4"}
        item = {"type": "message", "role": "user", "content": [part]}
        connection.send(json.dumps({"type": "conversation.item.create", "item": item}))
        params = {"conversation": "none"} if when == "asked aside" else {}
        connection.send(json.dumps({"type": "response.create", "response": params}))
        while "response.created" not in connection.recv(timeout=30):
            pass
    elif when == "half a message":
        raw.sendall(b"\x81\xfe\x40\x00")
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")  # reset, not closed
    raw.shutdown(socket.SHUT_RDWR)
    raw.close()
    wait(lambda: server.service.pool.slots == 0 and not server.service.sessions, 10)

    def forgotten() -> bool:
        gc.collect()
        return gone() is None and not any(each() for each in remembered)

    assert remembered
    wait(forgotten, 10)
    assert worker.alive and httpx.get(f"{server.url}/health").status_code == 200


def test_a_shutdown_lets_the_answer_finish() -> None:
    config = ServeConfig(model="tiny", pool=ENGINE)
    with running(config, speed=4.0) as found:
        with found.client().realtime.connect(model="tiny") as connection:
            connection.input_audio_buffer.append(audio=pcm16(sound((0.4, False), (1.0, True), (1.0, False))))
            collect(connection, "response.output_audio.delta")
            loop = found.service.pool._loop
            loop.call_soon_threadsafe(found.server.handle_exit, signal.SIGTERM, None)
            wait(lambda: found.service.draining)
            assert httpx.get(f"{found.url}/health").json() == {"status": "draining"}
            assert refusal(found)[1]["code"] == "server_shutting_down"
            done = collect(connection, "response.done")[-1].response
            assert done.status == "completed" and done.output[0].content[0].transcript == SAID
            with pytest.raises(websockets.ConnectionClosed) as closed:
                while True:
                    connection.recv()
            assert closed.value.rcvd.code == 1001
        wait(lambda: found.server.should_exit)


def test_bad_limits_are_refused() -> None:
    with pytest.raises(DuologueError, match="at least 8 characters"):
        AccessConfig(keys=("short",))
    with pytest.raises(DuologueError, match="session_s is 0"):
        AccessConfig(session_s=0)
    with pytest.raises(DuologueError, match="workers -1"):
        WorkerPoolConfig(workers=-1)


def test_one_slow_client_harms_nobody(server) -> None:
    """Somebody asks for a great deal and never reads: others are answered meanwhile."""
    deaf = connect(ws(server), max_queue=1, close_timeout=0.1)
    deaf.recv()
    for _ in range(20):
        deaf.send('{"type": "conversation.item.create", "item": {"type": "message", "role": "user", "content": '
                  '[{"type": "input_text", "text": "' + "a " * 20_000 + '"}]}}')  # fmt: skip
    with server.client().realtime.connect(model="tiny") as connection:
        connection.input_audio_buffer.append(audio=pcm16(sound((0.4, False), (1.0, True), (8.0, False))))
        assert collect(connection, "response.done")[-1].response.status == "completed"
    deaf.close()


def test_a_load_is_reported(tmp_path) -> None:
    """Two real-time clients where one fits: one is served whole, the other refused, and the report says so."""
    from duologue.inference.serving.load import CHUNK_S, measure

    path = tmp_path / "question.flac"
    soundfile.write(path, sound((0.8, True)), 16_000)
    with running(ServeConfig(model="tiny", pool=WorkerPoolConfig(sessions=1, late_ms=1e9))) as found:
        report = asyncio.run(measure(found.url, [path], 2, 3.2, "none", fraction=0.5, every_s=1.5))
    assert (report["inside"], report["refused"], report["lost"], report["errors"]) == (1, {503: 1}, [], 0)
    assert report["chunks_sent"] == round(3.2 / CHUNK_S) + 1 <= report["frames_done"]
    assert report["share_users_speak"] == pytest.approx(0.5, abs=0.05)
    assert report["turns"] >= 1 and sum(report["answers"].values()) >= 1 and report["share_answers_sound"] > 0
    assert min(report["memory_mib"]) > 50
    assert len(report["minutes"]) >= 2 and report["minutes"][0]["sessions"] == 1


@pytest.mark.slow
def test_workers_that_are_processes(tmp_path, capfd) -> None:
    """A worker process answers, and says nothing on the terminal. When it dies, its conversations end with an error
    and the door is shut."""
    import os

    from duologue.checkpoints import store
    from duologue.inference.serving.workers.pool import PoolFull, WorkerFault, WorkerPool
    from duologue.inference.session.state import SessionConfig

    assistant = tiny_assistant()
    folder = tmp_path / "tiny"
    store.save(folder, assistant.model, assistant.tokenizer)

    async def run() -> None:
        pool = await WorkerPool.start(lambda: None, WorkerPoolConfig(workers=1, sessions=2), model=str(folder))
        slot = pool.sit(SessionConfig())
        await slot.call("type", "what is two plus two")
        frames = [await slot.tick(np.zeros(1_280, np.float32)) for _ in range(80)]
        assert any(np.abs(done.value.pcm).max() > 0.001 for done in frames)
        assert capfd.readouterr().err == ""
        os.kill(pool._workers[0].runner.pid, signal.SIGKILL)
        with pytest.raises((WorkerFault, PoolFull)):
            while True:
                await slot.tick(np.zeros(1_280, np.float32))
        assert not pool.alive
        with pytest.raises(PoolFull):
            pool.sit(SessionConfig())
        await pool.stop()

    asyncio.run(run())


def test_it_says_where_once_it_can_be_reached() -> None:
    class Reached(Exception):
        """Ends the service from within."""

    def say(address: str) -> None:
        host, _, port = address.removeprefix("http://").rpartition(":")
        socket.create_connection((host, int(port)), timeout=5).close()
        raise Reached

    with pytest.raises(Reached):
        serve(ServeConfig(model="tiny", pool=ENGINE), "127.0.0.1", 0, assistant=tiny_assistant(), say=say)
