"""A call from a real Chromium, with a recording for a microphone, by the lines that docs/serve.md gives."""

from __future__ import annotations

import re
import shutil
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("fastapi")
pytest.importorskip("aiortc")
from running_server import ENGINE, Running, running, wait
from tiny_assistant import HEARD, SAID
from webrtc_client import loopback_alone

from duologue.data_prep.audio import read_audio, write_wav
from duologue.inference.serving.app import ServeConfig
from duologue.inference.serving.http.access import AccessConfig

__all__ = ["loopback_alone"]
pytestmark = [pytest.mark.usefixtures("loopback_alone"), pytest.mark.browser]
ROOT = Path(__file__).resolve().parents[4]
KEY = "the-servers-own-key"
CHROMIUM = shutil.which("chromium")
FLAGS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--use-fake-device-for-media-stream",
    "--use-fake-ui-for-media-stream", "--autoplay-policy=no-user-gesture-required",
    "--allow-loopback-in-peer-connection",
]  # fmt: skip
PATIENCE = 150_000  # ms, for a busy machine


class Site(BaseHTTPRequestHandler):
    """Somebody's own site, whose server knows the key."""

    service: Running

    def do_GET(self) -> None:
        body, kind = "<!doctype html><title>A page</title><audio autoplay></audio>", "text/html"
        if self.path == "/ephemeral-key":
            session: Any = {"type": "realtime", "audio": {"input": {"transcription": {"model": "tiny"}}}}
            body, kind = self.service.client(KEY).realtime.client_secrets.create(session=session).value, "text/plain"
        self.send_response(200)
        self.send_header("content-type", kind)
        self.end_headers()
        self.wfile.write(body.encode())

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture(scope="module")
def site() -> Iterator[str]:
    serving = ThreadingHTTPServer(("127.0.0.1", 0), Site)
    threading.Thread(target=serving.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{serving.server_port}"
    serving.shutdown()
    serving.server_close()


@pytest.fixture(scope="module")
def server(site: str) -> Iterator[Running]:
    config = ServeConfig(model="tiny", pool=ENGINE, access=AccessConfig(keys=(KEY,), origins=(site,)))
    with running(config, speed=1.0) as found:
        Site.service = found
        yield found


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    if CHROMIUM is None:
        pytest.skip("chromium is not installed (Debian package chromium)")
    playwright = pytest.importorskip("playwright.sync_api")
    spoken = tmp_path_factory.mktemp("microphone") / "question.wav"
    question, quiet = read_audio(ROOT / "demo/assets/examples/plus.flac"), np.zeros(16_000, np.float32)
    # A question; while the answer is spoken, another; then silence, until the recording begins again.
    write_wav(spoken, np.concatenate([quiet, question, *3 * [quiet], question, *9 * [quiet]]), 16_000)
    with playwright.sync_playwright() as driver:
        started = driver.chromium.launch(
            executable_path=CHROMIUM, args=[*FLAGS, f"--use-file-for-fake-audio-capture={spoken}"]
        )
        yield started
        started.close()


def lines() -> str:
    """The example of docs/serve.md."""
    (found,) = re.findall(r"```js\n(.*?)```", (ROOT / "docs/serve.md").read_text(encoding="utf-8"), re.DOTALL)
    return found


def test_a_browser_calls_is_answered_interrupts_and_hangs_up(server: Running, site: str, browser: Any) -> None:
    context = browser.new_context(permissions=["microphone"])
    page = context.new_page()
    page.set_default_timeout(PATIENCE)
    page.goto(site)
    code = lines().replace("https://talk.example.org", server.url).replace("console.log(", "window.seen.push(")
    page.evaluate(f"async () => {{ window.seen = []; {code} window.call = call; }}")
    count = "window.seen.filter((event) => event.type === '{}').length"
    page.wait_for_function(f"{count.format('response.done')} >= 2")
    seen = page.evaluate("window.seen")
    kinds = [event["type"] for event in seen]
    assert kinds[0] == "session.created" and "error" not in kinds and "response.output_audio.delta" not in kinds
    first, second = [event["response"] for event in seen if event["type"] == "response.done"][:2]
    assert first["status_details"]["reason"] == "turn_detected" and second["status"] == "completed"
    assert second["output"][0]["content"][0]["transcript"] == SAID
    heard = [e["transcript"] for e in seen if e["type"] == "conversation.item.input_audio_transcription.completed"]
    assert heard[0] == HEARD
    page.wait_for_function(f"{count.format('output_audio_buffer.stopped')} >= 1")
    energy = """async () => [...(await window.call.getStats()).values()]
        .find((each) => each.type === "inbound-rtp" && each.kind === "audio").totalAudioEnergy"""
    assert page.evaluate(energy) > 1e-4
    page.evaluate("window.call.close()")
    wait(lambda: server.service.pool.slots == 0)
    context.close()
