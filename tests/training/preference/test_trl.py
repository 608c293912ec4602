"""The same losses and gradients as trl's, whose numbers lie in tests/golden/dpo."""

from __future__ import annotations

import json
import subprocess
import sys
import venv
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from duologue.training.data.turns import Row
from duologue.training.loop.task import Batch
from duologue.training.main import resolve
from duologue.training.preference.pairs import Pair, pack_pairs
from duologue.training.recipes.dpo import WrittenPreferences

ROOT = Path(__file__).resolve().parents[3]
GOLDEN = ROOT / "tests" / "golden" / "dpo"
TOLERANCE = 1e-5
# Each of trl's settings in ours; "swapped" stands in label smoothing.
SAME: dict[str, dict[str, Any]] = {
    "sigmoid": {"beta": 0.1}, "strict": {"beta": 1.5}, "by_token": {"beta": 2.0, "per_token": True},
    "with_sft": {"beta": 0.5, "sft_weight": 0.3}, "right": {"beta": 0.5}, "lora": {"beta": 0.5, "lora": 2},
}  # fmt: skip


class GoldenPairs(WrittenPreferences):
    """Rows that are given as ids."""

    inputs: dict[str, list[list[int]]]

    def rows(self, pairs: Sequence[tuple[int, str]]) -> Batch:
        made, count = [], len(self.inputs["input_ids"]) // 2
        for at, _ in pairs:
            sides = []
            for side in (at, at + count):
                real = sum(self.inputs["attention_mask"][side])
                ids, answer = (self.inputs[name][side][:real] for name in ("input_ids", "completion_mask"))
                row = Row(SimpleNamespace(pad=0), list(ids), [float(one) for one in answer])
                row.said = range(answer.index(1), real - 1)
                sides.append(row)
            made.append(Pair(*sides))
        return pack_pairs(made, self.preferences.row_tokens)[0]


def build(tmp_path: Path, golden: Path, **settings: Any) -> tuple[Any, dict[str, Any], dict[str, torch.Tensor]]:
    """The task of three pairs, its reference known, the policy's weights in it; and what trl has found."""
    expected = json.loads((golden / "expected.json").read_text())
    tensors = load_file(golden / "expected.safetensors")
    turn = {"text": "what is two plus two", "reply": "two plus two is four", "rejected": "yes"}
    (tmp_path / "pairs.jsonl").write_text(3 * (json.dumps({"turns": [turn]}) + "\n"))
    recipe: Any = resolve("dpo", ["preset=tiny", f"data={tmp_path / 'pairs.jsonl'}", "held_out=0"])
    task = GoldenPairs(replace(recipe, llm=expected["config"], **settings))
    task.inputs = expected["inputs"]
    task.llm.lm.load_state_dict(_below("reference", tensors))
    if settings.get("lora"):
        task.llm.lm.load_state_dict(_below("policy", tensors))
        task.adapt()
        weights = dict(task.llm.lm.named_parameters())
        with torch.no_grad():
            for name, value in _below("lora_weights", tensors).items():
                weights[name].copy_(value)
    task.remember()
    if not settings.get("lora"):
        task.llm.lm.load_state_dict(_below("policy", tensors))
    return task, expected["losses"], tensors


def _below(prefix: str, tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name[len(prefix) + 1 :]: value for name, value in tensors.items() if name.startswith(f"{prefix}.")}


def compare(task: Any, loss: float, gradients: dict[str, torch.Tensor]) -> None:
    found, _ = task(task.batch_of(np.arange(3)))
    found.backward()
    assert abs(found.item() - loss) < TOLERANCE
    own = {name: parameter.grad for name, parameter in task.llm.lm.named_parameters() if parameter.grad is not None}
    assert gradients and gradients.keys() <= own.keys()
    for name, gradient in gradients.items():
        assert (own[name] - gradient).abs().max() < TOLERANCE, name


@pytest.mark.parametrize("width", [1, 100])
@pytest.mark.parametrize("name", SAME)
def test_losses_and_gradients_are_those_of_trl(name: str, width: int, tmp_path: Path) -> None:
    """Packed too; with low-rank updates, the reference is the model without them."""
    task, losses, tensors = build(tmp_path, GOLDEN, row_tokens=width, **SAME[name])
    compare(task, losses[name], _below(name, tensors))


def test_label_smoothing_is_a_mean_of_both_orders(tmp_path: Path) -> None:
    task, losses, tensors = build(tmp_path, GOLDEN, beta=0.5, label_smoothing=0.2)
    right, swapped = (_below(name, tensors) for name in ("right", "swapped"))
    mixed = {name: 0.8 * gradient + 0.2 * swapped[name] for name, gradient in right.items()}
    compare(task, 0.8 * losses["right"] + 0.2 * losses["swapped"], mixed)


@pytest.mark.slow
def test_trl_still_says_the_same(tmp_path: Path) -> None:
    """Its numbers made anew, in an environment of its own. To keep others: run trl_numbers.py there."""
    folder = Path(sys.prefix) / "trl"
    python = folder / "bin" / "python"
    packages = ["trl==1.16.0", "peft", "-c", str(ROOT / "constraints.txt")]
    if not (folder / "installed").is_file():
        venv.create(folder)
        pip = [sys.executable, "-m", "pip", "--python", str(folder), "install", "--quiet", "--no-compile", *packages]
        if (done := subprocess.run(pip, capture_output=True, text=True, check=False)).returncode:
            pytest.skip(f"trl cannot be installed: {done.stderr.strip()[-200:]}")
        (folder / "installed").touch()
    script = Path(__file__).with_name("trl_numbers.py")
    subprocess.run([str(python), str(script), str(tmp_path)], check=True, capture_output=True)
    anew, kept = (json.loads((place / "expected.json").read_text()) for place in (tmp_path, GOLDEN))
    assert anew["losses"] == pytest.approx(kept["losses"], abs=1e-6)
    assert {key: anew[key] for key in ("inputs", "config", "settings")} == {
        key: kept[key] for key in ("inputs", "config", "settings")
    }
    tensors, golden = (load_file(place / "expected.safetensors") for place in (tmp_path, GOLDEN))
    assert tensors.keys() == golden.keys()
    assert all((tensor - golden[name]).abs().max() < 1e-6 for name, tensor in tensors.items())
