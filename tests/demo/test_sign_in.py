"""The page behind a key: a form, limited tries, a cookie that stands for the key, and all that is behind it."""

from __future__ import annotations

import re
import socket
from collections.abc import Iterator

import httpx
import pytest

pytest.importorskip("fastapi")
from running_server import ENGINE, Running, running
from tiny_assistant import Loudness, tiny_assistant
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from duologue.demo.page.page import create_page
from duologue.inference.serving.app import ServeConfig
from duologue.inference.serving.http import sign_in
from duologue.inference.serving.http.access import Access, AccessConfig
from duologue.inference.serving.http.sign_in import SignIns, Tries
from duologue.inference.serving.protocol.errors import RequestError

KEY, OTHER = "a-key-of-the-first", "a-key-of-the-second"


def page(**access) -> ServeConfig:
    return ServeConfig(model="tiny", pool=ENGINE, access=AccessConfig(keys=(KEY, OTHER), **access))


@pytest.fixture(scope="module")
def locked() -> Iterator[Running]:
    config = page(origins=("https://public.example",))
    with running(config, app=create_page(config, tiny_assistant(), Loudness())) as found:
        yield found


@pytest.fixture
def limited() -> Iterator[Running]:
    """A fresh one: tries and conversations are counted."""
    config = page(sessions_per_key=1)
    with running(config, app=create_page(config, tiny_assistant(), Loudness())) as found:
        yield found


def signed_in(found: Running, key: str = KEY, **headers: str) -> httpx.Response:
    return httpx.post(f"{found.url}/sign-in", data={"key": key}, headers=headers)


def cookie(answer: httpx.Response) -> dict[str, str]:
    return {"Cookie": answer.headers["set-cookie"].partition(";")[0]}


def socket_status(found: Running, **headers: str) -> int:
    try:
        connect(f"ws://127.0.0.1:{found.port}/v1/realtime?model=x", additional_headers=headers).close()
    except InvalidStatus as refused:
        return refused.response.status_code
    return 101


def test_a_key_opens_the_page_and_all_that_is_behind_it(locked: Running) -> None:
    first = httpx.get(locked.url)
    assert first.status_code == 401 and 'type="password"' in first.text and "Start talking" not in first.text
    assert httpx.get(f"{locked.url}/sign-in").text == first.text
    assert not re.search(r"(src|href=.(?!data:,)|url\()", first.text), "the form needs nothing that is behind it"
    for path in ("/page-assets/page.js", "/v1/models", "/metrics", "/openapi.json", "/page/recording", "/page/room"):
        assert httpx.get(locked.url + path).status_code == 401, path
    assert httpx.post(f"{locked.url}/page/recording", content=b"x").status_code == 401
    assert socket_status(locked) == 401
    answer = signed_in(locked)
    assert (answer.status_code, answer.headers["location"]) == (303, "./")
    given = r"duologue_session=[\w-]{40,}; Max-Age=\d+; HttpOnly; SameSite=Strict"
    assert re.fullmatch(given, answer.headers["set-cookie"])
    who = cookie(answer)
    assert "Start talking" in httpx.get(locked.url, headers=who).text
    assert httpx.get(f"{locked.url}/page-assets/page.js", headers=who).status_code == 200
    assert httpx.get(f"{locked.url}/v1/models", headers=who).status_code == 200
    assert socket_status(locked, **who, Origin=locked.url) == 101
    # Signed out, the cookie is worth nothing.
    out = httpx.post(f"{locked.url}/sign-out", headers=who)
    assert (out.status_code, out.headers["location"]) == (303, "./") and "Max-Age=0" in out.headers["set-cookie"]
    assert httpx.get(locked.url, headers=who).status_code == 401 and socket_status(locked, **who) == 401


def test_programs_go_on_with_the_key_itself(locked: Running) -> None:
    bearer = {"Authorization": f"Bearer {KEY}"}
    assert httpx.get(f"{locked.url}/v1/models", headers=bearer).status_code == 200
    assert socket_status(locked, **bearer) == 101
    assert "Start talking" in httpx.get(locked.url, headers=bearer).text


def test_a_cookie_is_of_use_to_our_own_page_only(locked: Running) -> None:
    who = cookie(signed_in(locked))
    for origin in ("https://evil.example", "null", "http://127.0.0.1:1", f"{locked.url}.evil.example"):
        assert socket_status(locked, **who, Origin=origin) == 403, origin
        assert httpx.post(f"{locked.url}/sign-out", headers={**who, "Origin": origin}).status_code == 403
        assert signed_in(locked, Origin=origin).status_code == 403
    assert socket_status(locked, **who, Origin="https://public.example") == 101


def test_a_key_of_a_cookie_counts_as_that_key(limited: Running) -> None:
    locked = limited
    who = cookie(signed_in(locked))
    with connect(f"ws://127.0.0.1:{locked.port}/v1/realtime?model=x", additional_headers=who):
        assert socket_status(locked, Authorization=f"Bearer {KEY}") == 429
        assert socket_status(locked, **cookie(signed_in(locked, OTHER))) == 101


@pytest.mark.parametrize("how", ["Origin", "X-Forwarded-Proto"])
def test_the_cookie_is_secure_where_the_page_came_by_https(locked: Running, how: str) -> None:
    value = {"Origin": "https://public.example", "X-Forwarded-Proto": "https"}[how]
    assert signed_in(locked, **{how: value}).headers["set-cookie"].endswith("; Secure")


def test_wrong_keys_are_limited_and_a_cookie_goes_on(limited: Running) -> None:
    locked = limited
    who = cookie(signed_in(locked))
    for key in ("", "wrong", KEY[:-1], f"{KEY}x", "<script>alert(1)</script>"):
        answer = signed_in(locked, key)
        assert answer.status_code == 401 and "not a key of this page" in answer.text and "<script" not in answer.text
    for key in (KEY, "wrong"):  # a right one too, or guessing would go on
        answer = signed_in(locked, key)
        assert answer.status_code == 429 and "set-cookie" not in answer.headers
        assert 1 <= int(answer.headers["retry-after"]) <= 60
        assert f"Try again in {answer.headers['retry-after']} seconds" in answer.text
    assert httpx.get(locked.url, headers=who).status_code == 200
    assert httpx.get(f"{locked.url}/v1/models", headers={"Authorization": f"Bearer {KEY}"}).status_code == 200


def test_many_forms_at_once_are_no_more_tries(limited: Running) -> None:
    """All their headers come before any of their bodies."""
    forms = [socket.create_connection(("127.0.0.1", limited.port), timeout=20) for _ in range(12)]
    for form in forms:
        form.sendall(b"POST /sign-in HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\nConnection: close\r\n\r\n")
    httpx.get(f"{limited.url}/health")
    for form in forms:
        form.sendall(b"key=wrong")
    statuses = [form.recv(100).split(b" ")[1] for form in forms]
    for form in forms:
        form.close()
    assert sorted(statuses) == [b"401"] * 5 + [b"429"] * 7


def test_wrong_bearers_are_limited_but_lock_out_nobody_who_was_right() -> None:
    access = Access(None, AccessConfig(keys=(KEY, OTHER)))

    def tried(key: str, address: str = "1.2.3.4") -> int:
        try:
            access._key({"authorization": f"Bearer {key}"}, {"path": "/", "client": (address, 1)})
        except RequestError as error:
            return error.status
        return 200

    assert tried(KEY) == 200
    assert {tried(f"wrong-{i}") for i in range(99)} == {401}
    assert [tried(f"wrong-{i}") for i in range(9)][-1] == 429 and tried("") == 429
    assert (tried(OTHER), tried(KEY), tried(OTHER, "1.2.3.5")) == (429, 200, 200)
    for i in range(2_000):
        tried(KEY, f"10.0.{i // 250}.{i % 250}")
    assert len(access._known) == 1_024


def test_a_form_is_short(locked: Running) -> None:
    assert httpx.post(f"{locked.url}/sign-in", content=b"key=" + b"x" * 10_000).status_code == 413


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_sign_ins_end_and_only_their_digests_are_kept() -> None:
    clock = Clock()
    found = SignIns(clock)
    tokens = [found.open(i) for i in range(3)]
    assert [found.key(f"a=b; duologue_session={token}; c=d") for token in tokens] == [0, 1, 2]
    assert not any(token in repr(vars(found)) for token in tokens)
    for nobody in ("", "duologue_session=", f"other={tokens[0]}", "duologue_session=é"):
        assert found.key(nobody) is None
    found.close(f"duologue_session={tokens[0]}")
    assert found.key(f"duologue_session={tokens[0]}") is None
    clock.now += sign_in.LASTS_S
    assert found.key(f"duologue_session={tokens[1]}") is None
    kept = found.open(2)
    for _ in range(3_000):
        found.open(1)
    assert len(found._found) <= 1_002
    assert found.key(f"duologue_session={kept}") == 2, "of another key"


def test_tries_come_back_with_time_and_are_bounded_in_memory() -> None:
    clock = Clock()
    tries = Tries(at_once=3, every_s=10, all_at_once=20, all_every_s=1, now=clock)
    for _ in range(3):
        assert tries.wait_s("1.2.3.4") == 0
        tries.failed("1.2.3.4")
    assert tries.wait_s("1.2.3.4") == pytest.approx(10) and tries.wait_s("1.2.3.5") == 0
    clock.now += 10
    assert tries.wait_s("1.2.3.4") == pytest.approx(0)
    for i in range(3):  # a network of IPv6 addresses is one visitor
        tries.failed(f"2001:db8::{i}")
    assert tries.wait_s("2001:db8::ffff") > 0 and tries.wait_s("2001:db8:0:1::") == 0
    for i in range(20):
        tries.failed(f"10.0.0.{i}")
    assert tries.wait_s("10.1.1.1") > 0, "of all addresses together"
    for i in range(10_000):
        tries.failed(f"10.{i // 250}.{i % 250}.1")
    assert len(tries._paid) == 4_096
