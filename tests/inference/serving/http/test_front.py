"""The service as browsers, proxies and people ask for it: names, origins, methods, long bodies, TLS, IPv6."""

from __future__ import annotations

import contextlib
import logging
import socket
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

pytest.importorskip("fastapi")
from running_server import ENGINE, Running, running, wait
from tiny_assistant import Loudness, tiny_assistant
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from duologue.demo.page.page import create_page
from duologue.inference.serving.app import ServeConfig, create_app
from duologue.inference.serving.http.access import AccessConfig
from duologue.inference.serving.http.hosts import Hosts
from duologue.inference.serving.http.listening import TlsConfig, address, listen
from duologue.inference.serving.run import serve, server_of
from duologue.model.errors import DuologueError

KEY = "a-key-of-the-first"
GOOD, EVIL = "https://good.example", "https://evil.example"


@pytest.fixture(scope="module")
def open_() -> Iterator[Running]:
    config = ServeConfig(model="tiny", pool=ENGINE, access=AccessConfig(request_bytes=1 << 20))
    with running(config, app=create_page(config, tiny_assistant(), Loudness())) as found:
        yield found


@pytest.fixture(scope="module")
def locked() -> Iterator[Running]:
    access = AccessConfig(keys=(KEY,), origins=(GOOD,), hosts=("named.example",))
    with running(ServeConfig(model="tiny", pool=ENGINE, access=access)) as found:
        yield found


LOCAL = ["localhost", "LOCALHOST:7860", "localhost.", "a.localhost", "127.0.0.1", "127.0.0.9:80", "[::1]", "[::1]:8000"]
OTHERS = [
    "", "evil.example", "evil.example:7860", "localhost.evil.example", "127.0.0.1.evil.example",
    "127.0.0.1:80@evil.example", "evil.example#localhost", "localhost:1:2", "127.1", "2130706433", "0x7f.1", "0.0.0.0",
    "[::]", "::1x", "192.168.1.5",
    "localhost\\@evil", "localhost evil.example", "localhost/..", "xlocalhost", "[::ffff:1.2.3.4]", "[localhost]",
]  # fmt: skip


def test_names() -> None:
    here = Hosts("127.0.0.1")
    assert [host for host in (*LOCAL, *OTHERS) if here.allow(host)] == LOCAL
    named = Hosts("10.0.0.7", ("named.example", "*.wide.example", "with.port:8443"), ("https://public.example", "*"))
    for host in ("10.0.0.7:7860", "Named.Example:1", "a.wide.example", "with.port:8443", "public.example", *LOCAL):
        assert named.allow(host), host
    for host in ("10.0.0.8", "x.named.example", "wide.example", "with.port", "with.port:80", *OTHERS):
        assert not named.allow(host), host
    for everywhere in (Hosts("0.0.0.0"), Hosts("::")):  # any address in digits, and this machine's own name
        for host in ("192.168.1.5:7860", "[2001:db8::1]", "0.0.0.0", f"{socket.gethostname()}:7860", *LOCAL):
            assert everywhere.allow(host), host
        assert not everywhere.allow("evil.example") and not everywhere.allow("192.168.1.5.evil.example")
    assert Hosts("127.0.0.1", ("*",)).allow("evil.example")
    assert Hosts("my-machine").allow("my-machine:8000")


def test_a_forged_host_is_refused(open_: Running) -> None:
    """With a matching origin too: that is DNS rebinding."""
    for path, method in (("/", "GET"), ("/v1/models", "GET"), ("/metrics", "GET"), ("/v1/chat/completions", "POST")):
        for host in ("evil.example", f"evil.example:{open_.port}"):
            headers = {"Host": host, "Origin": f"http://{host}"}
            answer = httpx.request(method, open_.url + path, headers=headers, json={} if method == "POST" else None)
            error = answer.json()["error"]
            assert answer.status_code == 421 and host in error["message"] and "--allow-host" in error["message"], path
    with pytest.raises(InvalidStatus) as refused, socket.create_connection(("127.0.0.1", open_.port)) as raw:
        connect("ws://evil.example/v1/realtime?model=x", sock=raw, origin="http://evil.example")
    assert refused.value.response.status_code == 421
    assert httpx.get(f"{open_.url}/health", headers={"Host": "evil.example"}).status_code == 200  # a load balancer's
    assert httpx.get(f"{open_.url}/v1/models", headers={"Host": f"localhost:{open_.port}"}).status_code == 200


def test_a_name_that_is_allowed(locked: Running) -> None:
    for host in ("named.example", "good.example", "localhost"):
        answer = httpx.get(f"{locked.url}/v1/models", headers={"Host": host, "Authorization": f"Bearer {KEY}"})
        assert answer.status_code == 200


def test_two_hosts_are_none(open_: Running) -> None:
    with socket.create_connection(("127.0.0.1", open_.port), timeout=20) as raw:
        raw.sendall(b"GET /v1/models HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\nConnection: close\r\n\r\n")
        assert raw.recv(1_000).split(b" ")[1] in (b"400", b"421")


def test_a_page_of_an_allowed_origin_may_ask(locked: Running) -> None:
    """Its preflight has no key; what is refused can be read by it, too."""
    with httpx.Client(base_url=locked.url) as client:
        for path, method in (("/v1/chat/completions", "POST"), ("/v1/models", "GET"), ("/v1/audio/speech", "POST")):
            wanted = {
                "Access-Control-Request-Method": method,
                "Access-Control-Request-Headers": "authorization,content-type,x-stainless-os",
            }
            answer = client.options(path, headers={"Origin": GOOD, **wanted})
            assert answer.status_code == 200 and answer.headers["access-control-allow-origin"] == GOOD
            assert method in answer.headers["access-control-allow-methods"] and "Origin" in answer.headers["vary"]
            assert "x-stainless-os" in answer.headers["access-control-allow-headers"]
            refused = client.options(path, headers={"Origin": EVIL, **wanted})
            assert refused.status_code >= 400 and "access-control-allow-origin" not in refused.headers
        for headers, status in (({"Authorization": f"Bearer {KEY}"}, 200), ({}, 401)):
            answer = client.get("/v1/models", headers={"Origin": GOOD, **headers})
            assert answer.status_code == status and answer.headers["access-control-allow-origin"] == GOOD
            assert "Retry-After" in answer.headers["access-control-expose-headers"]
            assert "Origin" in answer.headers["vary"]
        assert "Origin" in client.get("/v1/models", headers={"Authorization": f"Bearer {KEY}"}).headers["vary"]
        answer = client.get("/v1/models", headers={"Origin": EVIL, "Authorization": f"Bearer {KEY}"})
        assert answer.status_code == 403 and "access-control-allow-origin" not in answer.headers


def test_head_and_options(open_: Running) -> None:
    """HEAD is a GET without its body, wherever there is a GET; OPTIONS says what there is."""
    with httpx.Client(base_url=open_.url) as client:
        for path in [
            "/health",
            "/metrics",
            "/v1/models",
            "/v1/models/tiny",
            "/openapi.json",
            "/",
            "/page-assets/page.js",
        ]:
            full, head = client.get(path), client.head(path)
            assert (full.status_code, head.status_code, head.content) == (200, 200, b""), path
            assert head.headers["content-type"] == full.headers["content-type"]
        assert client.head("/v1/audio/speech").status_code == 405 and client.head("/nothing").status_code == 404
        for path, method in (("/health", "GET"), ("/v1/audio/speech", "POST")):
            answer = client.options(path)
            assert answer.status_code == 204 and method in answer.headers["allow"]


@pytest.mark.parametrize("path", ["/v1/audio/transcriptions", "/v1/chat/completions", "/page/recording"])
def test_a_long_body_without_a_length_is_413(open_: Running, caplog: pytest.LogCaptureFixture, path: str) -> None:
    def pieces() -> Iterator[bytes]:
        form = b'--x\r\ncontent-disposition: form-data; name="file"; filename="q.wav"\r\n\r\n'
        yield form if "transcriptions" in path else b'{"a": "'
        for _ in range(48):
            yield b"a" * (1 << 15)

    kind = "multipart/form-data; boundary=x" if "trans" in path else "application/json"
    answer = httpx.post(open_.url + path, content=pieces(), headers={"Content-Type": kind})
    assert answer.status_code == 413 and answer.json()["error"]["code"] == "too_large"
    assert "larger than 1048576 bytes" in answer.json()["error"]["message"]
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR] == []
    assert httpx.get(f"{open_.url}/health").status_code == 200


@pytest.mark.parametrize("root", ["/talk", ""])
def test_a_folder_of_a_proxy(root: str) -> None:
    """With --root-path a proxy may pass the folder on or not; the page's own addresses are relative."""
    config = ServeConfig(model="tiny", pool=ENGINE, access=AccessConfig(keys=(KEY,), root_path=root))
    bearer = {"Authorization": f"Bearer {KEY}"}
    with running(config, app=create_page(config, tiny_assistant(), Loudness())) as found:
        for before in {root, ""}:
            assert httpx.get(f"{found.url}{before}/", headers=bearer).status_code == 200
            assert httpx.get(f"{found.url}{before}/page-assets/page.js", headers=bearer).status_code == 200
            assert httpx.get(f"{found.url}{before}/v1/models", headers=bearer).status_code == 200
            assert httpx.get(f"{found.url}{before}/health").status_code == 200
            assert httpx.get(f"{found.url}{before}/").status_code == 401
            assert httpx.post(f"{found.url}{before}/sign-in", data={"key": KEY}).headers["location"] == "./"
            connect(f"ws://127.0.0.1:{found.port}{before}/v1/realtime", additional_headers=bearer).close()
        assert httpx.get(f"{found.url}/talkative/v1/models", headers=bearer).status_code == 404
        servers = httpx.get(f"{found.url}/openapi.json", headers=bearer).json().get("servers")
        assert servers == ([{"url": root}] if root else None)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    trustme = pytest.importorskip("trustme")
    folder, made = tmp_path_factory.mktemp("tls"), trustme.CA().issue_cert("localhost", "127.0.0.1")
    made.cert_chain_pems[0].write_to_path(folder / "chain.pem")
    made.private_key_pem.write_to_path(folder / "key.pem")
    made.private_key_and_cert_chain_pem.write_to_path(folder / "both.pem")
    return folder / "chain.pem", folder / "key.pem"


@contextlib.contextmanager
def listening_on(config: ServeConfig, host: str) -> Iterator[str]:
    found = listen(host, 0)
    server = server_of(config, create_page(config, tiny_assistant(), Loudness()))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [found]}, daemon=True)
    thread.start()
    wait(lambda: server.started)
    try:
        yield address(host, found, config.tls is not None)
    finally:
        server.should_exit = True
        thread.join(60)
        found.close()


def test_tls(certificate: tuple[Path, Path]) -> None:
    chain, key = certificate
    config = ServeConfig(
        model="tiny", pool=ENGINE, access=AccessConfig(keys=(KEY,)), tls=TlsConfig(certfile=chain, keyfile=key)
    )
    TlsConfig(certfile=chain.parent / "both.pem")
    with listening_on(config, "127.0.0.1") as url:
        assert url.startswith("https://127.0.0.1:")
        answer = httpx.post(f"{url}/sign-in", data={"key": KEY}, verify=False, headers={"Origin": url})
        assert answer.status_code == 303 and answer.headers["set-cookie"].endswith("; Secure")
        who = {"Cookie": answer.headers["set-cookie"].partition(";")[0]}
        unverified = ssl.create_default_context()
        unverified.check_hostname, unverified.verify_mode = False, ssl.CERT_NONE
        connect(
            url.replace("https", "wss") + "/v1/realtime", ssl=unverified, additional_headers=who, origin=url
        ).close()


def test_bad_certificates(certificate: tuple[Path, Path], tmp_path: Path) -> None:
    chain, key = certificate
    for certfile, keyfile, expected in (
        (tmp_path / "no.pem", None, "is no file"),
        (chain, None, "cannot be used"),
        (key, chain, "cannot be used"),
        (Path(__file__), key, "cannot be used"),
    ):
        with pytest.raises(DuologueError, match=expected):
            TlsConfig(certfile=certfile, keyfile=keyfile)


def test_ipv6() -> None:
    try:
        found = listen("::1", 0)
    except DuologueError:
        pytest.skip("this machine has no IPv6")
    port = found.getsockname()[1]
    assert address("::1", found) == f"http://[::1]:{port}"
    assert address("::1", found, tls=True) == f"https://[::1]:{port}"
    found.close()
    with listening_on(ServeConfig(model="tiny", pool=ENGINE), "::1") as url:
        assert httpx.get(f"{url}/v1/models").status_code == 200
        connect(url.replace("http", "ws") + "/v1/realtime", origin=url).close()


def test_a_port_is_taken_from_the_first_moment() -> None:
    """Even while whoever has it still loads."""
    with contextlib.closing(listen("127.0.0.1", 0)) as first, pytest.raises(DuologueError, match="the port is taken"):
        listen("127.0.0.1", first.getsockname()[1])


def test_it_says_what_it_does_until_it_can_be_reached(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    class Reached(Exception):
        """Ends the service from within."""

    def say(url: str) -> None:
        print(url)
        raise Reached

    loaded: list[str] = []
    load = "duologue.inference.assistant.loading.load"
    monkeypatch.setattr(load, lambda name: loaded.append(name) or tiny_assistant())
    create = lambda config, assistant: create_app(config, assistant, Loudness())  # noqa: E731
    with pytest.raises(Reached):
        serve(ServeConfig(model="some-model", pool=ENGINE), "127.0.0.1", 0, say=say, create=create)
    out, err = capfd.readouterr()
    assert loaded == ["some-model"] and out.startswith("http://127.0.0.1:")
    lacks = "some-model: it has no monitor: voice activity alone decides when a turn has ended"
    assert err.splitlines()[:3] == ["loading some-model …", lacks, "starting the workers …"]
