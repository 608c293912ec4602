"""The page in a folder of nginx, which has the three lines of docs/serve.md and otherwise its defaults."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

pytest.importorskip("fastapi")
from chromium import CHROMIUM, FLAGS
from running_server import ENGINE, running, wait
from tiny_assistant import SAID, Loudness, tiny_assistant
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from duologue.demo.page.page import ASSETS, create_page
from duologue.inference.serving.app import ServeConfig
from duologue.inference.serving.http.access import AccessConfig

NGINX = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
DOCS = ASSETS.parents[1] / "docs/serve.md"
KEY = "a-key-of-the-first"


@dataclass
class Proxied:
    url: str  # of nginx: http://127.0.0.1:port
    page: str  # of the page behind it


def documented() -> str:
    """The location block of the docs."""
    (block,) = re.findall(r"^```nginx\n(.*?)^```", DOCS.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    return block


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def test_three_lines_are_documented() -> None:
    lines = [line.strip() for line in documented().splitlines()]
    assert lines[0] == "location /talk/ {" and lines[1].startswith("proxy_pass http://127.0.0.1:7860/;")
    assert [line.split()[:2] for line in lines[2:5]] == [
        ["proxy_http_version", "1.1;"],
        ["proxy_set_header", "Upgrade"],
        ["proxy_set_header", "Connection"],
    ]
    assert lines[5:] == ["}"]


@pytest.fixture(scope="module")
def proxied(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxied]:
    if NGINX is None:
        pytest.skip("nginx is not installed (Debian package nginx-light)")
    folder, port = tmp_path_factory.mktemp("nginx"), free_port()
    public = f"http://127.0.0.1:{port}"
    access = AccessConfig(keys=(KEY,), origins=(public,))
    config = ServeConfig(model="tiny", pool=ENGINE, access=access)
    with running(config, app=create_page(config, tiny_assistant(), Loudness()), speed=1.0) as found:
        location = documented().replace("127.0.0.1:7860", f"127.0.0.1:{found.port}")
        (folder / "nginx.conf").write_text(
            f"{'user root; ' * (os.geteuid() == 0)}daemon off; pid {folder}/pid; error_log stderr; events {{}}\n"
            "http { access_log off; "
            + "".join(
                f"{name}_temp_path {folder}/{name}; " for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
            )
            + f"server {{ listen 127.0.0.1:{port};\n{location}\n}} }}\n"
        )
        nginx = subprocess.Popen(
            [NGINX, "-c", str(folder / "nginx.conf"), "-p", str(folder)], stderr=subprocess.DEVNULL
        )
        try:
            wait(lambda: nginx.poll() is not None or reachable(port), 20)
            assert nginx.poll() is None
            yield Proxied(public, f"{public}/talk/")
        finally:
            nginx.terminate()
            nginx.wait(20)


def reachable(port: int) -> bool:
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0


def test_behind_nginx(proxied: Proxied) -> None:
    """A sign-in from the public origin, the page, all that it names, a WebSocket; another origin is refused."""
    here = {"Origin": proxied.url}
    with httpx.Client(base_url=proxied.page) as client:
        assert client.get("").status_code == 401
        assert client.post("sign-in", data={"key": KEY}, headers={"Origin": "https://evil.example"}).status_code == 403
        answer = client.post("sign-in", data={"key": KEY}, headers=here)
        assert answer.status_code == 303 and answer.headers["location"] == "./"
        assert "path=" not in answer.headers["set-cookie"].lower()
        assert [cookie.path for cookie in client.cookies.jar] == ["/talk"]
        page = client.get("").text
        for name in {*re.findall(r'(?:src|href|data-file)="([^"]+)"', page)} - {"data:,"}:
            assert client.get(name).status_code == 200, name
        recording = (ASSETS / "examples/plus.flac").read_bytes()
        assert client.post("page/recording", content=recording, headers=here).status_code == 200
        too_large = client.post("page/recording", content=b"x" * (2 << 20), headers=here)
        assert too_large.status_code == 413 and "nginx" in too_large.text  # which the page puts in its own words
        who = {"Cookie": f"duologue_session={client.cookies['duologue_session']}"}
        where = f"{proxied.page.replace('http', 'ws', 1)}v1/realtime?model=local"
        connect(where, additional_headers=who, origin=proxied.url, subprotocols=["realtime"]).close()
        with pytest.raises(InvalidStatus):
            connect(where, additional_headers=who, origin="https://evil.example")
        out = client.post("sign-out", headers=here)
        assert out.status_code == 303 and client.get("").status_code == 401


@pytest.mark.browser
def test_a_visitor_behind_nginx(proxied: Proxied, tmp_path: Path) -> None:
    """Signs in, asks an example, converses, and is told why too large a file does not go through."""
    if CHROMIUM is None:
        pytest.skip("chromium is not installed (Debian package chromium)")
    playwright = pytest.importorskip("playwright.sync_api")
    failed: list[str] = []
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        tab = browser.new_page()
        tab.set_default_timeout(60_000)
        tab.on("console", lambda message: failed.append(message.text) if message.type == "error" else None)
        tab.on("pageerror", lambda error: failed.append(str(error)))
        tab.goto(proxied.page)
        tab.get_by_label("API key").fill("a-wrong-key")
        tab.get_by_role("button", name="Sign in").click()
        tab.get_by_role("alert").filter(has_text="not a key of this page").wait_for()
        tab.get_by_label("API key").fill(KEY)
        tab.keyboard.press("Enter")
        tab.get_by_label("Or write", exact=True).fill("what is 3 plus 4")
        tab.keyboard.press("Enter")
        tab.locator("#live-transcript").get_by_text(SAID).wait_for()
        tab.get_by_role("tab", name="Audio analysis").click()
        tab.get_by_role("button", name="What is 47 plus 12?").click()
        tab.locator("#conversation").get_by_text(SAID).wait_for()
        large = tmp_path / "large.wav"
        large.write_bytes(b"RIFF" + bytes(2 << 20))
        tab.locator("#file").set_input_files(large)
        tab.get_by_text("client_max_body_size").wait_for()
        tab.get_by_role("button", name="Sign out").click()
        tab.get_by_label("API key").wait_for()
        assert tab.url in (proxied.page, f"{proxied.page}sign-in")
        browser.close()
    assert [text for text in failed if not re.search("status of 4(01|13)", text)] == []
