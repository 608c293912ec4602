"""Weights from disk into modules: built without storage, then given the file's tensors, all of them and no others.

Loading at scale: a module is made of shapes alone (:func:`without_storage`); each tensor then comes straight from the
memory-mapped file to the device and in the dtype that were asked for. On a CPU, a tensor that is already of that dtype
is never copied: its pages are read from the file when they are first used, and the kernel may drop them again. So the
peak of host memory is the model's size and little more.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from ..model.errors import DuologueError
from .source import one_line

DeviceMap = dict[str, str | int | torch.device]
M = TypeVar("M", bound=nn.Module)
REOPEN = 128 * 2**20  # bytes converted before the map of the file is renewed, which drops the pages that were read


# How torch's layers fill their weights.
_RANDOM = {Tensor.normal_, Tensor.uniform_, nn.init.normal_, nn.init.uniform_, nn.init.kaiming_uniform_}


class _EmptyOnMeta(TorchFunctionMode):
    """``torch.empty`` makes tensors without storage, which nothing fills; everything else is as ever."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if func is torch.empty:
            kwargs["device"] = "meta"
        if func in _RANDOM:
            tensor = args[0] if args else kwargs["tensor"]
            if tensor.is_meta:  # to fill it would do nothing, and import torch's compiler, which takes seconds
                return tensor
        return func(*args, **kwargs)


@contextmanager
def without_storage() -> Iterator[None]:
    """Modules made here have shapes in the place of weights, while tables (angles, filters) are computed as ever.

    It rests on torch's own layers allocating their weights with ``torch.empty`` and filling them afterwards. Small
    weights that are made otherwise (ones of a norm) are real, and replaced later like the rest. Only this thread is
    affected.
    """
    with torch.random.fork_rng(devices=[]), _EmptyOnMeta():
        yield


def named_tensors(module: nn.Module) -> dict[str, Tensor]:
    """The state dict with tied weights once, under the first of their names."""
    tensors: dict[str, Tensor] = {}
    seen: set[int] = set()
    for name, tensor in sorted(module.state_dict(keep_vars=True).items()):
        if id(tensor) not in seen:
            seen.add(id(tensor))
            tensors[name] = tensor
    return tensors


def check_tensors(wanted: Mapping[str, Tensor], found: Mapping[str, tuple[tuple[int, ...], str]], where: str) -> None:
    """The tensors that a module has and those that a file or a conversion has must be the same, name by name.

    Args:
        found: name -> shape and dtype, as safetensors or torch writes it.
        where: begins the message.
    Raises:
        DuologueError: the first that is missing, has no place, or is of another shape or kind, by name and shape.
    """
    missing = [name for name in wanted if name not in found]
    if missing:
        shape = tuple(wanted[missing[0]].shape)
        raise DuologueError(f"{where}: tensor {missing[0]!r} {shape} is missing{_more(missing)}")
    extra = sorted(name for name in found if name not in wanted)
    if extra:
        raise DuologueError(
            f"{where}: tensor {extra[0]!r} {found[extra[0]][0]} has no place in the model{_more(extra)}"
        )
    for name, tensor in wanted.items():
        shape, dtype = found[name]
        if shape != tuple(tensor.shape):
            raise DuologueError(f"{where}: tensor {name!r} has shape {shape}; the config says {tuple(tensor.shape)}")
        if (dtype.startswith(("F", "BF")) or "float" in dtype) != tensor.is_floating_point():
            raise DuologueError(f"{where}: tensor {name!r} is {dtype}; it must be {tensor.dtype}")


def _more(names: list[str]) -> str:
    return f" (and {len(names) - 1} more)" if len(names) > 1 else ""


def assign(module: nn.Module, tensors: Mapping[str, Tensor], where: str) -> None:
    """Give a module these very tensors, uncopied, all that it has and no others; ``where`` begins an error's message.

    Raises:
        DuologueError: see :func:`check_tensors`.
    """
    wanted = named_tensors(module)
    check_tensors(wanted, {name: (tuple(x.shape), str(x.dtype)) for name, x in tensors.items()}, where)
    parameters = {id(parameter) for parameter in module.parameters()}
    new: dict[int, Tensor] = {}
    for name, old in wanted.items():
        new[id(old)] = nn.Parameter(tensors[name], old.requires_grad) if id(old) in parameters else tensors[name]
    _put(module, new)


def fill(
    module: nn.Module,
    path: Path,
    *,
    prefix: str = "",
    elsewhere: Mapping[str, Path] | None = None,
    device: torch.device | str = "cpu",
    dtype: torch.dtype | None = None,
    device_map: DeviceMap | None = None,
) -> None:
    """Give a module the tensors of a safetensors file, all those below ``prefix`` and nothing else.

    Args:
        module: made by :func:`without_storage`, or with weights, which are replaced.
        elsewhere: parts of the module by name -> the file that has all their tensors, and no others; they are not in
            ``path``. ``prefix`` must be empty then.
        device, dtype: where parameters go and as what; ``None``: as they are in the file. Buffers keep the module's
            own dtype, for rounding a table shows.
        device_map: parts of the module by name -> device, for several of them; the longest name that fits counts, and
            ``device`` where none does.
    Raises:
        DuologueError: the file cannot be read, a tensor is missing, extra, misshapen or of another kind, or the
            device map names no part.
    """
    parts = dict(module.named_modules())
    if unknown := [name for name in device_map or () if name not in parts]:
        raise DuologueError(f"device_map names {unknown[0]!r}, which is no part of the model")
    wanted = named_tensors(module)
    files = {path: [name for name in wanted if not _within(name, elsewhere or ())]}
    files |= {file: [name for name in wanted if _within(name, (part,))] for part, file in (elsewhere or {}).items()}
    for file, names in files.items():
        check_tensors({name: wanted[name] for name in names}, _shapes(file, prefix), str(file))
    parameters = {id(parameter) for parameter in module.parameters()}
    new: dict[int, Tensor] = {}

    def convert(name: str, tensor: Tensor) -> bool:
        """Whether that took a copy."""
        old = wanted[name]
        trained = id(old) in parameters
        kind = old.dtype if not trained else tensor.dtype if dtype is None else dtype
        value = tensor.to(device=_place(name, device_map, device), dtype=kind)
        new[id(old)] = nn.Parameter(value, old.requires_grad) if trained else value
        return value is not tensor

    for file, names in files.items():
        _read(file, prefix, names, convert)
    _put(module, new)
    for name, buffer in list(module.named_buffers()):
        if buffer.is_meta:
            raise DuologueError(f"{type(module).__name__} has a table without numbers, {name!r}")
        stem, _, leaf = name.rpartition(".")
        module.get_submodule(stem)._buffers[leaf] = buffer.to(_place(name, device_map, device))


def _shapes(path: Path, prefix: str) -> dict[str, tuple[tuple[int, ...], str]]:
    """Name, shape and dtype of a file's tensors below a prefix."""
    if not path.is_file():
        raise DuologueError(f"{path.parent} has no {path.name}")
    try:
        with safe_open(path, "pt") as file:
            names = [name for name in file.keys() if name.startswith(prefix)]  # noqa: SIM118 (no dictionary)
            pieces = {name[len(prefix) :]: file.get_slice(name) for name in names}
            return {name: (tuple(piece.get_shape()), piece.get_dtype()) for name, piece in pieces.items()}
    except (SafetensorError, OSError) as error:
        raise DuologueError(f"{path} cannot be read: {one_line(error)}") from None


def _read(path: Path, prefix: str, names: list[str], use: Callable[[str, Tensor], bool]) -> None:
    """Hand over the tensors one by one; ``use`` says whether it made a copy.

    The file is mapped anew after so many bytes copied: unmapping is what lets go of pages that were only read.
    """
    at = 0
    while at < len(names):
        with safe_open(path, "pt") as file:
            copied = 0
            while at < len(names) and copied < REOPEN:
                tensor = file.get_tensor(prefix + names[at])
                if use(names[at], tensor):
                    copied += tensor.numel() * tensor.element_size()
                at += 1
            del tensor


def _place(name: str, device_map: DeviceMap | None, device: torch.device | str) -> Any:
    fits = _within(name, device_map or ())
    return device_map[max(fits, key=len)] if device_map and fits else device


def _within(name: str, parts: Iterable[str]) -> list[str]:
    """The parts that a tensor belongs to."""
    return [part for part in parts if part == "" or name == part or name.startswith(part + ".")]


def _put(module: nn.Module, new: dict[int, Tensor]) -> None:
    """Replace tensors by identity, so that tied weights stay tied."""
    for part in module.modules():
        for own in (part._parameters, part._buffers):
            for name, tensor in own.items():
                if tensor is not None and id(tensor) in new:
                    own[name] = new[id(tensor)]  # type: ignore[assignment]


def made(build: Callable[[], M]) -> M:
    """A module without storage, in evaluation mode."""
    with without_storage():
        return build().eval()


@contextmanager
def made_on(device: torch.device, dtype: torch.dtype) -> Iterator[None]:
    """Modules made here have random weights of that dtype on that device, never on the host first."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with device:
            yield
    finally:
        torch.set_default_dtype(before)


def to_int8(module: nn.Module) -> None:
    """Replace the weights of all linear layers below ``module`` by int8 with a scale for each row; they are multiplied
    in the layers' own dtype, whatever that is. An output layer that is tied to the embeddings stays as it is.

    Raises:
        DuologueError: torchao is not installed.
    """
    try:
        from torchao.quantization import Int8WeightOnlyConfig, quantize_
    except ModuleNotFoundError:
        raise DuologueError("int8 needs torchao: pip install 'duologue[int8]'") from None
    embeddings = {id(part.weight) for part in module.modules() if isinstance(part, nn.Embedding)}

    def wanted(part: nn.Module, name: str) -> bool:
        return isinstance(part, nn.Linear) and id(part.weight) not in embeddings

    quantize_(module, Int8WeightOnlyConfig(), filter_fn=wanted)


def spread(model: nn.Module) -> None:
    """Let each part take its input to where its weights are, for a model whose parts lie on several devices.

    A part whose weights and tables are all on one device moves the tensors that it is called with there; one that spans
    several leaves that to the parts inside it. States move nowhere: keys and values are made where their layer is.
    """
    for name, part in model.named_modules():
        places = {tensor.device for tensor in (*part.parameters(), *part.buffers())}
        if name and len(places) == 1:
            part.register_forward_pre_hook(_bring_to(places.pop()), with_kwargs=True)


def _bring_to(device: torch.device) -> Callable[..., tuple[Any, Any]]:
    def bring(value: Any) -> Any:
        if isinstance(value, Tensor):
            return value.to(device)
        return tuple(map(bring, value)) if type(value) is tuple else value  # angles come as a pair

    def hook(part: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, Any]:
        return bring(args), {name: bring(value) for name, value in kwargs.items()}

    return hook
