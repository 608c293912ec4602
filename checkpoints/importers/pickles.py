"""Foreign pickles without their code: PyTorch checkpoints, fairseq's, and k-means kept by joblib or pickle.

A pickle is a program that may name any function and have it called. Here only names on a short list mean what they
say: those that rebuild tensors, arrays and plain containers. Objects that fairseq, omegaconf and scikit-learn keep
beside their numbers become :class:`Inert`, which holds their fields and does nothing. Any other name is refused.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO, ClassVar

import numpy as np
import torch

from ...model.errors import DuologueError
from ..source import one_line

HARMLESS = {
    ("collections", "OrderedDict"), ("collections", "defaultdict"), ("builtins", "set"), ("builtins", "frozenset"),
    ("builtins", "dict"), ("builtins", "list"), ("builtins", "int"), ("builtins", "float"), ("builtins", "str"),
    ("_codecs", "encode"), ("numpy", "ndarray"), ("numpy", "dtype"),
    *((f"numpy.{core}.multiarray", name) for core in ("core", "_core") for name in ("_reconstruct", "scalar")),
    *((f"numpy.{core}.numeric", "_frombuffer") for core in ("core", "_core")),
    ("torch._utils", "_rebuild_tensor"), ("torch._utils", "_rebuild_tensor_v2"), ("torch._utils", "_rebuild_parameter"),
    ("torch", "Size"), ("torch", "device"),
}  # fmt: skip
INERT = ("argparse.", "fairseq.", "omegaconf.", "sklearn.", "pathlib.")  # modules whose classes keep fields


class Inert:
    """An object of a class that is not loaded: its fields as attributes, or what it was made from as ``made_of``."""

    def __init__(self, *made_of: Any, **fields: Any) -> None:
        self.made_of = made_of
        self.__dict__.update(fields)

    def __hash__(self) -> int:
        return id(self)


class _Refused(Exception):
    pass


def _find(module: str, name: str) -> Any:
    """What a name in a pickle stands for.

    Raises:
        _Refused: it is not on the list.
    """
    if module == "__builtin__":  # Python 2 called it that
        module = "builtins"
    if (module, name) in HARMLESS:
        return getattr(__import__(module.replace("numpy.core", "numpy._core"), fromlist=[name]), name)
    if module == "torch" and (name.endswith("Storage") or isinstance(getattr(torch, name, None), torch.dtype)):
        return getattr(torch, name)
    if f"{module}.".startswith(INERT):
        return type(name, (Inert,), {})
    raise _Refused(f"{module}.{name}")


class _Unpickler(pickle.Unpickler):
    """For ``torch.load``, which adds how storages are found."""

    def find_class(self, module: str, name: str) -> Any:
        return _find(module, name)


class _Pickling:
    """What ``torch.load`` wants of a pickle module."""

    Unpickler = _Unpickler
    UnpicklingError = pickle.UnpicklingError

    @staticmethod
    def load(file: BinaryIO, **how: Any) -> Any:
        return _Unpickler(file, **how).load()


def load_tensors(path: Path) -> Any:
    """A PyTorch file of tensors and plain containers, its tensors memory-mapped where the file's form allows it.

    Raises:
        DuologueError: no such file, not a PyTorch file, or one that names anything else.
    """
    try:
        return torch.load(path, map_location="cpu", weights_only=True, mmap=_is_zip(path))
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError, ValueError, KeyError, AttributeError) as error:
        raise _refusal(path, error) from None


def load_fairseq(path: Path) -> Any:
    """A fairseq checkpoint; what it keeps of fairseq's and omegaconf's objects is :class:`Inert`.

    Raises:
        DuologueError: no such file, not a PyTorch file, or one that names anything that is not known to be harmless.
    """
    try:
        return torch.load(
            path, map_location="cpu", weights_only=False, pickle_module=_Pickling, mmap=_is_zip(path)
        )  # fmt: skip
    except _Refused as error:
        raise _executes(path, error) from None
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError, ValueError, TypeError, KeyError) as error:
        raise _refusal(path, error) from None


def _is_zip(path: Path) -> bool:
    """Whether the file is of the form that can be mapped (since PyTorch 1.6)."""
    with path.open("rb") as file:
        return file.read(4) == b"PK\x03\x04"


def _executes(path: Path, name: object) -> DuologueError:
    return DuologueError(
        f"{path} is refused: its pickle names {name}, and would run code of that name; only tensors, arrays and plain "
        "containers are read"
    )


def _refusal(path: Path, error: Exception) -> DuologueError:
    text = one_line(error)
    if isinstance(error, FileNotFoundError):
        return DuologueError(f"there is no file {path}")
    if path.is_file():
        with path.open("rb") as file:
            beginning = file.read(1)
        if beginning not in (b"P", b"\x80"):  # a zip, a pickle
            return DuologueError(f"{path} is not a PyTorch checkpoint: it is neither a zip nor a pickle")
    if "Unsupported global" in str(error) or "Unsupported operand" in str(error) or "GLOBAL" in str(error):
        named = str(error).partition("GLOBAL ")[2].split(" ")[0] or "something else than tensors"
        return _executes(path, named)
    return DuologueError(f"{path} is not a PyTorch checkpoint: {text}")


class _ArrayUnpickler(pickle._Unpickler):  # the one in Python, for joblib puts arrays between the pickle's own bytes
    """Plain pickles, and joblib's: behind each of its array wrappers stands the array as raw bytes."""

    dispatch: ClassVar[dict[int, Callable[[Any], None]]] = dict(pickle._Unpickler.dispatch)

    def __init__(self, file: BinaryIO) -> None:
        super().__init__(file)
        self.file = file

    def find_class(self, module: str, name: str) -> Any:
        if module == "joblib.numpy_pickle" and name == "NumpyArrayWrapper":
            return _JoblibArray
        return _find(module, name)

    def load_build(self) -> None:
        super().load_build()  # type: ignore[misc]
        if isinstance(self.stack[-1], _JoblibArray):  # type: ignore[attr-defined]
            self.stack[-1] = self.stack[-1].read(self.file)  # type: ignore[attr-defined]

    dispatch[pickle.BUILD[0]] = load_build


class _JoblibArray:
    """joblib's description of an array whose bytes follow."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    order: str
    numpy_array_alignment_bytes: int | None = None  # absent before joblib 1.2

    def read(self, file: BinaryIO) -> np.ndarray:
        if self.dtype.hasobject:
            raise _Refused("an array of Python objects")
        if self.numpy_array_alignment_bytes is not None:
            file.read(file.read(1)[0])
        size = int(np.prod(self.shape)) * self.dtype.itemsize
        flat = np.frombuffer(file.read(size), self.dtype)
        return flat.reshape(self.shape, order="F" if self.order == "F" else "C")


def load_arrays(path: Path) -> Any:
    """A pickle or an uncompressed joblib file of arrays in plain containers or scikit-learn's objects.

    Raises:
        DuologueError: no such file, not a pickle, or one that names anything that is not known to be harmless.
    """
    try:
        with path.open("rb") as file:
            return _ArrayUnpickler(file).load()
    except FileNotFoundError:
        raise DuologueError(f"there is no file {path}") from None
    except _Refused as error:
        raise _executes(path, error) from None
    except Exception as error:  # damaged bytes make a pickle fail in any way
        raise DuologueError(f"{path} is not an uncompressed joblib file or pickle: {one_line(error)}") from None
