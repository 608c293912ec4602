"""Which clients `make test-clients` runs, and what it says where one cannot be had."""

from __future__ import annotations

import re
from pathlib import Path

import client_environments
import pytest
from client_environments import CLIENTS, SCRIPTS, Client, Unavailable, chosen


def test_by_name(root: Path) -> None:
    assert chosen("all") == list(CLIENTS.values()) and chosen("") == []
    assert [client.name for client in chosen("pipecat livekit")] == ["pipecat", "livekit"]
    with pytest.raises(ValueError, match=r"no client 'siri'; there are openai-sync, "):
        chosen("siri")
    documented = (root / "docs" / "serve.md").read_text(encoding="utf-8")
    for client in CLIENTS.values():
        assert (SCRIPTS / client.script).is_file()
        assert f"`{client.name}`" in documented
        assert re.split("==|@", client.packages[0])[-1] in documented


def test_a_package_that_cannot_be_had_is_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(client_environments, "FOLDER", tmp_path)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    client = Client("nobody", "nobody", ("nobodys-client==1.0",), "openai_sync.py")
    with pytest.raises(Unavailable, match=r"^nobody: nobodys-client==1.0 cannot be installed: ERROR: [^\n]+$"):
        client.command()
    assert not (tmp_path / "nobody" / "installed.json").exists()
