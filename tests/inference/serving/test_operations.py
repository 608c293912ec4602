"""Whoever runs a service: its figures, the dashboard that shows them, logs without content, the examples' options."""

from __future__ import annotations

import inspect
import io
import json
import logging
import re
import shlex
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("fastapi")
import httpx
import yaml
from prometheus_client import CollectorRegistry
from running_server import ENGINE, running, wait
from tiny_assistant import SAID
from websockets.sync.client import connect

from duologue.demo.serve_commands import serve
from duologue.inference.serving import logs
from duologue.inference.serving.app import ServeConfig
from duologue.inference.serving.http.access import AccessConfig
from duologue.inference.serving.http.metrics import Metrics
from duologue.model.errors import DuologueError

KEY, SECRET = "a-key-that-nobody-knows", "the number nine"
ROOT = Path(__file__).resolve().parents[3]
DEPLOY = ROOT / "docs" / "deploy"


def names(registry: CollectorRegistry) -> set[str]:
    """What can be asked for in a query."""
    suffixes = {"counter": ("_total",), "histogram": ("_bucket", "_sum", "_count")}
    return {each.name + end for each in registry.collect() for end in suffixes.get(each.type, ("",))}


@pytest.fixture(scope="module")
def exported() -> set[str]:
    return names(Metrics(lambda: 0, lambda: 0, list).registry)


def test_every_figure_that_the_dashboard_asks_for_is_exported(exported: set[str]) -> None:
    dashboard = json.loads((DEPLOY / "grafana.json").read_text(encoding="utf-8"))
    queries = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    queries += [variable["query"] for variable in dashboard["templating"]["list"] if variable["type"] == "query"]
    asked = {name for query in queries for name in re.findall(r"duologue_\w+", query)}
    assert asked <= exported, asked - exported
    shown = {re.sub("_(bucket|sum|count)$", "", name) for name in asked}
    assert shown == {re.sub("_(bucket|sum|count)$", "", name) for name in exported}, "and every figure is shown"
    groups = [found for query in queries for found in re.findall(r"by \(([^)]*)\)", query)]
    labels = {label for group in groups for label in group.split(", ")}
    assert labels <= {"le", "endpoint", "status", "reason", "code", "direction"}
    ids = [panel["id"] for panel in dashboard["panels"]]
    assert len(set(ids)) == len(ids)


def test_every_figure_is_described(exported: set[str]) -> None:
    described = (ROOT / "docs" / "serve.md").read_text(encoding="utf-8")
    families = {re.sub("_(bucket|sum|count)$", "", name) for name in exported}
    assert {name for name in families if f"`{name}`" not in described} == set()


def test_the_examples_have_options_that_there_are() -> None:
    options = {f"--{name.replace('_', '-')}" for name in inspect.signature(serve).parameters}
    unit = (DEPLOY / "duologue.service").read_text(encoding="utf-8")
    dockerfile = (DEPLOY / "Dockerfile").read_text(encoding="utf-8")
    (started,) = re.findall(r"^ExecStart=(.*)$", unit, flags=re.MULTILINE)
    given = set(shlex.split(started)) | set(json.loads(re.findall(r"^ENTRYPOINT (.*)$", dockerfile, re.MULTILINE)[0]))
    given |= set(json.loads(re.findall(r"^CMD (.*)$", dockerfile, re.MULTILINE)[0]))
    asked = {word for word in given if word.startswith("--")}
    assert {"--workers", "--logs", "--host"} <= asked <= options
    stop = int(re.findall(r"^TimeoutStopSec=(\d+)$", unit, flags=re.MULTILINE)[0])
    assert stop > int(shlex.split(started)[shlex.split(started).index("--grace") + 1])
    (job,) = yaml.safe_load((DEPLOY / "prometheus.yml").read_text(encoding="utf-8"))["scrape_configs"]
    assert job["static_configs"] == [{"targets": ["127.0.0.1:8000"]}]


@pytest.fixture(scope="module")
def served():
    """A service with a key, and its log as JSON."""
    stream = io.StringIO()
    handler, logger = logging.StreamHandler(stream), logging.getLogger(logs.REQUESTS)
    handler.setFormatter(logs.JsonFormatter())
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    access = AccessConfig(keys=(KEY,), root_path="/talk")
    with running(ServeConfig(model="tiny", pool=ENGINE, access=access)) as found:
        yield found, stream
    logger.removeHandler(handler)
    logger.setLevel(logging.NOTSET)


def figure(found: Any, name: str, **labels: str) -> float:
    value = found.service.metrics.registry.get_sample_value(name, labels)
    return 0.0 if value is None else value


def test_requests_are_counted_and_logged_without_what_they_say(served) -> None:
    found, stream = served
    bearer = {"Authorization": f"Bearer {KEY}"}
    with httpx.Client(base_url=found.url, headers=bearer, timeout=60) as client:
        body = {"model": "tiny", "input": SECRET, "voice": "alloy", "response_format": "pcm"}
        sound = client.post("/v1/audio/speech?secret=xyzzy", json=body).content
        asked = {"messages": [{"role": "user", "content": SECRET}]}
        assert client.post("/v1/chat/completions", json=asked).json()["choices"][0]["message"]["content"] == SAID
        assert client.post("/v1/chat/completions", json={"messages": SECRET}).status_code == 400
        assert client.get("/v1/models/nobody").status_code == 404
        assert client.get("/talk/v1/models/tiny").status_code == 200, "behind a proxy that passes its folder on"
        for path in ("/", "/nothing", "/v1/nothing", "/metrics/x"):
            assert client.get(path).status_code == 404
        assert client.get("/health", headers={"Authorization": "Bearer wrong-wrong"}).status_code == 200
    assert httpx.get(f"{found.url}/v1/models").status_code == 401
    with connect(found.url.replace("http", "ws") + "/v1/realtime", additional_headers=bearer) as connection:
        connection.recv()
        assert figure(found, "duologue_http_open", endpoint="/v1/realtime") == 1
    total, models = "duologue_http_requests_total", "/v1/models/{name:path}"
    wait(lambda: figure(found, total, endpoint="/v1/realtime", status="101") == 1)
    assert figure(found, "duologue_http_open", endpoint="/v1/realtime") == 0
    assert figure(found, total, endpoint="/v1/audio/speech", status="200") == 1
    assert figure(found, total, endpoint="/v1/chat/completions", status="200") == 1
    assert figure(found, total, endpoint="/v1/chat/completions", status="400") == 1
    for status in ("404", "200"):
        assert figure(found, total, endpoint=models, status=status) == 1
    assert figure(found, total, endpoint="/v1/models", status="401") == 1, "who is refused is counted"
    assert figure(found, total, endpoint="other", status="404") == 4
    first = figure(found, "duologue_http_first_byte_seconds_sum", endpoint="/v1/audio/speech")
    assert 0 < first <= figure(found, "duologue_http_seconds_sum", endpoint="/v1/audio/speech")
    spoken = figure(found, "duologue_audio_seconds_total", endpoint="/v1/audio/speech", direction="spoken")
    assert spoken == pytest.approx(len(sound) / 48_000, abs=0.05)

    text = stream.getvalue()
    lines = [json.loads(line) for line in text.splitlines()]
    assert {line["event"] for line in lines} == {"request"} and len(lines) >= 11
    (speech,) = [line for line in lines if line["endpoint"] == "/v1/audio/speech"]
    assert speech["status"] == 200 and speech["method"] == "POST" and speech["bytes_out"] == len(sound)
    assert [line["status"] for line in lines if line.get("session")] == [101]
    for secret in (KEY, SECRET, "xyzzy", "nobody", "nothing", "Bearer"):
        assert secret not in text


def test_a_fault_is_logged_without_its_words() -> None:
    stream = io.StringIO()
    logger, handler = logging.getLogger("duologue.test_operations"), logging.StreamHandler(stream)
    handler.setFormatter(logs.JsonFormatter())
    logger.addHandler(handler)
    try:
        raise ValueError(f"cannot read {SECRET!r}")
    except ValueError:
        logger.exception("%s failed", "hear")
    foreign = logging.LogRecord("somebody", logging.WARNING, "x.py", 1, "cannot read %r", (SECRET,), None)
    print(logs.JsonFormatter().format(foreign), file=stream)
    logger.removeHandler(handler)
    ours, theirs = (json.loads(line) for line in stream.getvalue().splitlines())
    assert (ours["event"], ours["level"], ours["error"]) == ("hear failed", "error", "ValueError")
    assert "test_operations.py" in ours["stack"][-1] and SECRET not in stream.getvalue()
    assert theirs["event"] == "cannot read %r"
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", ours["time"])


def test_kinds_of_logs() -> None:
    with pytest.raises(DuologueError, match="'xml'; they must be text or json"):
        logs.set_up("xml")
