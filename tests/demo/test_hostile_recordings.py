"""No recording leads to another file or to an address, whichever way it comes in."""

from __future__ import annotations

import base64
import json
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import soundfile

pytest.importorskip("fastapi")
from running_server import ENGINE, running
from sound_files import muxed, playlists, tone
from tiny_assistant import Loudness, tiny_assistant

from duologue.checkpoints import store
from duologue.data_prep.audio import read_audio, read_pieces
from duologue.data_prep.prepare import main as prepare
from duologue.demo import cli
from duologue.demo.page.page import create_page
from duologue.inference.assistant.assistant import load
from duologue.inference.serving.app import ServeConfig
from duologue.model.errors import DuologueError


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, bytes]]:
    """Playlists that name a good recording, at a path and at an address where somebody listens; nobody may come."""
    folder = tmp_path_factory.mktemp("secret")
    (folder / "secret.m4a").write_bytes(muxed(tone(16_000), 16_000, "ipod", "alac"))
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.setblocking(False)
        yield playlists(folder / "secret.m4a", f"http://127.0.0.1:{listening.getsockname()[1]}/q.wav")
        with pytest.raises(BlockingIOError):
            listening.accept()


@pytest.fixture(scope="module")
def folder(hostile: dict[str, bytes], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("hostile")
    for name, data in hostile.items():
        (folder / name).write_bytes(data)
    soundfile.write(folder / "good.wav", 0.1 * np.random.default_rng(0).standard_normal(16_000), 16_000)
    return folder


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    assistant = tiny_assistant()
    return str(store.save(tmp_path_factory.mktemp("models") / "tiny", assistant.model, assistant.tokenizer))


@pytest.fixture(scope="module")
def server() -> Iterator[Any]:
    with running(app=create_page(ServeConfig(model="tiny", pool=ENGINE), tiny_assistant(), Loudness())) as found:
        yield found


def test_python(hostile: dict[str, bytes], folder: Path, model: str) -> None:
    assistant = load(model)
    reads: tuple[Callable[[Any], Any], ...] = (
        assistant.ask, assistant.converse().ask, read_audio, lambda source: list(read_pieces(source, 16_000))
    )  # fmt: skip
    for name, data in hostile.items():
        for read in reads:
            for source in (folder / name, str(folder / name), data, (folder / name).open("rb")):
                with pytest.raises(DuologueError, match=r"not a recording|no sound that can be read"):
                    read(source)


def test_the_command_line(
    hostile: dict[str, bytes], folder: Path, model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = str(tmp_path / "out.wav")
    for name in hostile:
        path = str(folder / name)
        for command in (
            ["ask", path, "-m", model, "-o", out], ["listen", path, "-m", model, "-o", out],
            ["codec", "encode", path, out],
        ):  # fmt: skip
            with pytest.raises(SystemExit) as ended:
                cli.main(command)
            error = capsys.readouterr().err
            assert ended.value.code == 2 and error.startswith("duologue: error: ") and error.count("\n") == 1
            assert path in error and not Path(out).exists()


def test_http(hostile: dict[str, bytes], server: Any) -> None:
    for name, data in hostile.items():
        audio = {"data": base64.b64encode(data).decode(), "format": "wav"}
        content = [{"type": "input_audio", "input_audio": audio}]
        body = {"model": "tiny", "messages": [{"role": "user", "content": content}]}
        for answer in (
            httpx.post(f"{server.url}/v1/audio/transcriptions", files={"file": (name, data)}, data={"model": "tiny"}),
            httpx.post(f"{server.url}/v1/chat/completions", json=body),
            httpx.post(f"{server.url}/page/recording", content=data),
        ):
            assert answer.status_code == 400 and "WAV, FLAC, Ogg, MP3, M4A" in answer.json()["error"]["message"]


def test_data_sets(hostile: dict[str, bytes], folder: Path, tmp_path: Path) -> None:
    """One line of failed.jsonl each; the good recording beside them is there."""
    names = [*hostile, "good.wav"]
    entries = [{"audio": name, "set": "x", "text": "hello"} for name in names]
    (folder / "manifest.jsonl").write_text("".join(json.dumps(entry) + "\n" for entry in entries))
    turns = [{"turns": [{"audio": name, "text": "what is two"}]} for name in names]
    (folder / "turns.jsonl").write_text("".join(json.dumps(turn) + "\n" for turn in turns))
    for recipe in ("recordings", "turns"):
        workers = ["workers=1"] if recipe == "turns" else []
        counts = prepare(recipe, [f"source={folder}", f"out={tmp_path / recipe}", *workers])
        assert (counts["clips"], counts["failed"]) == (1, len(hostile))
        assert (tmp_path / recipe / "failed.jsonl").read_text().count("\n") == len(hostile)
