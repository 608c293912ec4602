"""Messages that nobody ought to send: each gets an error event or a closed socket, never a traceback, a hang, another
session's data or a dead process. A few hundred here; ATTACKS=20000 pytest -m slow sends as many as that, one in ten of
them over HTTP."""

from __future__ import annotations

import json
import logging
import os

import pytest
from hypothesis import HealthCheck, Phase, example, given, settings
from hypothesis import strategies as st

pytest.importorskip("fastapi")
import httpx
import websockets
from hostile_messages import anything, messages
from running_server import ENGINE, collect, running, wait
from websockets.sync.client import connect

from duologue.inference.serving.app import ServeConfig
from duologue.inference.serving.http.limits import Limits

SECRET = "the words of another session"
EXAMPLES, A_BATCH, ATTACKS = 40, 8, int(os.environ.get("ATTACKS", "20000"))


class Attack:
    """A server under attack, and somebody else on it."""

    def __init__(self, found) -> None:
        self.found = found
        self.url = found.url.replace("http", "ws") + "/v1/realtime?model=x"

    def send(self, batch: list[str | bytes]) -> None:
        with connect(self.url, max_size=None, open_timeout=60) as connection:  # the machine may be busy
            try:
                for message in batch:
                    connection.send(message)
                connection.send(
                    '{"type": "conversation.item.retrieve", "item_id": "no such item", "event_id": "the last"}'
                )
                while True:
                    event = json.loads(connection.recv(timeout=60))
                    assert SECRET not in json.dumps(event)
                    if event["type"] == "error":
                        assert event["error"]["type"] == "invalid_request_error", event
                        if event["error"]["event_id"] == "the last":
                            break
            except websockets.ConnectionClosed as closed:
                assert closed.rcvd is not None and closed.rcvd.code in (1003, 1007, 1008, 1009), closed


@pytest.fixture(scope="module")
def attack(caplog_module):
    patient = ServeConfig(model="tiny", pool=ENGINE, limits=Limits(idle_s=3600))  # the other one says nothing
    with running(patient) as found, found.client().realtime.connect(model="x") as other:
        content = [{"type": "input_text", "text": SECRET}]
        other.conversation.item.create(item={"type": "message", "role": "user", "content": content, "id": "first"})
        collect(other, "conversation.item.done")
        yield Attack(found)
        # The other one is where it was, and the server as well as before.
        other.conversation.item.retrieve(item_id="first")
        assert collect(other, "conversation.item.retrieved")[-1].item.content[0].text == SECRET
        wait(lambda: found.service.pool.slots == 1)
        assert httpx.get(f"{found.url}/health").status_code == 200
    assert [record.getMessage() for record in caplog_module if record.levelno >= logging.ERROR] == []


@pytest.fixture(scope="module")
def caplog_module():
    """Everything that is logged while the server runs."""
    records: list[logging.LogRecord] = []
    handler = logging.Handler()
    handler.emit = records.append  # type: ignore[method-assign]
    logging.getLogger().addHandler(handler)
    yield records
    logging.getLogger().removeHandler(handler)


HURRY = settings(
    max_examples=EXAMPLES,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
    database=None,
)
HALF_A_PAIR = json.dumps({"type": "session.update", "event_id": "\ud800", "session": {"instructions": "\ud800"}})


@HURRY
@example(batch=[HALF_A_PAIR])
@given(batch=st.lists(messages, min_size=1, max_size=A_BATCH))
def test_hostile_messages(attack, batch: list[str | bytes]) -> None:
    attack.send(batch)


@pytest.mark.slow
@pytest.mark.timeout(5400)
@settings(HURRY, max_examples=max(1, 9 * ATTACKS // 200), derandomize=False)
@given(batch=st.lists(messages, min_size=20, max_size=20))
def test_very_many_hostile_messages(attack, batch: list[str | bytes]) -> None:
    attack.send(batch)


bodies = st.one_of(anything.map(json.dumps), st.binary(max_size=200), st.dictionaries(
    st.sampled_from(["model", "input", "voice", "response_format", "messages", "modalities", "audio", "stream"]),
    anything, max_size=6,
).map(json.dumps))  # fmt: skip

PATHS = st.sampled_from(["chat/completions", "audio/speech", "audio/transcriptions"])


@HURRY
@example(path="chat/completions", body='{"messages": [{"role": "user", "content": "\\ud800"}]}')
@given(path=PATHS, body=bodies)
def test_hostile_requests(attack, path: str, body: str | bytes) -> None:
    _post(attack, path, body)


def _post(attack, path: str, body: str | bytes) -> None:
    headers = {"content-type": "application/json"}
    answer = httpx.post(f"{attack.found.url}/v1/{path}", content=body, headers=headers, timeout=60)
    assert answer.status_code < 500, answer.text
    assert answer.status_code == 200 or answer.json()["error"]["message"]


@pytest.mark.slow
@pytest.mark.timeout(5400)
@settings(HURRY, max_examples=max(1, ATTACKS // 10), derandomize=False)
@given(path=PATHS, body=bodies)
def test_very_many_hostile_requests(attack, path: str, body: str | bytes) -> None:
    _post(attack, path, body)
