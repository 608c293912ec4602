"""The guides keep their word: the blocks of each run as they stand, in their order, in an empty folder, offline."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from any_model import tiny_llm
from chat_server import Messages, serving
from test_hubert_features import save_hubert
from transformers import WhisperConfig, WhisperForConditionalGeneration

from duologue.data_prep.datasets.shards import ShardedDataset
from duologue.data_prep.speech.engines.espeak import espeak_command
from duologue.inference.assistant.word_lists import hot_words, phrases_in
from duologue.model.decoding.grammars import jsgf

DOCS = Path(__file__).resolve().parents[1] / "docs"


def chat(messages: Messages) -> str:
    rewriting = "typed" in messages[0]["content"]
    return "Um, how much is twelve plus thirty?" if rewriting else "Twelve plus thirty is forty two."


def run_page(name: str, tmp_path: Path, **environment: str) -> Path:
    """Run the shell blocks of a page; returns the folder that they ran in."""
    blocks = re.findall(r"^```sh\n(.*?)^```", (DOCS / name).read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    scripts, here = tmp_path / "bin", tmp_path / "here"
    scripts.mkdir()
    here.mkdir()
    commands = {"duologue": [sys.executable, "-m", "duologue"], "espeak-ng": espeak_command() or []}
    for command, words in commands.items():
        (scripts / command).write_text(f'#!/bin/sh\nexec {shlex.join(words)} "$@"\n')
        (scripts / command).chmod(0o755)
    run = subprocess.run(
        ["bash", "-euxo", "pipefail", "-c", "\n".join(blocks)],
        cwd=here,
        env=os.environ | {"PATH": f"{scripts}:{os.environ['PATH']}", "NO_PROXY": "127.0.0.1"} | environment,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert run.returncode == 0, run.stderr[-3000:]
    return here


def foreign_models(folder: Path) -> dict[str, str]:
    """A tiny language model and a tiny Whisper, as transformers saves them."""
    tiny_llm(folder, "llama", "headers")
    sizes = WhisperConfig(d_model=32, encoder_layers=1, encoder_attention_heads=2, encoder_ffn_dim=128,
                          decoder_layers=1, decoder_attention_heads=2, decoder_ffn_dim=64, vocab_size=60,
                          pad_token_id=0, bos_token_id=1, eos_token_id=2, decoder_start_token_id=1)  # fmt: skip
    WhisperForConditionalGeneration(sizes).save_pretrained(folder / "theirs_whisper")
    return {"LLM": str(folder / "theirs_llama"), "WHISPER": str(folder / "theirs_whisper")}


@pytest.mark.guides
def test_train(tmp_path: Path) -> None:
    pytest.importorskip("openai")
    with serving(chat) as server:
        hubert = save_hubert(tmp_path / "hubert", num_hidden_layers=12)
        models = foreign_models(tmp_path)
        here = run_page("train.md", tmp_path, ENDPOINT=server.url, MODEL="toy", HUBERT=hubert, **models)
    texts = {
        path.parent.name: [meta["text"] for meta in ShardedDataset(path.parent).metas]
        for path in (here / "data").glob("*/dataset.json")
    }
    assert len(texts.pop("asides")) == 4
    assert texts == {
        "mine": (mine := ["What is 2 plus 2?", "What's the capital of France?", "Thank you!"]),
        "mine_replies": ["2 plus 2 is 4.", "The capital of France is Paris."],
        "asr": mine,
        "context": mine,
        "alpaca": ["What is the opposite of the word?\nhot", "Compute (12 + 30)."],
        "spoken": ["Um, how much is twelve plus thirty?"] * 2,
    }
    for stage in ("speech_to_text", "unit_vocoder", "chat", "joined", "monitor", "decoder"):
        assert (here / "runs" / stage / "model.safetensors").is_file()
    for model in ("mymodel", "joined"):
        assert (here / model / "config.json").is_file()


@pytest.mark.guides
def test_preference(tmp_path: Path) -> None:
    here = run_page("preference.md", tmp_path)
    assert (here / "runs" / "preferred" / "model.safetensors").is_file()


@pytest.mark.guides
def test_evaluate(tmp_path: Path) -> None:
    here = run_page("evaluate.md", tmp_path)
    assert (here / "figures/theirs/report.html").is_file()
    found = json.loads((here / "figures/theirs/report.json").read_text())
    assert {metric["id"]: metric["value"] for metric in found["metrics"]}["right"] == 0
    assert [row["question"] for row in found["rows"]] == [
        "What is two plus two?", "And three more?", "Give me a tip for better sleep."
    ]  # fmt: skip
    assert [metric["count"] for metric in found["metrics"] if metric["id"] == "right"] == [1], "the other has no slot"


@pytest.mark.guides
def test_words(tmp_path: Path) -> None:
    here = run_page("words.md", tmp_path)
    assert (here / "small.arpa").stat().st_size < (here / "sums.arpa").stat().st_size
    report = json.loads((here / "figures/report.json").read_text())
    found = {metric["id"]: metric["value"] for metric in report["metrics"]}
    assert (found["keyword_recall"], found["b_wer"], found["u_wer"]) == (0.5, 1 / 3, 1 / 8)
    assert jsgf.parse((here / "orders.jsgf").read_text(), "orders").said
    names = hot_words(phrases_in(str(here / "names.txt")))
    assert [name.weight for name in names] == [3.0, 3.0, 4.0, -1.0]
    assert "calls.txt" not in (both := (here / "both.arpa").read_text()) and "call the" in both and "two plus" in both


def test_words_in_python(capsys: pytest.CaptureFixture[str]) -> None:
    (block,) = re.findall(r"^```python\n(.*?)^```", (DOCS / "words.md").read_text(), flags=re.MULTILINE | re.DOTALL)
    exec(compile(block, "words.md", "exec"), {})
    assert capsys.readouterr().out.startswith("(1, 0) ")
