"""Foreign pickles without their code: PyTorch checkpoints, fairseq's, and k-means kept by joblib or pickle.

A pickle is a program that may name any function and have it called. Here only names on a short list mean what they
say: those that rebuild tensors, arrays and plain containers. Objects that fairseq, omegaconf and scikit-learn keep
beside their numbers become :class:`Inert`, which holds their fields and does nothing; none of these packages is needed.
Any other name is refused.
"""

from __future__ import annotations

import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO, ClassVar

import numpy as np
import torch

from ...model.errors import DuologueError
from ..source import one_line

# What means what it says: tensors, arrays and plain containers. One list for all importers.
HARMLESS = {
    ("collections", "OrderedDict"), ("collections", "defaultdict"), ("builtins", "set"), ("builtins", "frozenset"),
    ("builtins", "dict"), ("builtins", "list"), ("builtins", "int"), ("builtins", "float"), ("builtins", "complex"),
    ("builtins", "bool"), ("builtins", "bytearray"), ("_codecs", "encode"), ("numpy", "ndarray"),
    *((f"numpy.{core}.multiarray", name) for core in ("core", "_core") for name in ("_reconstruct", "scalar")),
    *((f"numpy.{core}.numeric", "_frombuffer") for core in ("core", "_core")),
    ("torch._utils", "_rebuild_tensor"), ("torch._utils", "_rebuild_tensor_v2"), ("torch._utils", "_rebuild_parameter"),
    ("torch", "Size"), ("torch", "device"),
}  # fmt: skip
# Modules whose names stand for nothing but objects that keep fields; none of them is imported.
INERT = (
    "argparse.", "antlr4.", "dataclasses.", "datetime.", "enum.", "fairseq.", "hydra.", "lightning.",
    "lightning_fabric.", "numpy.random.", "omegaconf.", "pathlib.", "pytorch_lightning.", "sklearn.", "typing.",
)  # fmt: skip
INERT_NAMES = {("builtins", "str"), ("builtins", "bytes"), ("builtins", "tuple"), ("operator", "getitem")}  # Union[…]
_PYTHON_2 = {"long": "int", "unicode": "str"}


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
        module, name = "builtins", _PYTHON_2.get(name, name)
    if (module, name) == ("numpy", "dtype"):
        return _dtype
    if (module, name) in HARMLESS:
        return getattr(__import__(module.replace("numpy.core", "numpy._core"), fromlist=[name]), name)
    found = getattr(torch, name, None) if module == "torch" and name.isidentifier() else None
    if isinstance(found, torch.dtype) or (name.endswith("Storage") and isinstance(found, type)):
        return found
    if f"{module}.".startswith(INERT) or (module, name) in INERT_NAMES:
        return type(name, (Inert,), {})
    raise _Refused(f"{module}.{name}")


def _dtype(*how: Any) -> np.dtype[Any]:
    dtype = np.dtype(*how)
    if dtype.hasobject:
        raise _Refused("an array of Python objects")
    return dtype


class _Unpickler(pickle._Unpickler):
    """By the list. The one in Python: its memo is a dictionary, so that no opcode makes it as large as it likes."""

    dispatch: ClassVar[dict[int, Callable[[Any], None]]] = dict(pickle._Unpickler.dispatch)

    def find_class(self, module: str, name: str) -> Any:
        return _find(module, name)

    def load_build(self) -> None:
        """Fields for an object; never for a class or a function, which others use too."""
        made = self.stack[-2]  # type: ignore[attr-defined]
        if isinstance(made, type) or (callable(made) and not isinstance(made, Inert)):
            raise _Refused(f"fields of {getattr(made, '__name__', made)}")
        super().load_build()  # type: ignore[misc]

    dispatch[pickle.BUILD[0]] = load_build


class _Pickling:
    """What ``torch.load`` wants of a pickle module."""

    Unpickler = _Unpickler
    UnpicklingError = pickle.UnpicklingError

    @staticmethod
    def load(file: BinaryIO, **how: Any) -> Any:
        return _Unpickler(file, **how).load()


def load_tensors(path: Path) -> Any:
    """A PyTorch file, its tensors memory-mapped where its form allows it. Objects beside them are :class:`Inert`.

    Raises:
        DuologueError: no such file, not a PyTorch file, or one that names anything that is not known to be harmless.
    """
    try:
        with path.open("rb") as file:
            beginning = file.read(4)
        if beginning != _ZIP and beginning[:1] != pickle.PROTO:
            raise DuologueError(f"{path} is not a PyTorch checkpoint: it is neither a zip nor a pickle")
        if beginning == _ZIP and _is_program(path):
            raise _Refused("a TorchScript program")
        return torch.load(
            path, map_location="cpu", weights_only=False, pickle_module=_Pickling, mmap=beginning == _ZIP
        )  # fmt: skip
    except FileNotFoundError:
        raise DuologueError(f"there is no file {path}") from None
    except _Refused as error:
        raise _executes(path, error) from None
    except DuologueError:
        raise
    except Exception as error:  # damaged bytes make a pickle fail in any way
        raise DuologueError(f"{path} is not a PyTorch checkpoint: {one_line(error)}") from None


load_fairseq = load_tensors  # what fairseq keeps beside its tensors is on the same list

_ZIP = b"PK\x03\x04"  # the form that can be mapped, since PyTorch 1.6


def _is_program(path: Path) -> bool:
    """Whether torch.load would hand the file on to TorchScript, which runs what is in it."""
    with zipfile.ZipFile(path) as archive:
        return any(name.endswith("constants.pkl") for name in archive.namelist())


def _executes(path: Path, name: object) -> DuologueError:
    return DuologueError(
        f"{path} is refused: its pickle names {name}, and would run code of that name; only tensors, arrays and plain "
        "containers are read"
    )


class _ArrayUnpickler(_Unpickler):
    """Plain pickles, and joblib's: behind each of its array wrappers stands the array as raw bytes."""

    dispatch: ClassVar[dict[int, Callable[[Any], None]]] = dict(_Unpickler.dispatch)

    def __init__(self, file: BinaryIO) -> None:
        super().__init__(file)
        self.file = file

    def find_class(self, module: str, name: str) -> Any:
        if module == "joblib.numpy_pickle" and name == "NumpyArrayWrapper":
            return _JoblibArray
        return _find(module, name)

    def load_build(self) -> None:
        super().load_build()
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
