"""LoRA in stage speech_to_text: what learns, what is handed on, and that it resumes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from duologue.model.errors import DuologueError
from duologue.model.language_model.causal_lm import LLM
from duologue.training.loop.lora import add_lora, is_lora, merged
from duologue.training.loop.task import freeze
from duologue.training.loop.trainer import train
from duologue.training.presets.tiny import llm as tiny_llm
from duologue.training.recipes import speech_to_text

pytest.importorskip("peft", reason="LoRA's layers are peft's")


def some_llm() -> LLM:
    torch.manual_seed(0)
    llm = LLM(tiny_llm()).eval()
    add_lora(llm, 4)
    with torch.no_grad():
        for name, parameter in llm.named_parameters():
            if is_lora(name):
                parameter.normal_(std=0.1)
    return llm


def test_a_merged_model_is_a_plain_one_that_says_the_same() -> None:
    llm = some_llm()
    plain = merged(llm)
    torch.manual_seed(0)
    original = LLM(tiny_llm()).eval()
    assert plain.state_dict().keys() == original.state_dict().keys()
    embeds = torch.randn(2, 5, 64)
    with torch.no_grad():
        assert torch.allclose(plain(embeds).logits, llm(embeds).logits, atol=1e-5)
        assert not torch.allclose(plain(embeds).logits, original(embeds).logits, atol=1e-2)
    assert any(is_lora(name) for name, _ in llm.named_parameters()), "the model itself goes on learning"


def test_only_the_updates_learn(questions: Path, tmp_path: Path) -> None:
    """Adaptor and updates move, the LLM's own weights do not; the run hands on a plain LLM and resumes exactly."""
    recipe = replace(speech_to_text.recipe("tiny"), data=(str(questions),), out=str(tmp_path / "run"), lora=4, steps=6,
                     save_every=3, warmup=1, schedule="constant")  # fmt: skip
    task = recipe.build()
    before = {name: tensor.clone() for name, tensor in task.llm.state_dict().items()}
    train(recipe, task, progress=False)
    learnt = {name for name, parameter in task.named_parameters() if parameter.requires_grad}
    assert learnt and all(name.startswith("adaptor.") or is_lora(name) for name in learnt)
    for name, tensor in task.llm.state_dict().items():
        if not is_lora("." + name):
            assert torch.equal(tensor, before[name.replace(".base_layer", "")]), name
    stored = {n[4:]: t for n, t in load_file(tmp_path / "run" / "model.safetensors").items() if n.startswith("llm.")}
    assert stored.keys() == before.keys()
    assert any(not torch.equal(stored[name], before[name]) for name in before)
    cut = replace(recipe, out=str(tmp_path / "cut"))
    train(replace(cut, steps=3), cut.build(), progress=False)
    train(cut, cut.build(), progress=False)
    again = load_file(tmp_path / "cut" / "model.safetensors")
    assert all(torch.equal(tensor, again["llm." + name]) for name, tensor in stored.items())


def test_without_lora_all_of_it_learns(questions: Path) -> None:
    task = replace(speech_to_text.recipe("tiny"), data=(str(questions),)).build()
    task.adapt()
    assert {name.split(".")[0] for name, _ in freeze(task, ("adaptor", "llm"))} == {"adaptor", "llm"}


def test_a_negative_rank_is_refused() -> None:
    with pytest.raises(DuologueError, match="lora is -1; it must be 0"):
        add_lora(LLM(tiny_llm()), -1)
