"""The README keeps its word: its Python runs, its commands parse, its tree is the tree, its links lead somewhere."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import numpy as np
import pytest
from typer.main import get_command

from duologue.demo.cli import app

ROOT = Path(__file__).resolve().parent.parent
TEXT = (ROOT / "README.md").read_text(encoding="utf-8")
FOLDERS = ("model", "checkpoints", "data_prep", "training", "inference", "demo")
NANO = ROOT / "checkpoints/nano/config.json"


def blocks(language: str) -> list[str]:
    """The README's fenced blocks in one language."""
    return re.findall(rf"^```{language}\n(.*?)^```", TEXT, flags=re.MULTILINE | re.DOTALL)


def test_length() -> None:
    lines = TEXT.splitlines()
    assert len(lines) <= 120
    assert max(map(len, lines)) <= 130


def test_tree() -> None:
    """The tree names every package of the two upper levels, and nothing that is not there."""
    named, above = set(), Path()
    for line in blocks("text")[0].splitlines():
        folders, _, phrase = line.strip().partition("  ")
        above = above if line.startswith("  ") else Path(folders)
        listed = re.findall(r"([\w/]+)/", folders if line.startswith("  ") else phrase)
        named |= {above.as_posix()} | {(above / name).as_posix() for name in listed}
    packages = {
        path.parent.relative_to(ROOT).as_posix() for folder in FOLDERS for path in (ROOT / folder).rglob("__init__.py")
    }
    assert {name for name in packages if name.count("/") < 2} <= named
    assert [name for name in named if not (ROOT / name).is_dir()] == []


@pytest.mark.skipif(not NANO.is_file(), reason="the bundled model, checkpoints/nano, is not in this copy")
@pytest.mark.parametrize("snippet", blocks("python"))
def test_python(
    snippet: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from duologue.data_prep.audio import write_wav

    rng = np.random.default_rng(0)
    write_wav(tmp_path / "question.wav", 0.1 * rng.standard_normal(16_000), 16_000)
    monkeypatch.chdir(tmp_path)
    exec(compile(snippet, "README.md", "exec"), {})
    assert capsys.readouterr().out.strip()


def commands() -> list[str]:
    return [
        line.partition("#")[0].strip()
        for block in blocks("sh")
        for line in block.splitlines()
        if line.startswith("duologue ")
    ]


@pytest.mark.parametrize("line", commands())
def test_commands_parse(line: str) -> None:
    """The command exists and takes these arguments (it is not run)."""
    _, name, *arguments = shlex.split(line)
    group = get_command(app)
    command = group.get_command(None, name)  # type: ignore[attr-defined]
    assert command is not None
    command.make_context(name, arguments)


def test_every_command_is_shown() -> None:
    shown = {shlex.split(line)[1] for line in commands()}
    assert shown == set(get_command(app).commands)  # type: ignore[attr-defined]


def test_make_targets_exist() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = [line.split()[1] for block in blocks("sh") for line in block.splitlines() if line.startswith("make ")]
    assert targets[:2] == ["chat", "test"]
    for target in targets:
        assert re.search(rf"^{target}:", makefile, flags=re.MULTILINE)


def test_links() -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", TEXT):
        if "://" not in target and (NANO.is_file() or not target.startswith("checkpoints/nano")):
            assert (ROOT / target).exists(), target
