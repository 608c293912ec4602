"""Whoever runs a service: its figures, the dashboard that shows them, logs without content, the examples' options."""

from __future__ import annotations

import inspect
import io
import json
import logging
import re
import shlex
from pathlib import Path

import pytest

pytest.importorskip("fastapi")
import yaml
from prometheus_client import CollectorRegistry

from duologue.demo.serve_commands import serve
from duologue.inference.serving import logs
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
