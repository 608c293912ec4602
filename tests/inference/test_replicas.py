"""Two replicas on one machine by the documented command: a conversation stays where it began, requests go anywhere.
To run it: pip install -e ".[replicas]" && pytest -m slow tests/inference/test_replicas.py
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import openai
import pytest

pytest.importorskip("ray.serve", reason="needs duologue[replicas]")
import websockets
from running_server import collect, pcm16, sound, wait
from tiny_assistant import SAID, tiny_assistant

from duologue.checkpoints import store

URL, KEY = "http://127.0.0.1:8000", "a-key-for-the-replicas"
SEATS = 2  # of each of two replicas


@pytest.fixture(scope="module")
def deployed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[openai.OpenAI]:
    assistant = tiny_assistant()
    folder = tmp_path_factory.mktemp("replicas")
    store.save(folder / "tiny", assistant.model, assistant.tokenizer)
    environment = {**os.environ, "DUOLOGUE_API_KEY": KEY, "RAY_USAGE_STATS_ENABLED": "0"}
    command = [str(Path(sys.executable).parent / "serve"), "run", "duologue.inference.serving.replicas:app"]
    arguments = [f"model={folder / 'tiny'}", "replicas=2", "cpus=0.5", f"sessions={SEATS}"]
    with (folder / "log").open("w") as log:
        process = subprocess.Popen([*command, *arguments], env=environment, stdout=log, stderr=log)
    try:
        wait(lambda: process.poll() is not None or healthy(), 800)
        assert process.poll() is None, (folder / "log").read_text()[-4000:]
        yield openai.OpenAI(api_key=KEY, base_url=f"{URL}/v1", max_retries=0, timeout=60)
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(120)


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


def enter(client: openai.OpenAI):  # type: ignore[no-untyped-def]
    """As a client does: whoever meets a full replica tries again."""
    for _ in range(20):
        try:
            return client.realtime.connect(model="x").enter()
        except websockets.InvalidStatus as refused:
            assert refused.response.status_code == 503
            time.sleep(0.5)
    raise AssertionError("no room found")


def ask(connection) -> str:  # type: ignore[no-untyped-def]
    connection.input_audio_buffer.append(audio=pcm16(sound((1.0, True))))
    connection.input_audio_buffer.commit()
    connection.response.create()
    return str(collect(connection, "response.done")[-1].response.output[0].content[0].transcript)


@pytest.mark.slow
def test_conversations_spread_and_stay_and_requests_go_anywhere(deployed: openai.OpenAI) -> None:
    connections = [enter(deployed) for _ in range(2 * SEATS)]
    manual = {"type": "realtime", "audio": {"input": {"turn_detection": None}}}
    for i, connection in enumerate(connections):
        connection.session.update(session=manual)
        content = [{"type": "input_text", "text": f"this is number {i}"}]
        item = {"type": "message", "role": "user", "content": content, "id": f"mine-{i}"}
        connection.conversation.item.create(item=item)
        collect(connection, "conversation.item.done")
    assert set(inside()) == {SEATS}  # so both replicas are full
    with pytest.raises(websockets.InvalidStatus) as refused:
        deployed.realtime.connect(model="x").enter()
    assert refused.value.response.status_code == 503
    for _ in range(2):
        for i, connection in enumerate(connections):
            assert ask(connection) == SAID
            connection.conversation.item.retrieve(item_id=f"mine-{i}")
            assert collect(connection, "conversation.item.retrieved")[-1].item.content[0].text == f"this is number {i}"
    for connection in connections:
        connection.close()
    wait(lambda: set(inside()) == {0}, 60)
    for _ in range(6):
        answer = deployed.chat.completions.create(model="x", messages=[{"role": "user", "content": "what is two"}])
        assert answer.choices[0].message.content == SAID
    with pytest.raises(openai.AuthenticationError):
        openai.OpenAI(api_key="a-wrong-key", base_url=f"{URL}/v1").models.list()
