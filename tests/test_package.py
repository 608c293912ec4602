"""The package list is written by hand, for the repository root is the package: the wheel must hold the whole tree."""

from __future__ import annotations

import ast
import configparser
import re
import shutil
import subprocess
import sys
import tomllib
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
BUNDLED = ("checkpoints/nano", "checkpoints/mini", "checkpoints/nano-codec", "checkpoints/nano-units")
FOLDERS = ("model", "checkpoints", "data_prep", "training", "inference", "demo")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    """The names in a wheel built from a copy of the tree, without any download."""
    copy, out = tmp_path_factory.mktemp("tree"), tmp_path_factory.mktemp("wheel")
    ignore = shutil.ignore_patterns("__pycache__", "*.pyc")
    for name in ("pyproject.toml", "README.md", "LICENSE", "py.typed", "__init__.py", "__main__.py"):
        shutil.copy(ROOT / name, copy / name)
    for name in FOLDERS:
        shutil.copytree(ROOT / name, copy / name, ignore=ignore)
    build = f"from setuptools.build_meta import build_wheel; print(build_wheel({str(out)!r}))"
    run = subprocess.run([sys.executable, "-c", build], cwd=copy, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr[-2000:]
    (path,) = out.glob("duologue-*.whl")
    with zipfile.ZipFile(path) as archive:
        return set(archive.namelist())


def test_every_module_is_in_the_wheel(wheel: set[str]) -> None:
    tree = {"duologue/__init__.py", "duologue/__main__.py"}
    for folder in FOLDERS:
        for path in (ROOT / folder).rglob("*.py"):
            tree.add(f"duologue/{path.relative_to(ROOT).as_posix()}")
            assert (path.parent / "__init__.py").is_file(), f"{path.parent} is no package"
    assert {name for name in wheel if name.endswith(".py")} == tree


def test_data_are_in_the_wheel(wheel: set[str]) -> None:
    """The bundled models, the page's assets and the mark of typed packages travel along; nothing else does."""
    data = {
        f"duologue/{path.relative_to(ROOT).as_posix()}"
        for folder in (*BUNDLED, "data_prep/nano/tables", "demo/assets")
        for path in (ROOT / folder).rglob("*")
        if path.is_file() and not path.name.startswith(".")
    }
    data |= {f"duologue/inference/evaluation/{name}" for name in ("judges/prompts.toml", "report/report.css")}
    info = {name for name in wheel if ".dist-info/" in name}
    assert {name for name in wheel - info if not name.endswith(".py")} == data | {"duologue/py.typed"}


def test_licence_and_command(wheel: set[str]) -> None:
    assert any(name.endswith("licenses/LICENSE") for name in wheel)
    assert any(name.endswith("entry_points.txt") for name in wheel)


def test_the_link_to_the_checkout_is_mended(tmp_path: Path) -> None:
    """`make` links the environment to the checkout, and mends that where the link is gone or the checkout was moved."""
    checkout = tmp_path / "first"
    checkout.mkdir()
    for name in ("Makefile", "pyproject.toml", "constraints.txt", "__init__.py"):
        shutil.copy(ROOT / name, checkout / name)
    venv.create(checkout / ".venv")

    def make() -> bool:
        """Whether it installed anything; pip is left out, but for the command's script."""
        pip = f"printf '#!%s' {checkout}/.venv/bin/python >.venv/bin/duologue; :"
        run = subprocess.run(
            ["make", f"PIP={pip}", ".venv/.ready-demo"], cwd=checkout, capture_output=True, text=True, check=True
        )
        return "Installing" in run.stdout

    def found() -> Path:
        command = [checkout / ".venv" / "bin" / "python", "-c", "import duologue; print(duologue.__file__)"]
        run = subprocess.run(command, cwd=tmp_path, env={}, capture_output=True, text=True, check=True)
        return Path(run.stdout.strip()).resolve()

    assert make() and found() == checkout / "__init__.py" and not make()
    (checkout / ".venv" / "checkout" / "duologue").unlink()
    assert make() and found() == checkout / "__init__.py"
    checkout = checkout.rename(tmp_path / "second")
    assert make() and found() == checkout / "__init__.py" and not make()


def imports(folder: Path) -> set[str]:
    """Top-level names of everything that the files of a folder import."""
    names: set[str] = set()
    for path in folder.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                names |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.level == 0:
                names.add((node.module or "").partition(".")[0])
    return names - set(sys.stdlib_module_names) - {"duologue"}


def test_pytest_and_pyright_find_helpers_in_the_same_folders() -> None:
    config = configparser.ConfigParser()
    config.read(ROOT / "tests" / "pytest.ini")
    (tests, _) = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["pyright"]["executionEnvironments"]
    assert tests["extraPaths"] == [f"tests/{folder}" for folder in config["pytest"]["pythonpath"].split()]


def test_every_library_is_declared_and_used() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]

    def named(requirements: list[str]) -> set[str]:
        found = {re.split(r"[^\w-]", requirement)[0] for requirement in requirements}
        modules = {"scikit-learn": "sklearn", "pyyaml": "yaml", "piper-tts": "piper"}
        return {modules.get(name, name).replace("-", "_") for name in found} - {"duologue"}

    extras = project["optional-dependencies"]
    core = named(project["dependencies"])
    ours = ("demo", "gradio", "train", "eval", "quality", "data", "voices", "serve", "terminal", "replicas", "int8",
            "whisper", "gguf", "webrtc", "grammar")
    optional = named([requirement for extra in ours for requirement in extras[extra]])
    used = set().union(*(imports(ROOT / folder) for folder in FOLDERS))
    assert used - core - optional == set(), "imported, but in no list of pyproject.toml"
    # accelerate imports the first; of the second only the weights are read; speechmos and webrtcvad import the next
    # three; fastapi reads forms with the next; a process of its own loads the last
    unseen = {"tensorboard", "silero_vad", "onnxruntime", "requests", "setuptools", "python_multipart"}
    unseen |= {"espeakng_loader"}
    assert core | optional == used | unseen, "in pyproject.toml, but not imported"
    own = {path.stem for path in (ROOT / "tests").rglob("*.py")}
    # clients are run by environments of their own (test_clients.py); gradio brings its client, faster-whisper the
    # library whose files it reads, aiortc its ICE; trl_numbers.py runs where there is trl
    brought = {"agents", "livekit", "pipecat", "gradio_client", "ctranslate2", "aioice", "trl", "datasets"}
    assert imports(ROOT / "tests") - own - core - optional - named(extras["test"]) == brought


def test_gpl_comes_only_where_it_is_asked_for() -> None:
    """espeak-ng's library is GPL-3.0: only the extras for more voices and for tests bring it."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    groups = {"core": project["dependencies"], **project["optional-dependencies"]}
    bring = {name for name, group in groups.items() if any(re.match("espeakng|kokoro|phonemizer", r) for r in group)}
    assert bring == {"voices", "test"}


def test_versions_are_pinned() -> None:
    """constraints.txt has a version for every library that the core and the extras name."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    pinned = {line.partition("==")[0].lower() for line in (ROOT / "constraints.txt").read_text().splitlines()}
    groups = [project["dependencies"], *project["optional-dependencies"].values()]
    wanted = {re.split(r"[^\w-]", requirement)[0] for group in groups for requirement in group} - {"duologue"}
    assert wanted - pinned == set()
