"""The guide keeps its word: its blocks run as they stand, in their order, in an empty folder, and download nothing."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from chat_server import Messages, serving

from duologue.data_prep.datasets.shards import ShardedDataset
from duologue.data_prep.speech.engines.espeak import espeak_command

GUIDE = (Path(__file__).resolve().parents[1] / "docs/train.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```sh\n(.*?)^```", GUIDE, flags=re.MULTILINE | re.DOTALL)


def chat(messages: Messages) -> str:
    rewriting = "typed" in messages[0]["content"]
    return "Um, how much is twelve plus thirty?" if rewriting else "Twelve plus thirty is forty two."


def test_one_page() -> None:
    assert len(GUIDE.splitlines()) <= 90 and len(BLOCKS) == 6


def test_the_guide_runs(tmp_path: Path) -> None:
    pytest.importorskip("openai")
    from test_hubert_features import save_hubert

    scripts = tmp_path / "bin"
    scripts.mkdir()
    commands = {"duologue": [sys.executable, "-m", "duologue"], "espeak-ng": espeak_command() or []}
    for name, command in commands.items():
        (scripts / name).write_text(f'#!/bin/sh\nexec {shlex.join(command)} "$@"\n')
        (scripts / name).chmod(0o755)
    here = tmp_path / "here"
    here.mkdir()
    with serving(chat) as server:
        environment = os.environ | {
            "PATH": f"{scripts}:{os.environ['PATH']}", "ENDPOINT": server.url, "MODEL": "toy", "NO_PROXY": "127.0.0.1",
            "HUBERT": save_hubert(tmp_path / "hubert", num_hidden_layers=12),
        }  # fmt: skip
        run = subprocess.run(
            ["bash", "-euxo", "pipefail", "-c", "\n".join(BLOCKS)],
            cwd=here, env=environment, capture_output=True, text=True, timeout=600, check=False,
        )  # fmt: skip
    assert run.returncode == 0, run.stderr[-3000:]
    texts = {folder.name: [meta["text"] for meta in ShardedDataset(folder).metas]
             for folder in (here / "data").iterdir() if (folder / "dataset.json").exists()}  # fmt: skip
    assert texts == {
        "mine": ["what is two plus two", "what is the capital of france", "thank you"],
        "mine_replies": ["two plus two is four", "the capital of france is paris"],
        "alpaca": ["what is the opposite of the word hot"],
        "spoken": ["um how much is twelve plus thirty"] * 2,
    }
    assert "the character" not in (failed := (here / "data/alpaca/failed.jsonl").read_text()) and "is a list" in failed
    for stage in ("speech_to_text", "unit_vocoder"):
        assert (here / "runs" / stage / "model.safetensors").is_file()
