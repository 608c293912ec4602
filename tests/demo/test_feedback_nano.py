"""One round of feedback with nano: what it optimises gets better, and what that does to measures that it does not."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from duologue.demo.feedback import rounds
from duologue.training.main import run as train

DPO = ["steps=30", "save_every=30", "batch_size=8", "held_out=0", "precision=no", "lr=1e-4", "warmup=3", "workers=0",
       "beta=0.1"]  # fmt: skip


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_a_round_makes_answers_right_more_often(root: Path, tmp_path: Path) -> None:
    """Sampled at a temperature at which nano errs; the rewards of the same questions before and after, in pairs."""
    if not (root / "checkpoints" / "nano" / "config.json").is_file():
        pytest.skip("nano is not in this copy")
    torch.set_num_threads(1)
    config = rounds.Config(
        out=str(tmp_path), n=80, held_out=120, reward="right", measure="fresh,brief", temperature=1.5, samples=4,
        measure_temperature=1.5, max_tokens=32, margin=0.5,
    )  # fmt: skip
    (found,) = rounds.run(config, lambda words: train("dpo", [*DPO, *words]), print)["rounds"]
    print(json.dumps(found))
    right, fresh = (found["measures"][name] for name in ("reward", "fresh"))
    assert right["after"] > right["before"] and right["p"] < 0.05
    assert fresh["after"] is not None
