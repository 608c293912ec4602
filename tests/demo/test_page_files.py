"""What the page hands out: its own files, and no other file of its host, whatever is asked or posted."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import httpx
import pytest

pytest.importorskip("fastapi")
from running_server import ENGINE, Running, running
from tiny_assistant import Loudness, tiny_assistant

from duologue.demo.page.page import ASSETS, create_page
from duologue.inference.serving.app import ServeConfig

SECRET = "the words that stand in a file of the host"


@pytest.fixture(scope="module")
def found() -> Iterator[Running]:
    config = ServeConfig(model="tiny", pool=ENGINE)
    with running(config, app=create_page(config, tiny_assistant(), Loudness())) as server:
        yield server


@pytest.fixture(scope="module")
def secret(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("host") / "secret.txt"
    path.write_text(SECRET)
    return path


def raw(found: Running, target: str) -> bytes:
    """A path as it is, which clients would tidy up."""
    with socket.create_connection(("127.0.0.1", found.port), timeout=20) as connection:
        connection.sendall(f"GET {target} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n".encode())
        return b"".join(iter(lambda: connection.recv(65_536), b""))


def test_no_posted_path_becomes_a_copy_that_can_be_read(found: Running, secret: Path) -> None:
    """As Gradio took it: a file named in a call is copied, the error names the copy, and the copy is served."""
    kind = {"_type": "gradio.FileData"}
    files = (
        {"path": str(secret), "meta": kind},
        {"path": str(secret), "url": f"file://{secret}", "meta": kind, "orig_name": "q.wav"},
        {"path": secret.as_uri(), "meta": kind},
        {"video": {"path": str(secret), "meta": kind}, "meta": kind},
    )
    with httpx.Client(base_url=found.url, timeout=30) as client:
        for number, file in enumerate(files):
            call = {"data": [file, None, []], "fn_index": number, "session_hash": f"x{number}"}
            for path in ("/gradio_api/queue/join", f"/gradio_api/run/{number}", "/gradio_api/component_server", "/"):
                answer = client.post(path, json=call)
                assert SECRET not in answer.text and answer.status_code in (404, 405), (path, number, file)


@pytest.mark.parametrize(
    "target",
    [
        "/gradio_api/file={}", "/file={}", "/gradio_api/stream/{}", "/gradio_api/proxy=file://{}", "/static/{}",
        "/page-assets/{}", "/page-assets//{}", "/page-assets/..{}", "/page-assets/%2e%2e/%2e%2e{}",
        "/page-assets/../../../../../../..{}", "/page-assets/..%2f..%2f..%2f..%2f..%2f..%2f..{}",
        "/page-assets/%5c..%5c..{}", "/{}", "//{}", "/page/recording?path={}",
        "/page/recording/{}", "/page-assets/..%00{}", "/assets/{}", "/theme.css?path={}",
    ],
)  # fmt: skip
def test_no_path_leads_out(found: Running, secret: Path, target: str) -> None:
    for path in (str(secret), quote(str(secret), safe="")):
        answer = raw(found, target.format(path))
        assert SECRET.encode() not in answer and b" 200 " not in answer.split(b"\r\n", 1)[0], answer[:300]


def test_no_link_leads_out(found: Running, secret: Path) -> None:
    link = ASSETS / "linked-by-a-test.txt"
    link.symlink_to(secret)
    try:
        assert SECRET not in httpx.get(f"{found.url}/page-assets/{link.name}").text
    finally:
        link.unlink()


def test_what_is_posted_is_read_as_a_recording_and_nothing_else(found: Running, secret: Path) -> None:
    """No name in a body is opened and no address in it is asked for."""
    asked: list[bytes] = []
    with socket.socket() as trap:
        trap.bind(("127.0.0.1", 0))
        trap.listen()
        trap.settimeout(0.2)
        url = f"http://127.0.0.1:{trap.getsockname()[1]}/x.wav"

        def listen() -> None:
            while True:
                try:
                    connection, _ = trap.accept()
                except OSError:
                    return
                asked.append(connection.recv(1_000))
                connection.close()

        watching = threading.Thread(target=listen)
        watching.start()
        bodies = [str(secret), secret.as_uri(), url, json.dumps({"path": str(secret), "url": url}), f"data:,{url}"]
        bodies += [f"ffconcat version 1.0\nfile '{name}'\n" for name in (secret, url)]
        bodies += [f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{name}\n#EXT-X-ENDLIST\n" for name in (secret, url)]
        for body in bodies:
            answer = httpx.post(f"{found.url}/page/recording", content=body.encode(), timeout=30)
            assert answer.status_code == 400 and SECRET not in answer.text, (body, answer.text)
        form = {"files": ("q.wav", b"RIFF and so on")}
        answer = httpx.post(f"{found.url}/gradio_api/upload", files=form)
        assert answer.status_code in (404, 405)
        watching.join(10)
    assert asked == []


def test_the_page_is_there_and_so_is_all_that_it_names(found: Running) -> None:
    page = httpx.get(f"{found.url}/")
    assert page.status_code == 200 and "frame-ancestors 'none'" in page.headers["content-security-policy"]
    scripts = [path for kind in ("js", "css", "flac") for path in ASSETS.rglob(f"*.{kind}")]
    assert len(scripts) > 15
    for file in (path.relative_to(ASSETS).as_posix() for path in scripts):
        answer = httpx.get(f"{found.url}/page-assets/{file}")
        assert answer.status_code == 200 and answer.headers["cache-control"] == "no-cache", file
