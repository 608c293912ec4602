"""The bundled model whose encoder and language model are fetched: what is stored, and what it says without them."""

from __future__ import annotations

from collections import Counter

import pytest
from huggingface_hub import constants
from safetensors import safe_open

from duologue.checkpoints import store
from duologue.checkpoints.base import cache, sources
from duologue.checkpoints.base.declared import read_base
from duologue.checkpoints.source import WEIGHTS, WORDS, resolve
from duologue.inference.assistant.assistant import load
from duologue.model.errors import DuologueError

MIB = 2**20
MOST = {"adaptor": 8 * MIB, "unit_decoder": 7 * MIB, "vocoder": 3 * MIB, "monitor": 3 * MIB}


def test_what_is_trained_is_stored_and_small() -> None:
    folder, sizes = resolve("mini"), Counter[str]()
    with safe_open(folder / WEIGHTS, "pt") as file:
        for name in file.keys():  # noqa: SIM118 (no dictionary)
            tensor = file.get_tensor(name)
            sizes[name.partition(".")[0]] += tensor.numel() * tensor.element_size()
    assert {"adaptor", "unit_decoder", "vocoder"} <= sizes.keys() <= MOST.keys()
    assert not {part: size for part, size in sizes.items() if size > MOST[part]}
    assert (folder / WORDS).stat().st_size < 1.5 * MIB
    assert sum(path.stat().st_size for path in folder.iterdir() if path.name != WORDS) < 18 * MIB


def test_what_others_trained_is_named() -> None:
    base = read_base(resolve("mini"))
    assert {part: (each.licence, each.importer) for part, each in base.items()} == {
        "encoder": ("MIT", "faster-whisper"), "llm": ("Apache-2.0", "gguf")
    }  # fmt: skip
    config = store.read_model_config("mini")
    assert config.instructions and config.prompt is None and config.adaptor.out_dim == config.llm["hidden_size"]


def test_without_a_network_it_says_which_file_to_put_where(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (sources.FOLDERS, sources.ANY):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv(cache.CACHE, str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    with pytest.raises(DuologueError) as caught:
        load("mini")
    line = str(caught.value)
    assert "\n" not in line and sources.FOLDERS in line
    assert any(file.name in line for each in read_base(resolve("mini")).values() for file in each.files)
