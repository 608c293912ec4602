"""The voice chat in a terminal: the command in a process of its own, a real server, and a sound card made of files."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import wave
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("fastapi")
import soxr
from running_server import ENGINE, Running, running, sound, wait
from tiny_assistant import HEARD, SAID, tiny_assistant

from duologue.checkpoints import store
from duologue.demo.sound import BLOCK, RATE, Loudspeaker
from duologue.inference.serving.app import ServeConfig
from duologue.inference.serving.http.access import AccessConfig

FAKE = Path(__file__).parent / "fake_sound"
KEY = "a-key-for-the-terminal"


def write(path: Path, wave_: np.ndarray) -> None:
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, RATE, 0, "NONE", ""))
        file.writeframes((np.clip(soxr.resample(wave_, 16_000, RATE), -1, 1) * 32_767).astype("<i2").tobytes())


def read(path: Path) -> np.ndarray:
    with wave.open(str(path), "rb") as file:
        return np.frombuffer(file.readframes(file.getnframes()), "<i2").astype(np.float32) / 32_768


class Terminal:
    """`duologue chat --terminal` as somebody runs it."""

    def __init__(self, folder: Path, *arguments: str, heard: np.ndarray | None, key: str | None = KEY) -> None:
        microphone, self.loudspeaker = folder / "microphone.wav", folder / "loudspeaker.wav"
        environment = {**os.environ, "PYTHONPATH": str(FAKE), "FAKE_LOUDSPEAKER": str(self.loudspeaker)}
        if heard is not None:
            write(microphone, heard)
            environment["FAKE_MICROPHONE"] = str(microphone)
        if key is not None:
            environment["DUOLOGUE_API_KEY"] = key
        self.out = folder / "out.txt"
        with self.out.open("w") as out:
            self.process = subprocess.Popen(
                [sys.executable, "-u", "-m", "duologue", "chat", "--terminal", *arguments],
                env=environment, stdin=subprocess.PIPE, stdout=out, stderr=subprocess.PIPE, text=True,
            )  # fmt: skip

    @property
    def shown(self) -> str:
        return self.out.read_text()

    def until(self, pattern: str, seconds: float = 120.0) -> None:
        wait(lambda: re.search(pattern, self.shown) or self.process.poll() is not None, seconds)
        assert re.search(pattern, self.shown), self.shown + (self.process.stderr.read() if self.process.stderr else "")

    def end(self) -> int:
        self.process.send_signal(signal.SIGINT)
        return self.process.wait(60)


@pytest.fixture(scope="module")
def server() -> Iterator[Running]:
    config = ServeConfig(model="tiny", pool=ENGINE, access=AccessConfig(keys=(KEY,)))
    with running(config, speed=1.0) as found:
        yield found


def test_a_conversation_with_an_interruption_and_a_typed_question(server: Running, tmp_path: Path) -> None:
    """Asked aloud it answers aloud; spoken over it falls silent; what was heard is told; a line is a question too."""
    heard = sound((1.0, False), (1.0, True), (1.6, False), (1.0, True), (1.0, False))
    terminal = Terminal(tmp_path, "--url", server.url, heard=heard)
    terminal.until(f"of which you heard: .*\n(.*\n)*tiny +{SAID}\n")
    said = re.findall(r"^(you|tiny) +(.*)$", terminal.shown, re.MULTILINE)
    assert [who for who, _ in said] == ["you", "tiny", "you", "tiny"]
    assert said[0][1] == HEARD and said[1][1].endswith(" —") and said[3][1] == SAID
    (cut,) = re.findall("of which you heard: (.*)", terminal.shown)
    assert cut == "nothing" or (SAID.startswith(cut) and cut != SAID)
    assert re.search(r"first audio after \d+ ms: endpoint \d+, compute \d+", terminal.shown)
    assert terminal.process.stdin is not None
    terminal.process.stdin.write("what is 3 plus 4\n")
    terminal.process.stdin.close()
    terminal.until(f"{SAID}\n(.*\n)*.*{SAID}\n")
    assert terminal.end() == 0
    # What came out of the loudspeaker: an answer that broke off within half a second of the interruption, and others.
    played = read(terminal.loudspeaker)
    loud = np.abs(played[: len(played) // BLOCK * BLOCK]).reshape(-1, BLOCK).max(axis=1) > 1e-4  # 40 ms each
    over = slice(round(3.6 * 25), round(4.6 * 25))  # while the second question was asked
    assert loud[round(2.0 * 25) : over.start].any(), "the answer had not begun"
    last = np.flatnonzero(loud[over])
    assert len(last) and (last[-1] + 1) * 40 <= 800, last  # a busy machine is slow; alone it takes some 300 ms
    assert loud[over.stop :].any()
    wait(lambda: server.service.pool is not None and server.service.pool.slots == 0)


@pytest.mark.slow
def test_a_server_of_its_own(tmp_path: Path) -> None:
    assistant = tiny_assistant()
    folder = store.save(tmp_path / "tiny", assistant.model, assistant.tokenizer)
    terminal = Terminal(tmp_path, "--model", str(folder), heard=sound((0.1, False)), key=None)
    terminal.until("listening to you, as tiny", 600)
    assert terminal.process.stdin is not None
    terminal.process.stdin.write("what is 3 plus 4\n")
    terminal.process.stdin.flush()
    terminal.until(f"tiny +{SAID}\n")
    assert terminal.end() == 0


def closed_port() -> str:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{free.getsockname()[1]}"


@pytest.mark.parametrize(
    ("where", "key", "microphone", "told"),
    [
        ("there", "a-wrong-key", True, "refuses: no valid API key was given"),
        ("there", KEY, False, "no microphone and loudspeaker can be opened here: Error querying device -1"),
        ("nowhere", KEY, True, "cannot be reached"),
        ("not a url", KEY, True, "cannot be reached"),
    ],
)
def test_what_goes_wrong_is_one_line(
    server: Running, tmp_path: Path, where: str, key: str, microphone: bool, told: str
) -> None:
    url = {"there": server.url, "nowhere": closed_port()}.get(where, where)
    terminal = Terminal(tmp_path, "--url", url, heard=sound((0.1, False)) if microphone else None, key=key)
    _, error = terminal.process.communicate(timeout=60)
    assert terminal.process.returncode == 2 and told in error and error.count("\n") == 1, error


def test_the_loudspeaker_plays_in_order_counts_and_falls_silent() -> None:
    loudspeaker = Loudspeaker()
    loudspeaker.put("a", b"\1" * 1_000)
    assert loudspeaker.take(100) == bytes(100)  # a reserve first
    loudspeaker.put("a", b"\2" * 4_000)
    assert loudspeaker.take(1_200) == b"\1" * 1_000 + b"\2" * 200
    assert loudspeaker.played_ms("a") == 1_200 * 1000 // 48_000
    loudspeaker.clear()
    assert loudspeaker.take(100) == bytes(100) and loudspeaker.played_ms("a") == 25
    loudspeaker.put("b", b"\3" * 10)
    loudspeaker.end()
    assert loudspeaker.take(20) == b"\3" * 10 + bytes(10)
