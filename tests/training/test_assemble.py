"""Parts from their runs become one checkpoint, and nothing less than all of them does."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from duologue.checkpoints import store
from duologue.model.errors import DuologueError
from duologue.model.speech_lm import SpeechLM
from duologue.training.assemble import PARTS, assemble
from duologue.training.recipes.nano import nano_config


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> tuple[SpeechLM, tuple[str, ...]]:
    """A random nano, and one run folder for each of its parts."""
    torch.manual_seed(1)
    model = SpeechLM(nano_config())
    folder = tmp_path_factory.mktemp("runs")
    for part in PARTS:
        (folder / part).mkdir()
        tensors = {f"{part}.{k}": v.clone() for k, v in model.get_submodule(part).state_dict().items()}
        save_file(tensors, folder / part / "model.safetensors")
    return model, tuple(f"{part}={folder / part}" for part in PARTS)


def test_the_checkpoint_is_the_parts_in_half_precision(runs, tmp_path: Path) -> None:
    model, sources = runs
    loaded = store.load(assemble(tmp_path / "nano", sources))
    assert loaded.model.config == model.config
    for name, tensor in model.state_dict().items():
        if torch.is_floating_point(tensor) and name in dict(model.named_parameters()):
            assert torch.equal(loaded.model.state_dict()[name], tensor.half().float()), name
    assert sum(path.stat().st_size for path in (tmp_path / "nano").iterdir()) < 24 * 2**20


def test_a_part_without_a_run_is_named(runs, tmp_path: Path) -> None:
    with pytest.raises(DuologueError, match="no run given for monitor"):
        assemble(tmp_path / "nano", runs[1][:-1])
    assert not (tmp_path / "nano").exists()
