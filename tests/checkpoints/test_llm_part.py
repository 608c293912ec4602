"""A language model is read from wherever one is: an imported part, a run that trained it, a whole model."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from any_model import tiny_llm
from safetensors.torch import load_file, save_file

from duologue.checkpoints.parts import load_llm
from duologue.checkpoints.source import BUNDLED, WEIGHTS
from duologue.checkpoints.store import load
from duologue.model.errors import DuologueError

NANO = Path(__file__).resolve().parents[2] / "checkpoints" / "nano" / WEIGHTS


def test_a_part_and_a_run_that_went_on_from_it(tmp_path: Path) -> None:
    part = Path(tiny_llm(tmp_path))
    llm, tokenizer = load_llm(part, dtype=torch.bfloat16)
    assert next(llm.parameters()).dtype is torch.bfloat16 and not llm.training
    run = tmp_path / "run"
    run.mkdir()
    sizes = json.loads((part / "config.json").read_text())["config"]
    learnt = {name: tensor + 1 for name, tensor in load_file(part / WEIGHTS).items()}
    save_file(learnt | {"adaptor.x": torch.ones(1)}, run / WEIGHTS)
    (run / "recipe.json").write_text(json.dumps({"llm": sizes, "tokenizer": str(part)}))
    went_on, same = load_llm(run)
    assert same.get_vocab() == tokenizer.get_vocab()
    ids = torch.tensor([[1, 2]])
    assert torch.allclose(went_on.embed(ids), load_llm(part)[0].embed(ids) + 1)
    (run / "recipe.json").write_text(json.dumps({"llm": sizes, "questions": "nano"}))
    with pytest.raises(DuologueError, match="is a run in a question set's words: give one that was made with llm="):
        load_llm(run)


@pytest.mark.skipif(not NANO.is_file(), reason="the bundled model is not in this copy")
def test_a_model() -> None:
    assert "nano" in BUNDLED
    llm, tokenizer = load_llm("nano")
    whole = load("nano")
    ids = torch.tensor([[1, 2]])
    assert torch.equal(llm.embed(ids), whole.model.llm.embed(ids)) and len(tokenizer) == len(whole.tokenizer)


def test_there_is_none(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(DuologueError, match="is not that of an imported llm"):
        load_llm(tmp_path)
    with pytest.raises(DuologueError, match="unknown model"):
        load_llm(tmp_path / "nowhere")
