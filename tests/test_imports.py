"""Who may import whom, and what an import costs.

    model <- checkpoints <- data_prep <- {training, inference} <- demo

Training and inference do not know each other. Inside the package imports are relative. nano's grammar, vocabulary and
sizes are reached by name, as a user's own are: nothing but what belongs to it imports them.
"""

from __future__ import annotations

import ast
import re
import resource
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

MAY_IMPORT = {
    "model": {"model"},
    "checkpoints": {"model", "checkpoints"},
    "data_prep": {"model", "checkpoints", "data_prep"},
    "training": {"model", "checkpoints", "data_prep", "training"},
    "inference": {"model", "checkpoints", "data_prep", "inference"},
    "demo": {"model", "checkpoints", "data_prep", "training", "inference", "demo"},
}
FILES = sorted(path.relative_to(ROOT) for folder in MAY_IMPORT for path in (ROOT / folder).rglob("*.py"))

# Machines that only train have none of these; what they need must import without.
NOT_ON_A_TRAINING_MACHINE = ("soundfile", "soxr", "fastapi", "lhotse", "jiwer", "pocketsphinx", "torchaudio", "typer")


def imported(source: str, package: tuple[str, ...]) -> Iterator[tuple[int, str]]:
    """(line, dotted name) of every import in ``source``, also inside functions, relative ones made absolute.

    Args:
        package: the package that the file lies in, from the root: ("training", "recipes").
    """
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            yield node.lineno, node.module or ""
        elif isinstance(node, ast.ImportFrom):
            base = ("duologue", *package)[: len(package) + 2 - node.level]
            for alias in node.names:
                yield node.lineno, ".".join((*base, *filter(None, [node.module]), alias.name))


PRESETS = "|".join(sorted(path.stem for path in (ROOT / "training/presets").glob("[a-z]*.py")))
GUESTS = re.compile(rf"duologue\.(data_prep\.nano|training\.presets\.({PRESETS}))(\.|$)")
HOMES = ("data_prep/nano/", "training/presets/")


def breaches(path: Path, source: str) -> list[str]:
    """What is wrong with the imports of one file (path from the root)."""
    allowed = MAY_IMPORT[path.parts[0]]
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and node.level == 0 and (node.module or "").split(".")[0] == "duologue":
            found.append(f"{path}:{node.lineno}: write a relative import instead of {node.module}")
        elif isinstance(node, ast.Import) and any(alias.name.split(".")[0] == "duologue" for alias in node.names):
            found.append(f"{path}:{node.lineno}: write a relative import instead of import duologue")
    for line, module in imported(source, path.parent.parts):
        parts = module.split(".")
        if GUESTS.match(module) and not path.as_posix().startswith(HOMES):
            found.append(f"{path}:{line}: {module} is reached by name alone: question_set(…), preset(…)")
        if parts[0] in MAY_IMPORT:
            found.append(f"{path}:{line}: {module} without its package; write a relative import")
        elif parts[0] == "duologue" and len(parts) > 1 and parts[1] in MAY_IMPORT and parts[1] not in allowed:
            found.append(f"{path}:{line}: {path.parts[0]} must not import {parts[1]}")
    return found


@pytest.mark.parametrize("path", FILES, ids=str)
def test_direction(path: Path) -> None:
    assert breaches(path, (ROOT / path).read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    ("path", "source", "breach"),
    [
        ("model/mel.py", "from ..checkpoints.store import load", "model must not import checkpoints"),
        ("model/mel.py", "def f():\n    from .. import checkpoints", "model must not import checkpoints"),
        ("training/recipes/x.py", "from ...inference.assistant import load", "training must not import inference"),
        ("inference/x.py", "from ..training import loop", "inference must not import training"),
        ("demo/x.py", "import duologue.model.audio_encoder.mel", "relative import"),
        ("demo/x.py", "from duologue.model.audio_encoder.mel import LogMel", "relative import"),
        ("demo/x.py", "from model.mel import LogMel", "without its package"),
        ("training/recipes/x.py", "from ...data_prep.nano.dialogues import generate", "reached by name alone"),
        ("training/recipes/x.py", "def f():\n    from ...data_prep import nano", "reached by name alone"),
        ("data_prep/recipes/x.py", "from ..nano import vocabulary", "reached by name alone"),
        ("training/recipes/x.py", "from ..presets.nano import ENCODER", "reached by name alone"),
        ("training/grow.py", "from .presets import tiny", "reached by name alone"),
    ],
)
def test_a_breach_is_found(path: str, source: str, breach: str) -> None:
    found = breaches(Path(path), source)
    assert found and all(breach in line for line in found)


@pytest.mark.parametrize("source", ["from .mel import LogMel", "from ..model.mel import LogMel", "import torch"])
def test_what_is_allowed_passes(source: str) -> None:
    assert breaches(Path("model/x.py"), source) == []


def test_presets_are_asked_for_by_name() -> None:
    assert breaches(Path("training/recipes/x.py"), "from ..presets import preset") == []
    assert breaches(Path("training/presets/tiny.py"), "from . import nano") == []


def python(*arguments: str, cwd: Path = ROOT.parent) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, timeout=120, cwd=cwd, check=False
    )


@pytest.mark.parametrize(
    "arguments",
    [("-c", "import duologue"), ("-m", "duologue", "--help"), ("-m", "duologue", "train", "--help")],
    ids=["import", "help", "train-help"],
)
def test_the_light_ways_in(arguments: tuple[str, ...]) -> None:
    """Neither importing the package nor asking for help waits for torch."""
    run = python("-X", "importtime", *arguments)
    assert run.returncode == 0, run.stderr[-2000:]
    loaded = {line.rpartition("|")[2].strip() for line in run.stderr.splitlines() if line.startswith("import time:")}
    assert "duologue" in loaded
    assert not loaded & {"torch", "transformers", "fastapi", "numpy", "soundfile"}
    assert min(_processor_seconds(arguments) for _ in range(3)) < 1.0


def _processor_seconds(arguments: tuple[str, ...]) -> float:
    """How long a process computes; on an idle machine, how long it takes."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    python(*arguments)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def test_training_needs_no_audio_libraries() -> None:
    """Model, store, trainer and the data they read import on a machine without sound files or synthesisers."""
    modules = [
        ".".join(("duologue", *path.with_suffix("").parts)).removesuffix(".__init__")
        for path in FILES
        if path.parts[0] in ("model", "checkpoints", "training")
    ]
    modules += [f"duologue.data_prep.{name}" for name in ("datasets.shards", "nano.dialogues")]
    run = python(
        "-c",
        "import importlib, sys\n"
        f"sys.modules.update(dict.fromkeys({NOT_ON_A_TRAINING_MACHINE!r}))\n"  # None: importing it is an ImportError
        f"for module in {modules!r}: importlib.import_module(module)\n",
    )
    assert run.returncode == 0, run.stderr[-2000:]


@pytest.mark.parametrize("module", [*MAY_IMPORT, "inference.session"])
def test_a_bare_import_fails(module: str) -> None:
    """From the repository root, Python finds the folders; imported so, they would be second copies of every class."""
    run = python("-c", f"import {module}", cwd=ROOT)
    folder = module.partition(".")[0]
    assert run.returncode == 1
    assert run.stderr.splitlines()[-1].startswith(f"ImportError: import duologue.{folder}, not {folder}: ")


def test_lazy_names() -> None:
    import duologue

    assert duologue.DuologueError.__module__ == "duologue.model.errors"
    assert set(duologue.__all__) <= set(dir(duologue))
    with pytest.raises(AttributeError, match="nonsense"):
        duologue.nonsense  # noqa: B018
