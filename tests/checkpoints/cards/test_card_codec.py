"""The card of a codec says what its files say: sizes, figures about these very weights, how training went."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from duologue.checkpoints.cards.codec import PUBLISHED, collect, main, render
from duologue.checkpoints.cards.facts import digest
from duologue.checkpoints.parts import save_part
from duologue.model.codec.codec import Codec
from duologue.model.errors import DuologueError
from duologue.training.recipe import save_recipe
from duologue.training.recipes.codec import recipe


@pytest.fixture
def codec(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    module = Codec(recipe("tiny").codec)
    return save_part(tmp_path / "small-codec", "codec", module.half(), module.config, "")


@pytest.fixture
def run(tmp_path: Path) -> Path:
    folder = tmp_path / "run"
    folder.mkdir()
    save_recipe(recipe("tiny"), folder)
    rows = [{"step": 500 * (i + 1), "time": 3600.0 * i, "loss": 9.0 - i, "mel_dev": 1.5 - 0.1 * i, "used_dev": 30 + i}
            for i in range(12)]  # fmt: skip
    (folder / "figures.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def report(folder: Path, weights: str | None, suite: str = "codec") -> Path:
    def metric(key: str, value: float) -> dict[str, Any]:
        return {"id": key, "name": key, "value": value, "low": value - 0.01, "high": value + 0.01}

    path = folder / "report.json"
    found = {
        "settings": {"suite": suite, "data": "work/held_out", "pairs": 90, "weights": weights},
        "metrics": [metric("stoi", 0.8123), metric("pesq", 1.613), metric("real_time_factor", 0.071)],
        "figures": {"seconds": 600.0, "codebooks": [
            {"codebook": 0, "tokens": 40000, "used": 3456, "perplexity": 1234.5, "utilisation": 0.84375}]},
        "environment": {"processor": "Some Processor", "torch_threads": 1},
    }  # fmt: skip
    path.write_text(json.dumps(found))
    return path


def test_it_says_what_the_files_say(codec: Path, run: Path, tmp_path: Path) -> None:
    main([str(codec), "--run", f"{run}@two cores", "--report", str(report(tmp_path, digest(codec)))])
    card = (codec / "README.md").read_text()
    for text in (
        "16 kHz as 66.67 frames a second, one codebook of 64 entries, 0.40 kbit/s",
        "exactly, 75 ms behind the microphone",
        "| STOI | 0.812 (0.802 to 0.822) | 0.77 | 0.85 | 0.90 |",
        "| PESQ, wide band | 1.61 (1.60 to 1.62) | 1.23 | 1.56 | 2.13 |",
        "| UTMOS | not measured | 1.25 |",
        "| Real-time factor, encoding and decoding | 0.071 (",
        "| Entries used | 3,456 (84.4 %) by 40,000 tokens |",
        "| Perplexity | 1234 |",
        "Over 90 held-out recordings of held_out, 10 minutes",
        "Some Processor, 1 threads",
        "two cores",
        "| 6,000 | 0.400 | 41 |",
    ):
        assert text in card, text
    parameters = sum(p.numel() for p in Codec(recipe("tiny").codec).parameters())
    assert f"**{parameters:,}**" in card
    course = card.partition("## How training went")[2].partition("## ")[0]
    assert course.count("\n|") == 12, "ten rows of the twelve, and their head"
    assert [(one.name, one.kbps) for one in PUBLISHED] == [("EnCodec", 0.75), ("EnCodec", 1.5), ("WavTokenizer", 0.9)]


def test_another_codec_of_ours_stands_beside_it(codec: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    found = json.loads(report(other, "other weights").read_text())
    found["metrics"][0] |= {"value": 0.5, "low": None}
    (other / "report.json").write_text(json.dumps(found))
    mine = report(tmp_path, digest(codec))
    main([str(codec), "--report", str(mine), "--beside", f"at 40={other / 'report.json'}"])
    card = (codec / "README.md").read_text()
    assert "| measure | small-codec | at 40 | EnCodec, 0.75 kbit/s |" in card
    assert "| STOI | 0.812 (0.802 to 0.822) | 0.500 | 0.77 |" in card
    with pytest.raises(DuologueError, match="must be NAME=REPORT"):
        main([str(codec), "--beside", str(mine)])


def test_what_was_not_measured_is_said_so(codec: Path) -> None:
    card = render(collect(codec))
    assert "| STOI | not measured | 0.77 |" in card and "| Entries used | not measured |" in card
    assert "## How training went" not in card and "Not recorded." in card


def test_figures_of_other_weights_are_refused(codec: Path, tmp_path: Path) -> None:
    with pytest.raises(DuologueError, match="about the weights abc"):
        collect(codec, report=report(tmp_path, "abc"))
    with pytest.raises(DuologueError, match="no report of duologue evaluate codec"):
        collect(codec, report=report(tmp_path, digest(codec), suite="s2s"))
    with pytest.raises(DuologueError, match="has not been trained"):
        (tmp_path / "recipe.json").write_text("{}")
        collect(codec, runs=[(tmp_path, None)])
