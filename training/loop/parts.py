"""Weights of parts between runs: what a stage hands on, and what the next one starts from."""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from ...checkpoints.base.cache import weights_of
from ...checkpoints.files import expanded, write_atomically
from ...checkpoints.source import BUNDLED, one_line, resolve
from ...model.errors import DuologueError


def save_parts(parts: dict[str, nn.Module], path: Path) -> None:
    """Write modules to a safetensors file, their names as prefixes."""
    tensors = {
        f"{name}.{key}": value.detach().cpu().contiguous().clone()
        for name, module in parts.items()
        for key, value in module.state_dict().items()
    }
    write_atomically(path, save(tensors))


def load_parts(modules: dict[str, nn.Module], start: Iterable[str]) -> None:
    """Load "PREFIX=FOLDER" entries, strictly: the tensors below PREFIX of that folder's model.safetensors.

    FOLDER is a run or a checkpoint (whose tied weights stand there once), the name of a bundled model, or a safetensors
    file; or the mean of the weights of several: "A+B", or "0.3*A+0.7*B". Runs that began alike and were taught apart
    for a while err less together (model soups, Wortsman et al., arXiv 2203.05482, section 2).

    Raises:
        DuologueError: no such file, a prefix that the stage does not have, tensors that do not fit, fractions of a mean
            that are not given for each or do not make one.
    """
    for entry in start:
        prefix, _, source = entry.partition("=")
        files = [(fraction, _weights_in(folder, entry)) for fraction, folder in weighted_runs(source)]
        if prefix not in modules:
            raise DuologueError(f"start {entry}: this stage has no part {prefix!r}; it has: {', '.join(modules)}")
        module = modules[prefix]
        try:
            module.load_state_dict(_mean([(fraction, _part_of(file, prefix, module)) for fraction, file in files]))
        except RuntimeError as error:
            raise DuologueError(f"start {entry}: tensors do not fit: {' '.join(str(error).split())}") from None


def weighted_runs(source: str) -> list[tuple[float, str]]:
    """What a mean is made of: "A+B" -> [(0.5, "A"), (0.5, "B")], "0.3*A+0.7*B", or one folder alone, whatever its name.

    Raises:
        DuologueError: some have a fraction and others not, or the fractions do not make one.
    """
    if "+" not in source or expanded(source).exists():
        return [(1.0, source)]
    pieces = [piece.rpartition("*") for piece in source.split("+")]
    try:
        fractions = [float(fraction) if star else 1 / len(pieces) for fraction, star, _ in pieces]
    except ValueError:
        fractions = []
    if len({star for _, star, _ in pieces}) > 1 or not math.isclose(sum(fractions), 1.0, abs_tol=1e-6):
        raise DuologueError(f"{source}: a mean is A+B, or 0.3*A+0.7*B with a fraction for each, which together make 1")
    return [(fraction, folder) for fraction, (*_, folder) in zip(fractions, pieces, strict=True)]


def _weights_in(folder: str, entry: str) -> Path:
    place = resolve(folder) if folder in BUNDLED else expanded(folder)
    path = place if folder.endswith(".safetensors") else weights_of(place, entry.partition("=")[0])
    if not path.is_file():
        raise DuologueError(f"start {entry}: no file {path}; run the stage that makes it first")
    return path


def _part_of(path: Path, prefix: str, module: nn.Module) -> dict[str, Tensor]:
    """The tensors below the prefix; those that the module ties are there under each of their names."""
    try:
        with safe_open(path, "pt") as file:
            names = [name for name in file.keys() if name.startswith(f"{prefix}.")]  # noqa: SIM118 (no dictionary)
            below = {name[len(prefix) + 1 :]: _as_float32(file.get_tensor(name)) for name in names}
    except (SafetensorError, OSError, ValueError) as error:
        raise DuologueError(f"{path} cannot be read: {one_line(error)}") from None
    own = module.state_dict(keep_vars=True)
    by_tensor = {id(own[name]): value for name, value in below.items() if name in own}
    return {name: by_tensor[id(tensor)] for name, tensor in own.items() if id(tensor) in by_tensor} | below


def _as_float32(tensor: Tensor) -> Tensor:
    """Weights in float32; whole numbers stay."""
    return tensor.float() if tensor.is_floating_point() else tensor


def _mean(weights: list[tuple[float, dict[str, Tensor]]]) -> dict[str, Tensor]:
    """Raises RuntimeError, as load_state_dict does, unless all have the same names and shapes."""
    (fraction, mean), *others = weights
    if others:
        mean = {name: fraction * value if value.is_floating_point() else value for name, value in mean.items()}
    for fraction, other in others:
        if {name: value.shape for name, value in other.items()} != {name: value.shape for name, value in mean.items()}:
            raise RuntimeError("a mean wants tensors of the same names and sizes in each")
        for name, value in mean.items():
            if value.is_floating_point():
                mean[name] = value + fraction * other[name]
            elif not value.equal(other[name]):
                raise RuntimeError(f"{name} is not the same in each, and whole numbers have no mean")
    return mean
