"""The HTTP part, attacked by schemathesis from its own /openapi.json: whatever is sent, nothing is a server's error."""

from __future__ import annotations

import pytest

pytest.importorskip("fastapi")
schemathesis = pytest.importorskip("schemathesis")
# ruff: noqa: E402
import httpx
from hypothesis import HealthCheck, settings
from running_server import running
from schemathesis.checks import not_a_server_error


@pytest.fixture(scope="module")
def server():
    with running() as found:
        yield found


@pytest.fixture(scope="module")
def api(server):
    return schemathesis.openapi.from_url(f"{server.url}/openapi.json")


schema = schemathesis.pytest.from_fixture("api")


@schema.parametrize()
@settings(max_examples=25, suppress_health_check=list(HealthCheck), deadline=None)
def test_nothing_is_a_servers_error(case) -> None:
    case.call_and_validate(checks=[not_a_server_error], timeout=60)


def test_all_that_is_served_is_described(server) -> None:
    paths = httpx.get(f"{server.url}/openapi.json").json()["paths"]
    assert {path for path in paths if path.startswith("/v1")} == {
        "/v1/models",
        "/v1/models/{name}",
        "/v1/audio/transcriptions",
        "/v1/audio/speech",
        "/v1/chat/completions",
    }
