"""The house stays tidy: no circles among files, no crowded folder, a purpose for each package, plain names."""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = ("model", "checkpoints", "data_prep", "training", "inference", "demo")
FILES = sorted(path.relative_to(ROOT) for folder in FOLDERS for path in (ROOT / folder).rglob("*.py"))
PACKAGES = sorted({path.parent.as_posix() for path in FILES})

MOST_FILES = 12
DISCOVERED = {  # a file more is a thing more
    "training/recipes", "data_prep/recipes", "data_prep/speech/engines", "checkpoints/importers",
    "inference/evaluation/suites", "inference/bench",
}  # fmt: skip

# Private words, for: audio encoder, speech decoder, worker, session slot, admission control, dynamic batching, one-shot
# request, augmentation, discriminator, fraction, turn state.
PRIVATE_WORDS = {
    "ear", "mouth", "lane", "seat", "door", "gathering", "asking", "disguise", "rival", "share", "verdict",
}  # fmt: skip


def test_no_folder_is_crowded() -> None:
    found = {}
    for package in set(PACKAGES) - DISCOVERED:
        files = [path for path in (ROOT / package).iterdir() if path.is_file() and path.name != "__init__.py"]
        if len(files) > MOST_FILES:
            found[package] = len(files)
    assert found == {}


@pytest.mark.parametrize("package", PACKAGES)
def test_a_package_says_what_belongs_there(package: str) -> None:
    assert ast.get_docstring(ast.parse((ROOT / package / "__init__.py").read_text(encoding="utf-8")))


def imported_at_once(tree: ast.AST) -> Iterator[ast.ImportFrom]:
    """Relative imports that run with the module: not those inside functions, nor those for a type checker alone."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.ImportFrom) and node.level:
            yield node
        elif isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        elif not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            yield from imported_at_once(node)


def test_no_circles() -> None:
    graph: dict[str, set[str]] = {}
    for path in FILES:
        here = path.with_suffix("").parts
        needs = graph.setdefault("/".join(here), set())
        for node in imported_at_once(ast.parse((ROOT / path).read_text(encoding="utf-8"))):
            base = here[: len(here) - node.level] + tuple((node.module or "").split(".") if node.module else ())
            for alias in node.names:
                inner = "/".join((*base, alias.name))
                target = inner if (ROOT / f"{inner}.py").is_file() else "/".join(base)
                needs.add(target if (ROOT / f"{target}.py").is_file() else f"{target}/__init__")
    TopologicalSorter(graph).prepare()  # raises CycleError, which names the files


def names(path: Path) -> Iterator[str]:
    with tokenize.open(ROOT / path) as file:
        yield from (token.string for token in tokenize.generate_tokens(io.StringIO(file.read()).readline)
                    if token.type == tokenize.NAME)  # fmt: skip
    yield path.stem


@pytest.mark.parametrize("path", FILES, ids=str)
def test_names_are_the_fields_own(path: Path) -> None:
    parts = {part.lower() for name in names(path) for part in re.findall(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])", name)}
    assert {word for word in PRIVATE_WORDS if {word, f"{word}s"} & parts} == set()


def test_no_two_test_files_have_the_same_name() -> None:
    """pytest would not collect both in one run."""
    found = [path.name for path in (ROOT / "tests").rglob("test_*.py")]
    assert {name for name in found if found.count(name) > 1} == set()
