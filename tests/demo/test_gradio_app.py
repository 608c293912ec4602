"""The Gradio app: it answers, and hands out no file of the machine."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

pytest.importorskip("gradio")
import soundfile
from gradio_client import Client, handle_file
from running_server import sound
from tiny_assistant import HEARD, SAID, tiny_assistant

from duologue.demo.gradio_app import build


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    app: Any = build(tiny_assistant())
    _, address, _ = app.launch(prevent_thread_lock=True, quiet=True)
    yield address
    app.close()


def test_a_question(url: str, tmp_path: Path) -> None:
    """In speech and in writing."""
    soundfile.write(tmp_path / "q.wav", sound((1.0, True)), 16_000)
    client = Client(url, verbose=False, download_files=False)
    heard, answer, speech = client.predict(handle_file(tmp_path / "q.wav"), "", api_name="/ask")
    assert (heard, answer) == (HEARD, SAID) and speech
    heard, answer, speech = client.predict(None, "what is two", api_name="/ask")
    assert answer == SAID and speech


def test_no_file_of_the_machine(url: str, tmp_path: Path) -> None:
    secret = tmp_path / "secret.txt"
    secret.write_text("a secret")
    given = {"path": str(secret), "meta": {"_type": "gradio.FileData"}}
    answers = [httpx.get(f"{url}gradio_api/file={secret}")]
    for index in range(4):
        body = {"data": [given, ""], "fn_index": index, "session_hash": f"s{index}"}
        joined = httpx.post(f"{url}gradio_api/queue/join", json=body)
        answers.append(joined)
        if joined.status_code == 200:
            answers.append(httpx.get(f"{url}gradio_api/queue/data?session_hash=s{index}", timeout=20))
    shown = " ".join(answer.text for answer in answers)
    assert "a secret" not in shown and "secret.txt" not in json.dumps(shown).replace(str(secret), "")
