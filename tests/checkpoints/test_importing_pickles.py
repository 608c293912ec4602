"""Pickles are read without running what is in them."""

from __future__ import annotations

import argparse
import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from duologue.checkpoints.importers.pickles import load_arrays, load_fairseq, load_tensors
from duologue.model.errors import DuologueError


class Harm:
    """What runs a command when it is unpickled by somebody who trusts it."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return os.system, (f"touch {self.mark}",)


@pytest.mark.parametrize(
    ("read", "form"),
    [(load_tensors, "zip"), (load_tensors, "legacy"), (load_fairseq, "zip"), (load_fairseq, "legacy"),
     (load_arrays, "pickle"), (load_arrays, "joblib"), (load_arrays, "object array")],
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


@pytest.mark.parametrize(("read", "form"), [(load_tensors, "zip"), (load_fairseq, "zip"), (load_arrays, "pickle")])
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
        load_fairseq(tmp_path / "bad")
    assert not (tmp_path / "mark").exists()


def test_objects_of_fairseq_keep_their_fields_and_do_nothing(tmp_path: Path) -> None:
    torch.save({"args": argparse.Namespace(arch="hubert", lr=[0.1])}, tmp_path / "good")
    args = load_fairseq(tmp_path / "good")["args"]
    assert (args.arch, args.lr) == ("hubert", [0.1])
    with pytest.raises(DuologueError, match=r"names argparse\.Namespace"):
        load_tensors(tmp_path / "good")
