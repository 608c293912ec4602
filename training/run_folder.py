"""What a training run leaves in its folder: checkpoints, weights, figures; each file whole or not there.

``state-00000400.pt`` holds all that resuming needs, ``model.safetensors`` the parts that the stage makes, named as in
SpeechLM, ``best.safetensors`` the same at the best figure so far, ``figures.jsonl`` what was measured at each save.
"""

from __future__ import annotations

import contextlib
import json
import math
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..checkpoints.files import appearing, write_atomically, write_text
from ..model.errors import DuologueError

WEIGHTS = "model.safetensors"
BEST = "best.safetensors"
FIGURES = "figures.jsonl"
STATE = re.compile(r"state-(\d{8})\.pt")


def save_parts(parts: dict[str, nn.Module], path: Path) -> None:
    """Write modules to a safetensors file, their names as prefixes."""
    from safetensors.torch import save

    tensors = {
        f"{name}.{key}": value.detach().cpu().contiguous().clone()
        for name, module in parts.items()
        for key, value in module.state_dict().items()
    }
    write_atomically(path, save(tensors))


def load_parts(modules: dict[str, nn.Module], start: tuple[str, ...]) -> None:
    """Load "PREFIX=FOLDER" entries, strictly: the tensors below PREFIX of that folder's model.safetensors.

    FOLDER is a run or a checkpoint (whose tied weights stand there once), or a safetensors file; or the mean of the
    weights of several: "A+B", or "0.3*A+0.7*B". Runs that began alike and were taught apart for a while err less
    together (model soups, Wortsman et al., arXiv 2203.05482, section 2).

    Raises:
        DuologueError: no such file, a prefix that the stage does not have, tensors that do not fit, shares of a mean
            that are not given for each or do not make one.
    """
    for entry in start:
        prefix, _, source = entry.partition("=")
        files = [(share, _weights_in(folder, entry)) for share, folder in shares_of(source)]
        if prefix not in modules:
            raise DuologueError(f"start {entry}: this stage has no part {prefix!r}; it has: {', '.join(modules)}")
        module = modules[prefix]
        try:
            module.load_state_dict(_mean([(share, _part_of(file, prefix, module)) for share, file in files]))
        except RuntimeError as error:
            raise DuologueError(f"start {entry}: tensors do not fit: {' '.join(str(error).split())}") from None


def shares_of(source: str) -> list[tuple[float, str]]:
    """What a mean is made of: "A+B" -> [(0.5, "A"), (0.5, "B")], "0.3*A+0.7*B", or one folder alone, whatever its name.

    Raises:
        DuologueError: some have a share and others not, or the shares do not make one.
    """
    if "+" not in source or Path(source).exists():
        return [(1.0, source)]
    pieces = [piece.rpartition("*") for piece in source.split("+")]
    try:
        shares = [float(share) if star else 1 / len(pieces) for share, star, _ in pieces]
    except ValueError:
        shares = []
    if len({star for _, star, _ in pieces}) > 1 or not math.isclose(sum(shares), 1.0, abs_tol=1e-6):
        raise DuologueError(f"{source}: a mean is A+B, or 0.3*A+0.7*B with a share for each, which together make 1")
    return [(share, folder) for share, (*_, folder) in zip(shares, pieces, strict=True)]


def _weights_in(folder: str, entry: str) -> Path:
    path = Path(folder) if folder.endswith(".safetensors") else Path(folder) / WEIGHTS
    if not path.is_file():
        raise DuologueError(f"start {entry}: no file {path}; run the stage that makes it first")
    return path


def _part_of(file: Path, prefix: str, module: nn.Module) -> dict[str, Tensor]:
    from safetensors.torch import load_file

    below = {k[len(prefix) + 1 :]: v.float() for k, v in load_file(file).items() if k.startswith(prefix + ".")}
    for name, twin in _tied(module):
        if twin in below and name not in below:
            below[name] = below[twin]
    return below


def _mean(weights: list[tuple[float, dict[str, Tensor]]]) -> dict[str, Tensor]:
    """Raises RuntimeError, as load_state_dict does, unless all have the same names and shapes."""
    share, first = weights[0]
    total = {name: share * value for name, value in first.items()} if len(weights) > 1 else first
    for share, other in weights[1:]:
        if {name: value.shape for name, value in other.items()} != {name: value.shape for name, value in total.items()}:
            raise RuntimeError("a mean wants tensors of the same names and sizes in each")
        total = {name: value + share * other[name] for name, value in total.items()}
    return total


def _tied(module: nn.Module) -> Iterable[tuple[str, str]]:
    """Pairs of names in both orders whose parameter is one and the same."""
    names: dict[int, list[str]] = {}
    for name, parameter in module.named_parameters(remove_duplicate=False):
        names.setdefault(id(parameter), []).append(name)
    return [(a, b) for same in names.values() for a in same for b in same if a != b]


def newest_state(folder: Path) -> dict[str, Any] | None:
    """The newest checkpoint that can be read, or None; one that a crash cut short is passed over."""
    for path in sorted(folder.glob("state-*.pt"), reverse=True):
        with contextlib.suppress(Exception):
            return torch.load(path, weights_only=True, map_location="cpu")
    return None


def save_state(folder: Path, keep: int, state: dict[str, Any]) -> None:
    """Write ``state`` (its "step" names the file) and remove all but the newest ``keep``."""
    with appearing(folder / f"state-{state['step']:08d}.pt") as file:
        torch.save(state, file)
    whole = sorted(path for path in folder.iterdir() if STATE.fullmatch(path.name))
    for path in whole[:-keep]:
        path.unlink()


class Figures:
    """``figures.jsonl``: a row a save. Rows after the checkpoint that a run goes on from are taken back."""

    def __init__(self, folder: Path, first: int) -> None:
        self.path = folder / FIGURES
        self.rows: list[dict[str, Any]] = []
        if self.path.is_file():
            lines = self.path.read_text().splitlines(keepends=True)
            whole = [line for line in lines if line.endswith("\n")]
            self.rows = [row for row in map(json.loads, whole) if row["step"] <= first]
            self._write()

    def add(self, row: dict[str, Any]) -> None:
        self.rows.append(row)
        self._write()

    def is_best(self, best: str | None) -> bool:
        """Whether the last row's figure is the best so far; ``best`` is "min:NAME" or "max:NAME"."""
        if best is None or not self.rows:
            return False
        way, _, name = best.partition(":")
        values = [row[name] for row in self.rows if name in row]
        if name not in self.rows[-1]:
            raise DuologueError(f"best is {best!r}, but this run measures: {', '.join(self.rows[-1])}")
        return bool(values[-1] == (min if way == "min" else max)(values))

    def _write(self) -> None:
        text = "".join(json.dumps(row) + "\n" for row in self.rows)
        write_text(self.path, text)
