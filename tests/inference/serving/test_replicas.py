"""Two replicas on one machine by the documented command: conversations spread over both and stay where they began,
requests go anywhere, and a replica that is killed takes its own conversations with it and is started anew.

To run it: pip install -e ".[replicas]" && pytest -m slow tests/inference/test_replicas.py
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import httpx
import openai
import pytest

pytest.importorskip("ray.serve", reason="needs duologue[replicas]")
import websockets
from running_server import collect, pcm16, sound, wait
from tiny_assistant import SAID, tiny_assistant

from duologue.checkpoints import store

URL, KEY = "http://127.0.0.1:8000", "a-key-for-the-replicas"
SLOTS = 2  # of each of two replicas
MARK = "DUOLOGUE_TEST_RUN"  # an environment variable that all of Ray's processes inherit, wherever they end up

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1500)]


@dataclass
class Deployed:
    """What was started. logs: folders of ours and of Ray's."""

    client: openai.OpenAI
    processes: Callable[[], list[int]]
    logs: tuple[Path, ...]

    def replicas(self) -> set[int]:
        """Their process ids."""
        return {process for process in self.processes() if b"ServeReplica" in _read(process, "cmdline")}


def _read(process: int, file: str) -> bytes:
    """What the system tells of a process; nothing of one that has ended."""
    try:
        return Path(f"/proc/{process}/{file}").read_bytes()
    except OSError:
        return b""


@pytest.fixture(scope="module")
def deployed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployed]:
    assistant = tiny_assistant()
    folder = tmp_path_factory.mktemp("replicas")
    store.save(folder / "tiny", assistant.model, assistant.tokenizer)
    mark, scratch = uuid.uuid4().hex, Path(mkdtemp(prefix="ray-", dir="/tmp"))  # sockets: their paths must be short
    ours = {"DUOLOGUE_API_KEY": KEY, "RAY_USAGE_STATS_ENABLED": "0", "RAY_TMPDIR": str(scratch), MARK: mark}
    command = [str(Path(sys.executable).parent / "serve"), "run", "duologue.inference.serving.replicas:app"]
    arguments = [f"model={folder / 'tiny'}", "replicas=2", "cpus=0.5", f"sessions={SLOTS}"]

    def started() -> list[int]:
        running = [int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit()]
        return [process for process in running if f"{MARK}={mark}".encode() in _read(process, "environ").split(b"\0")]

    with (folder / "log").open("w") as log:
        process = subprocess.Popen([*command, *arguments], env={**os.environ, **ours}, stdout=log, stderr=log)
    try:
        wait(lambda: process.poll() is not None or healthy(), 800)
        assert process.poll() is None, (folder / "log").read_text()[-4000:]
        client = openai.OpenAI(api_key=KEY, base_url=f"{URL}/v1", max_retries=0, timeout=60)
        yield Deployed(client, started, (folder, scratch))
        process.send_signal(signal.SIGTERM)
        process.wait(120)
        wait(lambda: not started(), 60)
    finally:  # whatever went wrong, nothing of Ray's goes on
        for each in started():
            with suppress(ProcessLookupError):
                os.kill(each, signal.SIGKILL)
        process.wait(60)
        shutil.rmtree(scratch, ignore_errors=True)


def healthy() -> bool:
    try:
        return httpx.get(f"{URL}/health", timeout=5).status_code == 200
    except httpx.HTTPError:
        return False


def inside() -> list[float]:
    """Conversations at the replica that answered, ten times."""
    headers = {"Authorization": f"Bearer {KEY}"}
    texts = [httpx.get(f"{URL}/metrics", headers=headers, timeout=30).text for _ in range(10)]
    return [float(re.search(r"^duologue_sessions (.*)$", text, re.MULTILINE)[1]) for text in texts]  # type: ignore[index]


def enter(client: openai.OpenAI, seconds: float = 20.0) -> Any:
    """As a client does: whoever meets a full replica tries again."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            return client.realtime.connect(model="x").enter()
        except websockets.InvalidStatus as refused:
            assert refused.response.status_code == 503
            time.sleep(0.5)
    raise AssertionError("no room found")


def greet(connection: Any, number: int) -> None:
    """Say something that only this conversation knows."""
    manual = {"type": "realtime", "audio": {"input": {"turn_detection": None}}}
    connection.session.update(session=manual)
    content = [{"type": "input_text", "text": f"this is number {number}"}]
    item = {"type": "message", "role": "user", "content": content, "id": f"mine-{number}"}
    connection.conversation.item.create(item=item)
    collect(connection, "conversation.item.done")


def recall(connection: Any, number: int) -> str:
    connection.conversation.item.retrieve(item_id=f"mine-{number}")
    return str(collect(connection, "conversation.item.retrieved")[-1].item.content[0].text)


def ask(connection: Any) -> str:
    connection.input_audio_buffer.append(audio=pcm16(sound((1.0, True))))
    connection.input_audio_buffer.commit()
    connection.response.create()
    return str(collect(connection, "response.done")[-1].response.output[0].content[0].transcript)


def test_conversations_spread_and_stay_and_requests_go_anywhere(deployed: Deployed) -> None:
    client = deployed.client
    connections = [enter(client) for _ in range(2 * SLOTS)]
    for i, connection in enumerate(connections):
        greet(connection, i)
    assert set(inside()) == {SLOTS}  # so both replicas are full
    with pytest.raises(websockets.InvalidStatus) as refused:
        client.realtime.connect(model="x").enter()
    assert refused.value.response.status_code == 503
    for _ in range(2):
        for i, connection in enumerate(connections):
            assert ask(connection) == SAID
            assert recall(connection, i) == f"this is number {i}"
    for connection in connections:
        connection.close()
    wait(lambda: set(inside()) == {0}, 60)
    for _ in range(6):
        answer = client.chat.completions.create(model="x", messages=[{"role": "user", "content": "what is two"}])
        assert answer.choices[0].message.content == SAID
    with pytest.raises(openai.AuthenticationError):
        openai.OpenAI(api_key="a-wrong-key", base_url=f"{URL}/v1").models.list()


def test_a_killed_replica_takes_its_conversations_and_is_started_anew(deployed: Deployed) -> None:
    client, before = deployed.client, deployed.replicas()
    assert len(before) == 2
    connections = dict(enumerate(enter(client) for _ in range(2 * SLOTS)))
    for i, connection in connections.items():
        greet(connection, i)
    os.kill(min(before), signal.SIGKILL)
    ended: list[int] = []
    for i, connection in list(connections.items()):
        try:
            assert ask(connection) == SAID and recall(connection, i) == f"this is number {i}"
        except websockets.ConnectionClosed:
            del connections[i]
            ended.append(i)
    assert len(ended) == SLOTS == len(connections)  # those of the one, and no others
    wait(lambda: len(deployed.replicas()) == 2, 300)
    assert len(deployed.replicas() & before) == 1
    for i in ended:
        connections[i] = enter(client, 300)
        greet(connections[i], i)
    assert set(inside()) == {SLOTS}
    for connection in connections.values():
        assert ask(connection) == SAID
        connection.close()


def test_no_key_stands_in_a_log(deployed: Deployed) -> None:
    logs = [path for folder in deployed.logs for path in folder.rglob("*") if path.is_file() and "log" in str(path)]
    assert len(logs) > 5
    assert [path for path in logs if KEY.encode() in path.read_bytes()] == []
