"""docs/extend.md keeps its word: its files go into a copy of the package, and its commands run there, in their order."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import typing
from pathlib import Path
from typing import Any

from duologue.model.speech_lm_config import SpeechLMConfig, parts_of

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "docs/extend.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(python|diff|sh)\n(.*?)^```", PAGE, flags=re.MULTILINE | re.DOTALL)
BUNDLED = "checkpoints/nano*"


def copied(package: Path) -> Path:
    """The package's files, the bundled models as links."""
    bundled = [path for path in ROOT.glob(BUNDLED) if path.is_dir()]
    names = [path.name for path in bundled]
    shutil.copytree(ROOT, package, ignore=shutil.ignore_patterns(".*", "__pycache__", "docs", *names))
    for path in bundled:
        (package / path.relative_to(ROOT)).symlink_to(path)
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
        before, after = ("".join(f"\n{line[1:]}" for line in lines if line[0] in marks) + "\n" for marks in (" -", " +"))
        source = path.read_text(encoding="utf-8")
        assert source.count(before) == 1, f"{name} has not once:{before}"
        path.write_text(source.replace(before, after), encoding="utf-8")


def test_one_page() -> None:
    assert len(PAGE.splitlines()) < 250


def test_what_it_shows_runs(tmp_path: Path) -> None:
    package, here = copied(tmp_path / "duologue"), tmp_path / "here"
    here.mkdir()
    for kind, block in BLOCKS:
        if kind != "sh":
            write(package, kind, block)
    command = tmp_path / "duologue.sh"
    commands = "\n".join(block for kind, block in BLOCKS if kind == "sh")
    command.write_text(f'duologue() {{ "{sys.executable}" -m duologue "$@"; }}\npython() {{ "{sys.executable}" "$@"; }}\n')
    run = subprocess.run(
        ["bash", "-euxo", "pipefail", "-c", f". {command}\n{commands}"],
        cwd=here, env=os.environ | {"PYTHONPATH": str(tmp_path)}, capture_output=True, text=True, timeout=900, check=False,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr[-3000:]


def test_kinds_of_a_part_differ_by_file_and_fields() -> None:
    """A file's name chooses a kind; the fields in config.json tell which it is."""
    for part in parts_of(SpeechLMConfig).values():
        kinds: list[Any] = [kind for kind in typing.get_args(part.kind) if hasattr(kind, "__dataclass_fields__")]
        assert len({kind.__module__ for kind in kinds}) == len(kinds)
        assert len({frozenset(kind.__dataclass_fields__) for kind in kinds}) == len(kinds)
