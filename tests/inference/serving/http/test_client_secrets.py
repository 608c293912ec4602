"""Ephemeral keys open Realtime sessions, by header and by subprotocol, and nothing else; they end."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

pytest.importorskip("fastapi")
import openai
from running_server import ENGINE, Running, collect, running
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from duologue.inference.serving.app import ServeConfig
from duologue.inference.serving.http.access import AccessConfig
from duologue.inference.serving.http.client_secrets import LONGEST_S, ClientSecrets
from duologue.inference.serving.protocol.errors import RequestError

KEYS = ("the-first-servers-key", "the-second-servers-key")


@pytest.fixture(scope="module")
def server() -> Iterator[Running]:
    with running(ServeConfig(model="tiny", pool=ENGINE, access=AccessConfig(keys=KEYS))) as found:
        yield found


def test_it_ends_and_only_its_digest_is_kept() -> None:
    now = [100.0]
    minted = ClientSecrets(lambda: now[0])
    value, other = minted.mint(1, 600, {"instructions": "a"}), minted.mint(0, 10, {})
    assert value.startswith("ek_") and len(value) > 40 and value != other
    assert value not in repr(vars(minted))
    found = minted.find(value)
    assert found is not None and (found.key, found.session) == (1, {"instructions": "a"})
    now[0] += 10
    assert minted.find(other) is None and minted.find(value) is not None and minted.find("ek_") is None
    now[0] += 590
    assert minted.find(value) is None
    for _ in range(1000):
        minted.mint(1, 60, {})
    with pytest.raises(RequestError, match="1000 client secrets"):
        minted.mint(1, 60, {})
    minted.mint(0, 60, {})  # another's
    now[0] += 60
    minted.mint(1, 60, {})


def test_a_session_begins_as_the_server_wants_it(server: Running) -> None:
    session: Any = {"type": "realtime", "instructions": "be brief", "audio": {"input": {"turn_detection": None}}}
    made = server.client(KEYS[1]).realtime.client_secrets.create(
        session=session, expires_after={"anchor": "created_at", "seconds": 60}
    )
    assert made.value.startswith("ek_") and made.session.type == "realtime" and made.session.id
    with server.client(made.value).realtime.connect(model="tiny") as connection:
        created = connection.recv()
        assert created.type == "session.created"
        assert (created.session.instructions, created.session.audio.input.turn_detection) == ("be brief", None)
        connection.session.update(session={"type": "realtime", "max_output_tokens": 5})
        assert collect(connection, "session.updated")[-1].session.instructions == "be brief"
    protocols: Any = ["realtime", f"openai-insecure-api-key.{made.value}"]
    with connect(f"ws{server.url[4:]}/v1/realtime", subprotocols=protocols) as socket:
        assert json.loads(socket.recv())["session"]["instructions"] == "be brief" and socket.subprotocol == "realtime"


def test_a_transcription_session(server: Running) -> None:
    made = server.client(KEYS[0]).realtime.client_secrets.create(session={"type": "transcription"})
    assert made.session.type == "transcription" and made.session.object == "realtime.transcription_session"
    with server.client(made.value).realtime.connect(model="tiny") as connection:
        assert connection.recv().session.type == "transcription"  # type: ignore[union-attr]


def test_it_opens_sessions_only(server: Running) -> None:
    ephemeral = server.client(server.client(KEYS[0]).realtime.client_secrets.create().value)
    for call in (
        lambda: ephemeral.realtime.client_secrets.create(),
        lambda: ephemeral.models.list(),
        lambda: ephemeral.chat.completions.create(model="tiny", messages=[{"role": "user", "content": "hello"}]),
    ):
        with pytest.raises(openai.PermissionDeniedError, match="opens Realtime sessions and nothing else"):
            call()
    for wrong in ("ek_wrong", "ek_"):
        with pytest.raises(openai.AuthenticationError):
            server.client(wrong).models.list()
        with pytest.raises(InvalidStatus, match="401"):
            connect(f"ws{server.url[4:]}/v1/realtime", additional_headers={"Authorization": f"Bearer {wrong}"})


def test_what_cannot_be_is_refused(server: Running) -> None:
    client = server.client(KEYS[0])
    for body, param in (
        ({"expires_after": {"anchor": "created_at", "seconds": LONGEST_S + 1}}, "expires_after.seconds"),
        ({"expires_after": {"anchor": "created_at", "seconds": 9}}, "expires_after.seconds"),
        ({"expires_after": {"anchor": "other"}}, "expires_after.anchor"),
        ({"session": {"type": "realtime", "instrutions": "a"}}, "session.instrutions"),
        ({"session": 3}, "session"),
    ):
        with pytest.raises(openai.BadRequestError) as caught:
            client.post("/realtime/client_secrets", body=body, cast_to=object)
        assert caught.value.param == param
