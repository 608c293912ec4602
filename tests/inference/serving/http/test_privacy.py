"""What must not get out: without a key nothing is reachable, keys are compared in constant time, no sound is kept."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import soundfile

pytest.importorskip("fastapi")
from running_server import ENGINE, collect, pcm16, running, sound
from starlette.routing import BaseRoute, Mount, Route, WebSocketRoute
from tiny_assistant import SAID, Loudness, tiny_assistant
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from duologue.inference.serving.app import ServeConfig
from duologue.inference.serving.http import access
from duologue.inference.serving.http.access import Access, AccessConfig

KEYS = ("a-key-of-the-first", "a-key-of-the-second", "a-key-of-the-third")


@pytest.fixture(scope="module")
def locked():
    """The service with the page on it, as `duologue chat` has it, behind keys."""
    from duologue.demo.page.page import create_page

    config = ServeConfig(model="tiny", pool=ENGINE, access=AccessConfig(keys=KEYS))
    app = create_page(config, tiny_assistant(), Loudness())
    with running(config, app=app) as found:
        yield found, app


def paths(routes: list[BaseRoute], before: str = "") -> Iterator[tuple[str, bool]]:
    """Every path that is served, its parameters filled in, and whether it is a WebSocket's."""
    for route in routes:
        if isinstance(route, Mount):
            yield from paths(route.routes, before + route.path)
            yield f"{before}{route.path}/", False
        elif isinstance(route, (Route, WebSocketRoute)):
            filled = "/".join("x" if part.startswith("{") else part for part in route.path.split("/"))
            yield before + filled, isinstance(route, WebSocketRoute)


def test_no_path_but_health_is_reachable_without_a_key(locked) -> None:
    """All of them, as the application itself knows them, with no key and with a wrong one."""
    found, app = locked
    known = set(paths(app.routes)) | {("/", False), ("/no/such/path", False)}
    assert {("/v1/realtime", True), ("/metrics", False), ("/health", False)} <= known and len(known) >= 12
    with httpx.Client(base_url=found.url) as client:
        for path, socket in sorted(known):
            for headers in ({}, {"Authorization": f"Bearer {KEYS[0][:-1]}"}):
                if socket:
                    with pytest.raises(InvalidStatus) as refused:
                        connect(found.url.replace("http", "ws") + path, additional_headers=headers)
                    status = refused.value.response.status_code
                else:
                    status = client.get(path, headers=headers).status_code
                assert status == (200 if path == "/health" else 401), path
                if not socket and path != "/health":
                    assert client.post(path, headers=headers).status_code == 401, path


def test_every_key_is_compared_in_constant_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whichever key is given, the same comparisons are made, of values of one length, by a function that takes as long
    for each."""
    compared: list[tuple[bytes, bytes]] = []
    usual = access.hmac.compare_digest

    def compare(a: bytes, b: bytes) -> bool:
        compared.append((a, b))
        return usual(a, b)

    monkeypatch.setattr(access.hmac, "compare_digest", compare)
    door = Access(None, AccessConfig(keys=KEYS))
    for key, which in ((KEYS[0], 0), (KEYS[2], 2), (KEYS[0][:-1], None), ("", None), ("x" * 5_000, None)):
        compared.clear()
        if which is None:
            with pytest.raises(access.RequestError):
                door._key({"authorization": f"Bearer {key}"}, {"path": "/"})
        else:
            assert door._key({"authorization": f"Bearer {key}"}, {"path": "/"}) == {"key": which}
        assert len(compared) == len(KEYS) and {len(side) for pair in compared for side in pair} == {32}


@contextmanager
def written() -> Iterator[list[str]]:
    """Files that this process opens to write in meanwhile, whether they have a name or not."""
    found: list[str] = []
    watching = True

    def hook(event: str, args: tuple[Any, ...]) -> None:
        if watching and event == "open":
            path, mode, flags = args
            to_write = set(mode or "") & set("wax+") or (flags or 0) & (os.O_WRONLY | os.O_RDWR)
            if to_write and isinstance(path, (str, bytes)) and not str(path).startswith("/dev/"):
                found.append(str(path))

    sys.addaudithook(hook)  # it cannot be taken away again, so it falls asleep
    try:
        yield found
    finally:
        watching = False


def test_sound_is_not_written_to_disk(tmp_path: Path) -> None:
    """A conversation, and recordings over HTTP and to the page, larger than what web servers keep in memory."""
    from duologue.demo.page.page import create_page

    config = ServeConfig(model="tiny", pool=ENGINE)
    with running(config, app=create_page(config, tiny_assistant(), Loudness())) as found:
        client = found.client()
        recording = io.BytesIO()
        soundfile.write(recording, np.tile(sound((2.0, True)), 40), 16_000, format="WAV")  # 2.5 MB
        with written() as files, client.realtime.connect(model="tiny") as connection:
            connection.input_audio_buffer.append(audio=pcm16(sound((0.4, False), (1.0, True), (8.0, False))))
            assert collect(connection, "response.done")[-1].response.output[0].content[0].transcript == SAID
            client.audio.transcriptions.create(file=("q.wav", recording.getvalue()), model="tiny")
            client.audio.speech.create(model="tiny", voice="alloy", input=SAID, response_format="mp3")
            shorter = io.BytesIO()
            soundfile.write(shorter, np.tile(sound((2.0, True)), 25), 16_000, format="WAV")
            assert len(httpx.post(f"{found.url}/page/recording", content=shorter.getvalue()).content) == 50 * 48_000
        assert files == []
        with written() as files:
            (tmp_path / "seen").write_text("the watch works")
        assert files == [str(tmp_path / "seen")]
