"""One round of feedback with nano: what it optimises gets better, and what that costs shows in what it does not."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from duologue.demo.feedback import rounds
from duologue.training.main import run as train

DPO = ["steps=50", "save_every=50", "batch_size=8", "held_out=0", "precision=no", "lr=2e-4", "warmup=5", "workers=0",
       "beta=0.1", "sft_weight=0"]  # fmt: skip


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_a_round_makes_answers_briefer_and_says_what_it_costs(root: Path, tmp_path: Path) -> None:
    """Sampled at a temperature at which nano errs; the rewards of the same questions before and after, in pairs."""
    if not (root / "checkpoints" / "nano" / "config.json").is_file():
        pytest.skip("nano is not in this copy")
    torch.set_num_threads(1)
    config = rounds.Config(
        out=str(tmp_path), n=300, held_out=400, reward="brief", words=4, measure="right,fresh", temperature=1.5,
        measure_temperature=1.5, max_tokens=32, margin=0.1,
    )  # fmt: skip
    (found,) = rounds.run(config, lambda words: train("dpo", [*DPO, *words]), print)["rounds"]
    print(json.dumps(found))
    brief, right = (found["measures"][name] for name in ("reward", "right"))
    assert brief["after"] > brief["before"] and brief["p"] < 0.01
    assert right["p"] is not None and right["after"] < right["before"], "four words often have no room for it"
