"""``duologue lm``: from text to a model, its perplexity, samples and a smaller one; what it refuses."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from any_model import tiny_llm

from duologue.demo import cli


@pytest.fixture
def text(tmp_path: Path) -> Path:
    path = tmp_path / "t.txt"
    path.write_text("".join(f"What is {a} plus {b}?\n\n" for a in ["two", "three", "four"] for b in ["five", "six"]))
    return path


def run(*words: object) -> int:
    with pytest.raises(SystemExit) as ended:
        cli.main([str(word) for word in ("lm", *words)])
    return int(ended.value.code or 0)


def test_train_perplexity_sample_prune(text: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model, small = tmp_path / "m.arpa", tmp_path / "s.arpa"
    found = []
    for order in (1, 2):
        assert run("train", text, "-o", model, f"order={order}") == 0
        capsys.readouterr()
        assert run("perplexity", model, text) == 0
        found.append(float(re.match(r"perplexity ([\d.]+)", capsys.readouterr().out)[1]))
    assert found[1] < found[0] / 2
    assert run("sample", model, "-n", 3) == 0
    assert len(capsys.readouterr().out.splitlines()) == 3
    assert run("prune", model, "-o", small, "--threshold", 1e3) == 0
    assert small.stat().st_size < model.stat().st_size


def test_held_out_interpolates(text: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other, model = tmp_path / "o.txt", tmp_path / "m.arpa"
    other.write_text("good morning\n")
    assert run("train", text, other, f"held_out={text}", "-o", model) == 0
    weights = re.search(r"weights: .* ([\d.]+), .* ([\d.]+)", capsys.readouterr().err)
    assert float(weights[1]) > 0.9 > 0.1 > float(weights[2]) and "morning" in model.read_text()


def test_conversations_are_what_is_said_in_them(text: Path, tmp_path: Path) -> None:
    """And not what is answered."""
    said, chats = tmp_path / "m.arpa", tmp_path / "chats.jsonl"
    turns = [{"text": line, "reply": "Eleven."} for line in text.read_text().splitlines() if line]
    chats.write_text("".join(json.dumps({"turns": turns[at : at + 2]}) + "\n" for at in range(0, len(turns), 2)))
    assert run("train", text, "-o", said) == 0 and run("train", chats, "-o", tmp_path / "c.arpa") == 0
    assert (tmp_path / "c.arpa").read_text() == said.read_text()


def test_over_tokens(text: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tiny_llm(tmp_path, "llama", "headers")
    folder, model = tmp_path / "theirs_llama", tmp_path / "m.arpa"
    assert run("train", text, f"tokens={folder}", "-o", model) == 0
    assert model.read_text().startswith("# duologue units: tokens\n")
    assert run("perplexity", model, text, "--tokens", folder) == 0
    assert run("perplexity", model, text) == 2
    assert "give tokens=FOLDER" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["train", "order=2", "-o", "x"], "lm train needs a text"),
        (["train", "nowhere.txt", "-o", "x"], "no such file: nowhere.txt"),
        (["train", "t", "smoothing=none", "-o", "x"], "smoothing is 'none'; it must be one of"),
        (["train", "t", "orders=2", "-o", "x"], "did you mean order"),
        (["perplexity", "nowhere.arpa", "t"], "no such file: nowhere.arpa"),
    ],
)
def test_what_is_refused(words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(*words) == 2
    assert message in capsys.readouterr().err
