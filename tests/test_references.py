"""What a docstring refers to is there: each :func:, :class:, :mod: … is resolved by reading files, importing none."""

from __future__ import annotations

import ast
import builtins
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = ("model", "checkpoints", "data_prep", "training", "inference", "demo")
FILES = sorted(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py"))
ROLE = re.compile(r":(mod|class|func|meth|data|attr):`~?([^`]+)`")
Names = tuple[str, ...]  # a module below the package


@cache
def tree_of(module: Names) -> ast.Module | None:
    """A module's syntax, or None where there is no such module."""
    base = ROOT.joinpath(*module)
    file = base / "__init__.py" if base.is_dir() else base.with_suffix(".py")
    return ast.parse(file.read_text(encoding="utf-8")) if file.is_file() else None


def names_in(body: list[ast.stmt]) -> dict[str, ast.stmt]:
    """The names that a module or a class binds, by the statement that binds each."""
    found: dict[str, ast.stmt] = {}
    for node in body:
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            found[node.name] = node
        elif isinstance(node, (ast.Import, ast.ImportFrom)):
            found |= {alias.asname or alias.name.split(".")[0]: node for alias in node.names}
        elif isinstance(node, (ast.Assign, ast.AnnAssign)):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            found |= {n.id: node for target in targets for n in ast.walk(target) if isinstance(n, ast.Name)}
        elif isinstance(node, (ast.If, ast.Try)):
            found |= names_in([*node.body, *node.orelse])
    return found


def absolute(dotted: str, package: Names) -> Names:
    """A path as ``from … import`` reads it: each further dot is one package up."""
    name = dotted.lstrip(".")
    up = len(dotted) - len(name)
    parts = tuple(name.split(".")) if name else ()
    return (*package[: len(package) - up + 1], *parts) if up else parts[1:]


def find(module: Names, chain: Names) -> bool:
    """Whether a module has the name ``chain``, each part within the one before: its own, imported or a submodule."""
    tree = tree_of(module)
    if tree is None or not chain:
        return tree is not None
    node = names_in(tree.body).get(chain[0])
    if node is None:
        return find((*module, chain[0]), chain[1:])
    if isinstance(node, ast.ImportFrom) and len(chain) > 1:
        return follow(module, node, chain)
    return len(chain) == 1 or (isinstance(node, ast.ClassDef) and has_member(module, node, chain[1]))


def follow(module: Names, node: ast.ImportFrom, chain: Names) -> bool:
    original = next(alias.name for alias in node.names if (alias.asname or alias.name) == chain[0])
    source = "." * node.level + (node.module or "")
    return not node.level or find(absolute(source, package_of(module)), (original, *chain[1:]))


def has_member(module: Names, node: ast.ClassDef, name: str) -> bool:
    """Whether a class has a member, its own or of a base within the package."""
    bases = [tuple(ast.unparse(base).split("[")[0].split(".")) for base in node.bases]
    return name in names_in(node.body) or any(find(module, (*base, name)) for base in bases)


def package_of(module: Names) -> Names:
    return module if ROOT.joinpath(*module).is_dir() else module[:-1]


def docstrings(node: ast.AST, classes: tuple[ast.ClassDef, ...] = ()) -> Iterator[tuple[str, tuple[ast.ClassDef, ...]]]:
    """Every docstring with the classes around it."""
    if isinstance(node, ast.ClassDef):
        classes = (*classes, node)
    if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
        yield ast.get_docstring(node) or "", classes
    for child in ast.iter_child_nodes(node):
        yield from docstrings(child, classes)


def resolves(role: str, target: str, module: Names, classes: tuple[ast.ClassDef, ...]) -> bool:
    if target.startswith((".", "duologue.")):
        path = absolute(target, package_of(module))
        return tree_of(path) is not None if role == "mod" else find((), path)
    chain = tuple(target.split("."))
    known = hasattr(builtins, target) or any(len(chain) == 1 and has_member(module, c, target) for c in classes)
    tree = tree_of(module)
    return known or (tree is not None and chain[0] in names_in(tree.body) and find(module, chain))


def test_references_resolve() -> None:
    dead, count = [], 0
    for file in FILES:
        path = file.relative_to(ROOT).with_suffix("").parts
        module = path[:-1] if path[-1] == "__init__" else path
        for text, classes in docstrings(ast.parse(file.read_text(encoding="utf-8"))):
            for role, target in ROLE.findall(text):
                count += 1
                if not resolves(role, target, module, classes):
                    dead.append(f"{file.relative_to(ROOT)}: :{role}:`{target}`")
    assert count > 50
    assert not dead, "\n".join(dead)


def test_a_dead_reference_is_found() -> None:
    module, tree = ("inference", "session", "session"), tree_of(("inference", "session", "session"))
    assert tree is not None
    session = tuple(node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == "Session")
    for role, target in (("meth", "save"), ("class", "DuplexPolicy"), ("meth", "Session.tick"), ("mod", ".policy")):
        assert resolves(role, target, module, session), target
    for role, target in (
        ("meth", "gone"), ("class", "Gone"), ("meth", "Session.gone"), ("mod", ".gone"), ("class", "..policy.Action"),
        ("func", "duologue.checkpoints.store.gone"),
    ):  # fmt: skip
        assert not resolves(role, target, module, session), target
