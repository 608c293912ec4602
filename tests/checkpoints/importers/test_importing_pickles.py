"""Pickles are read without running what is in them."""

from __future__ import annotations

import argparse
import os
import pickle
import struct
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from duologue.checkpoints.importers.pickles import Inert, load_arrays, load_tensors
from duologue.model.errors import DuologueError


class Harm:
    """What runs a command when it is unpickled by somebody who trusts it."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return os.system, (f"touch {self.mark}",)


@pytest.mark.parametrize(
    ("read", "form"),
    [(load_tensors, "zip"), (load_tensors, "legacy"), (load_arrays, "pickle"), (load_arrays, "joblib"),
     (load_arrays, "object array")],
)  # fmt: skip
def test_a_pickle_that_would_run_code_is_refused(tmp_path: Path, read: Any, form: str) -> None:
    import joblib

    harm = {"model": Harm(tmp_path / "mark")}
    path = tmp_path / "bad"
    if form in ("zip", "legacy"):
        torch.save(harm, path, _use_new_zipfile_serialization=form == "zip")
    elif form == "pickle":
        path.write_bytes(pickle.dumps(harm))
    else:
        joblib.dump(harm if form == "joblib" else np.array([harm], dtype=object), path)
    with pytest.raises(DuologueError) as caught:
        read(path)
    assert not (tmp_path / "mark").exists()
    assert "\n" not in str(caught.value) and str(path) in str(caught.value)


@pytest.mark.parametrize(("read", "form"), [(load_tensors, "zip"), (load_arrays, "pickle")])
def test_the_refusal_says_what_would_have_run(tmp_path: Path, read: Any, form: str) -> None:
    harm = {"model": Harm(tmp_path / "mark")}
    torch.save(harm, tmp_path / "bad") if form == "zip" else (tmp_path / "bad").write_bytes(pickle.dumps(harm))
    with pytest.raises(DuologueError, match=r"bad is refused: its pickle names posix\.system, and would run code"):
        read(tmp_path / "bad")


def test_a_name_that_loads_a_pickle_inside_is_refused(tmp_path: Path) -> None:
    class Inner:
        def __reduce__(self) -> Any:
            return torch.storage._load_from_bytes, (pickle.dumps(Harm(tmp_path / "mark")),)

    torch.save({"model": Inner()}, tmp_path / "bad")
    with pytest.raises(DuologueError, match=r"names torch\.storage\._load_from_bytes"):
        load_tensors(tmp_path / "bad")
    assert not (tmp_path / "mark").exists()


def test_objects_of_fairseq_keep_their_fields_and_do_nothing(tmp_path: Path) -> None:
    torch.save({"args": argparse.Namespace(arch="hubert", lr=[0.1])}, tmp_path / "good")
    args = load_tensors(tmp_path / "good")["args"]
    assert (args.arch, args.lr) == ("hubert", [0.1])


def name(module: str, attribute: str) -> bytes:
    return f"c{module}\n{attribute}\n".encode()


def text(value: str) -> bytes:
    return b"X" + struct.pack("<I", len(value)) + value.encode()


def fields(**values: bytes) -> bytes:
    return b"}(" + b"".join(text(key) + value for key, value in values.items()) + b"u"


NONE, TRUE = b"N", b"\x88"
# A node of omegaconf as fairseq's checkpoints have it: its class is made without a call, its fields are put in.
METADATA = name("omegaconf.base", "Metadata") + b")\x81" + fields(
    ref_type=name("typing", "Any"), object_type=name("__builtin__", "dict"), optional=TRUE, key=NONE,
    kind=name("operator", "getitem") + name("typing", "Union") + name("__builtin__", "long") + b"\x86R",
) + b"b"  # fmt: skip
NODE = name("omegaconf.nodes", "AnyNode") + b")\x81" + fields(_metadata=METADATA, _val=text("hubert")) + b"b"
CONFIG = name("omegaconf.dictconfig", "DictConfig") + b")\x81" + fields(
    _metadata=METADATA, _parent=NONE, _content=fields(name=NODE)
) + b"b"  # fmt: skip
BESIDE = {
    "omegaconf": CONFIG,
    "path": name("pathlib", "PosixPath") + text("/") + text("data") + b"\x86R",
    "enum": name("omegaconf._utils", "ValueKind") + b"K\x01\x85R",
    "user's enum": name("fairseq.dataclass.constants", "PRINT_BATCHES") + text("no") + b"\x85R",
    "random state": name("numpy.random._pickle", "__randomstate_ctor") + text("MT19937") + b"\x85R}b",
    "date": name("datetime", "datetime") + text("x") + b"\x85R",
    "estimator": name("sklearn.cluster._kmeans", "MiniBatchKMeans") + b")\x81" + fields(n_iter_=b"K\x07") + b"b",
}  # fmt: skip


@pytest.mark.parametrize("what", BESIDE)
@pytest.mark.parametrize("read", [load_tensors, load_arrays])
def test_objects_beside_the_numbers_are_read_by_one_list(tmp_path: Path, read: Any, what: str) -> None:
    """Whatever package they are of, and whether or not it is installed: nothing is imported."""
    import sys

    before = set(sys.modules)
    found = read(written(tmp_path / "good", read, b"\x80\x02" + fields(cfg=BESIDE[what], step=b"K\x05") + b"."))
    assert isinstance(found["cfg"], Inert) and found["step"] == 5
    assert not {"omegaconf", "fairseq"} & (set(sys.modules) - before)
    if what == "omegaconf":
        assert vars(found["cfg"])["_content"]["name"]._val == "hubert"


def written(path: Path, read: Any, pickled: bytes) -> Path:
    """A pickle as the reader takes it: by itself, or in PyTorch's zip."""
    if read is load_arrays:
        path.write_bytes(pickled)
        return path
    torch.save({}, path)
    with zipfile.ZipFile(path) as archive:
        rest = {each: archive.read(each) for each in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for each, data in rest.items():
            archive.writestr(each, pickled if each.endswith("data.pkl") else data)
    return path


def call(module: str, attribute: str, *arguments: bytes) -> bytes:
    return name(module, attribute) + b"(" + b"".join(arguments) + b"tR"


HARM = {
    "system": call("os", "system", text("touch MARK")),
    "posix": call("posix", "system", text("touch MARK")),
    "eval": call("builtins", "eval", text("open('MARK', 'w')")),
    "python 2": call("__builtin__", "eval", text("open('MARK', 'w')")),
    "getattr": call("builtins", "getattr", name("pathlib", "Path"), text("write_text")),
    "dotted": b"\x8c\x05torch\x8c\x0fserialization.os\x93" + b"(" + text("x") + b"tR",
    "partial": call("functools", "partial", name("os", "system"), text("touch MARK")),
    "attrgetter": call("operator", "attrgetter", text("system")),
    "methodcaller": call("operator", "methodcaller", text("system")),
    "copyreg": call("copyreg", "_reconstructor", name("builtins", "object"), name("builtins", "object"), NONE),
    "copy_reg": call("copy_reg", "__newobj__", name("subprocess", "Popen")),
    "storage": call("torch.storage", "_load_from_bytes", b"C\x01x"),
    "hub": call("torch.hub", "load", text("x")),
    "torch.load": call("torch", "load", text("x")),
    "import": call("importlib", "import_module", text("os")),
    "type": call("builtins", "type", text("x"), b")", b"}"),
    "object array": call("numpy", "dtype", text("O8"), b"\x89", TRUE),
    "fields of a class": name("torch", "FloatStorage") + b"N" + fields(dtype=NONE) + b"\x86b",
    "fields of a function": name("torch._utils", "_rebuild_tensor_v2") + fields(__wrapped__=NONE) + b"b",
    "nested persistent id": text("storage") + b"Q" + b"Q",
    "instance": b"(" + text("touch MARK") + b"ios\nsystem\n",
    "object": b"(" + name("os", "system") + text("touch MARK") + b"o",
    "extension": b"\x82\x01",
    "long bytes": b"\x8e" + struct.pack("<Q", 2**62),
    "long text": b"\x8d" + struct.pack("<Q", 2**62),
    "long bytearray": b"\x96" + struct.pack("<Q", 2**62),
    "long number": b"\x8b" + struct.pack("<i", 2**31 - 1),
    "long frame": b"\x95" + struct.pack("<Q", 2**62),
    "negative": b"\x8b" + struct.pack("<i", -1),
    "empty stack": b"b",
    "a bomb of text": call("builtins", "str", b"]") + name("os", "getcwd") + b")R",
    "huge array": call("numpy", "ndarray", b"\x8a\x08" + struct.pack("<q", 2**60)),
}  # fmt: skip


@pytest.mark.parametrize("what", HARM)
@pytest.mark.parametrize("read", [load_tensors, load_arrays])
def test_harm_is_refused_in_one_line(tmp_path: Path, read: Any, what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = written(tmp_path / "bad", read, b"\x80\x02" + HARM[what] + b".")
    with pytest.raises(DuologueError) as caught:
        read(path)
    assert "\n" not in str(caught.value) and str(path) in str(caught.value) and len(str(caught.value)) < 500
    assert not (tmp_path / "MARK").exists()
    assert torch.FloatStorage.dtype is torch.float32


@pytest.mark.parametrize("read", [load_tensors, load_arrays])
def test_a_large_place_in_the_memo_takes_no_memory(tmp_path: Path, read: Any) -> None:
    pickled = b"\x80\x02K\x05r" + struct.pack("<I", 2**32 - 1) + b"."
    assert read(written(tmp_path / "odd", read, pickled)) == 5


def test_a_program_is_not_run(tmp_path: Path) -> None:
    torch.jit.save(torch.jit.script(torch.nn.Linear(1, 1)), tmp_path / "program.pt")
    with pytest.raises(DuologueError, match=r"a TorchScript program"):
        load_tensors(tmp_path / "program.pt")
