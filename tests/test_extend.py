"""docs/extend.md keeps its word: its files go into a copy of the package, and its commands run there in their order."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import typing
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from duologue.checkpoints.parts import load_part
from duologue.model.adaptor.stack import StackAdaptor, StackConfig
from duologue.model.speech_lm_config import SpeechLMConfig, parts_of

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "docs/extend.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(python|diff|sh)\n(.*?)^```", PAGE, flags=re.MULTILINE | re.DOTALL)


def copied(package: Path) -> Path:
    """The package's files, the bundled models as links."""
    models = [str(path) for path in ROOT.glob("checkpoints/nano*")]

    def left_out(folder: str, names: list[str]) -> set[str]:
        return {name for name in names if name[0] == "." or f"{folder}/{name}" in (*models, f"{ROOT}/docs")}

    shutil.copytree(ROOT, package, ignore=left_out)
    for path in models:
        (package / Path(path).relative_to(ROOT)).symlink_to(path)
    return package


def write(package: Path, kind: str, block: str) -> None:
    """Write a block's file, or change the file that it names: what stays or goes must be there once."""
    name, text = block.split("\n", 1)
    path = package / name.removeprefix("# ")
    if kind == "python":
        assert not path.exists(), f"{name} is there already"
        path.write_text(text, encoding="utf-8")
        return
    for hunk in text.split("@@\n"):
        lines = hunk.splitlines()
        kept = [[line[1:] for line in lines if line[0] in marks] for marks in (" -", " +")]
        before, after = ("\n".join(["", *some, ""]) for some in kept)
        source = path.read_text(encoding="utf-8")
        assert source.count(before) == 1, f"{name} has not once:{before}"
        path.write_text(source.replace(before, after), encoding="utf-8")


def test_one_page() -> None:
    assert len(PAGE.splitlines()) <= 240


@pytest.mark.guides
def test_what_it_shows_runs(tmp_path: Path) -> None:
    package, here = copied(tmp_path / "duologue"), tmp_path / "here"
    here.mkdir()
    for kind, block in BLOCKS:
        if kind != "sh":
            write(package, kind, block)
    environment = os.environ | {"PYTHONPATH": str(tmp_path), "PYTHON": sys.executable}
    commands = ['duologue() { "$PYTHON" -m duologue "$@"; }', 'python() { "$PYTHON" "$@"; }']
    commands += [block for kind, block in BLOCKS if kind == "sh"]
    run = subprocess.run(
        ["bash", "-euxo", "pipefail", "-c", "\n".join(commands)],
        cwd=here, env=environment, capture_output=True, text=True, timeout=900, check=False,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr[-3000:]
    figures = [json.loads(line) for line in (here / "runs/loudness/figures.jsonl").read_text().splitlines()]
    assert figures[-1]["error_db"] < 12  # of frames between -60 dB and 0
    report = json.loads((here / "figures/report.json").read_text())
    assert report["rows"][0]["reply"] and 1 < report["metrics"][0]["value"] < 10
    adaptor = load_part(here / "projector", "adaptor", StackConfig, StackAdaptor)
    foreign = load_file(here / "foreign.safetensors")
    assert torch.equal(adaptor.linear1.weight, foreign["projector.0.weight"])
    kinds = [json.loads((here / f"runs/{run}/recipe.json").read_text()) for run in ("asr_pretrain", "speech_to_text")]
    assert kinds[0]["encoder"] == kinds[1]["encoder"] == {"n_mels": 80, "width": 64, "layers": 2}
    assert kinds[1]["adaptor"] == {"in_dim": 64, "out_dim": 64, "stack": 8}
    law = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-n", "0", "-p", "no:cacheprovider", "-k", "ConvEncoder or MeanPool",
         package / "tests/test_streaming_law.py"],
        cwd=package, env=environment, capture_output=True, text=True, timeout=900, check=False,
    )  # fmt: skip
    assert law.returncode == 0 and "24 passed" in law.stdout, law.stdout[-3000:]


def test_kinds_of_a_part_differ_by_file_and_fields() -> None:
    """A file's name chooses a kind; the fields in config.json tell which it is."""
    for part in parts_of(SpeechLMConfig).values():
        kinds: list[Any] = [kind for kind in typing.get_args(part.kind) if hasattr(kind, "__dataclass_fields__")]
        assert len({kind.__module__ for kind in kinds}) == len(kinds)
        assert len({frozenset(kind.__dataclass_fields__) for kind in kinds}) == len(kinds)
