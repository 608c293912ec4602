"""precision=auto and dtype=auto: bfloat16 where the machine multiplies in it, float32 elsewhere."""

from __future__ import annotations

import pytest
import torch
from accelerate.state import AcceleratorState

from duologue.checkpoints.store import dtype_of
from duologue.training.loop import accelerator
from duologue.training.presets import preset
from duologue.training.recipes import text_sft


@pytest.mark.parametrize(("amx", "avx512_bf16", "precision"), [(1, 0, "bf16"), (0, 1, "bf16"), (0, 0, "no")])
def test_auto_follows_the_processor(amx, avx512_bf16, precision, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: False)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: bool(amx))
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: bool(avx512_bf16))
    AcceleratorState._reset_state(reset_partial_state=True)  # a process has one, made once
    recipe = text_sft.TextSftRecipe(stage="text_sft", out="out", **preset("tiny", "text_sft") | {"precision": "auto"})
    assert accelerator.make_accelerator(recipe).mixed_precision == precision
    AcceleratorState._reset_state(reset_partial_state=True)
    assert dtype_of("auto") is (torch.bfloat16 if precision == "bf16" else torch.float32)
