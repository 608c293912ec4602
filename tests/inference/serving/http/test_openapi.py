"""The HTTP part, attacked by schemathesis from its own /openapi.json: whatever is sent, nothing is a server's error."""

from __future__ import annotations

import pytest

pytest.importorskip("fastapi")
pytest.importorskip("schemathesis")
import httpx
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from running_server import running
from schemathesis import GenerationMode

EXAMPLES = 15  # of each endpoint and mode


@pytest.fixture(scope="module")
def server():
    with running() as found:
        yield found


@pytest.mark.parametrize("mode", list(GenerationMode))
def test_nothing_is_a_servers_error(server, mode: GenerationMode) -> None:
    """Requests that fit the description, and requests that do not: an answer, or an error of the client's, in JSON."""
    api = schemathesis.openapi.from_url(f"{server.url}/openapi.json")
    for operation in (found.ok() for found in api.get_all_operations()):
        if mode.is_negative and "requestBody" not in operation.definition.raw:
            continue  # nothing can be wrong with asking for these

        @settings(
            max_examples=EXAMPLES,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
            database=None,
        )
        @given(case=operation.as_strategy(generation_mode=mode))
        def attacked(case) -> None:
            answer = case.call(timeout=60)
            assert answer.status_code < 500, answer.text
            assert answer.status_code < 400 or answer.json()["error"]["message"]

        attacked()
    assert server.service.pool.slots == 0


def test_all_that_is_served_is_described(server) -> None:
    paths = httpx.get(f"{server.url}/openapi.json").json()["paths"]
    assert {path for path in paths if path.startswith("/v1")} == {
        "/v1/models",
        "/v1/models/{name}",
        "/v1/audio/transcriptions",
        "/v1/audio/speech",
        "/v1/chat/completions",
        "/v1/realtime/calls",
        "/v1/realtime/calls/{call_id}/hangup",
        "/v1/realtime/client_secrets",
    }
