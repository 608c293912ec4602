"""kill -9 at any moment of a run, with workers, augmentation and dropout on: the weights in the end are the same."""

from __future__ import annotations

import multiprocessing
import random
import signal
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from duologue.training.loop.run_folder import newest_state
from duologue.training.loop.trainer import train
from duologue.training.recipes import asr_pretrain
from duologue.training.recipes.asr_pretrain import AsrPretrainRecipe


def run(recipe: AsrPretrainRecipe) -> None:
    torch.set_num_threads(1)
    train(recipe, recipe.build(), progress=False)


def start(recipe: AsrPretrainRecipe) -> multiprocessing.Process:
    """A run in a process of its own. Forked: what is imported need not be imported again."""
    process = multiprocessing.get_context("fork").Process(target=run, args=(recipe,))
    process.start()
    return process


def reached(folder: Path) -> int:
    """The step of the newest whole checkpoint."""
    return max([int(path.stem[6:]) for path in folder.glob("state-*.pt")], default=0)


@pytest.mark.parametrize("kills", [2, pytest.param(20, marks=pytest.mark.slow)])
def test_a_killed_run_ends_in_the_same_weights(questions: Path, tmp_path: Path, kills: int) -> None:
    recipe = replace(
        asr_pretrain.recipe("tiny"), data=(str(questions),), out=str(tmp_path / "whole"), steps=15 * kills,
        batch_size=4, augment="full", workers=1, save_every=3, ema=0.9, optimiser="muon",
    )  # fmt: skip
    process = start(recipe)
    process.join()
    assert process.exitcode == 0
    again = replace(recipe, out=str(tmp_path / "killed"))
    rng, hit = random.Random(kills), 0
    for kill in range(kills):
        process = start(again)
        # Somewhere behind a checkpoint, each time a later one: in a step, in the next save, in the evaluation.
        while process.is_alive() and reached(Path(again.out)) < recipe.steps * kill // (kills + 1):
            time.sleep(0.005)
        process.join(timeout=rng.uniform(0, 0.5))
        process.kill()
        process.join()
        hit += process.exitcode == -signal.SIGKILL
    assert hit >= kills - 1, "the others ended before they could be killed"
    process = start(again)
    process.join()
    assert process.exitcode == 0
    whole, killed = (newest_state(Path(r.out)) for r in (recipe, again))
    assert whole["step"] == killed["step"] == recipe.steps
    assert all(torch.equal(tensor, killed["task"][name]) for name, tensor in whole["task"].items())
    a, b = (load_file(Path(r.out) / "model.safetensors") for r in (recipe, again))
    assert all(torch.equal(tensor, b[name]) for name, tensor in a.items())
