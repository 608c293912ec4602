"""One recipe on one process and on two: the same weights. Real launches by accelerate, over gloo; slow."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from duologue.training.loop.trainer import train
from duologue.training.recipes import speech_to_text
from duologue.training.recipes.speech_to_text import SpeechToTextRecipe as Recipe

LAUNCH = [
    "--num_machines",
    "1",
    "--mixed_precision",
    "no",
    "--dynamo_backend",
    "no",
    "--num_cpu_threads_per_process",
    "1",
]
PLAIN = [*LAUNCH, "--multi_gpu", "--num_processes", "2"]  # without a GPU: gloo


def spoken(questions: Path, out: Path, **changes: object) -> Recipe:
    """Two batches of four a step, so that two processes have one each."""
    recipe = speech_to_text.recipe("tiny")
    return replace(recipe, data=(str(questions),), out=str(out), steps=6, warmup=1, batch_size=4, accumulate=2,
                   save_every=3, optimiser="adamw", **changes)  # fmt: skip


def arguments(recipe: Recipe) -> list[str]:
    """The same recipe as a user would type it."""
    return [
        "train", "speech_to_text", "preset=tiny", f"data={','.join(recipe.data)}", f"out={recipe.out}",
        *(f"{key}={getattr(recipe, key)}" for key in
          ("steps", "warmup", "batch_size", "accumulate", "save_every", "optimiser", "workers")),
    ]  # fmt: skip


def launch(recipe: Recipe, options: list[str], *extra: str) -> subprocess.CompletedProcess[str]:
    command = [
        sys.executable,
        "-m",
        "accelerate.commands.launch",
        *options,
        "-m",
        "duologue",
        *arguments(recipe),
        *extra,
    ]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "DS_ACCELERATOR": "cpu"}
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=800)


def weights(recipe: Recipe) -> dict[str, torch.Tensor]:
    return load_file(Path(recipe.out) / "model.safetensors")


def assert_same(one: dict[str, torch.Tensor], two: dict[str, torch.Tensor], tolerance: float = 1e-5) -> None:
    assert one.keys() == two.keys()
    for name, tensor in one.items():
        assert (tensor - two[name]).abs().max() <= tolerance * max(1.0, float(tensor.abs().max())), name


@pytest.fixture(scope="module")
def alone(questions: Path, tmp_path_factory: pytest.TempPathFactory) -> Recipe:
    recipe = spoken(questions, tmp_path_factory.mktemp("alone"))
    train(recipe, recipe.build(), progress=False)
    return recipe


@pytest.mark.slow
def test_two_processes_share_the_batches_of_one(alone: Recipe, questions: Path, tmp_path: Path) -> None:
    shared = spoken(questions, tmp_path / "shared")
    done = launch(shared, PLAIN)
    assert done.returncode == 0, done.stderr[:3000]
    assert_same(weights(alone), weights(shared))


@pytest.mark.slow
def test_two_processes_resume(alone: Recipe, questions: Path, tmp_path: Path) -> None:
    """Stopped after three steps and started again, still the same."""
    shared = replace(spoken(questions, tmp_path / "shared"), schedule="constant")
    whole = replace(spoken(questions, tmp_path / "whole"), schedule="constant")
    train(whole, whole.build(), progress=False)
    for steps in (3, 6):
        done = launch(replace(shared, steps=steps), PLAIN, "schedule=constant")
        assert done.returncode == 0, done.stderr[:3000]
    assert_same(weights(whole), weights(shared))


@pytest.mark.slow
def test_an_uneven_share_is_refused(questions: Path, tmp_path: Path) -> None:
    odd = replace(spoken(questions, tmp_path / "odd"), accumulate=1)
    done = launch(odd, PLAIN)
    assert done.returncode != 0
    assert "2 processes cannot share 1 batches a step: give accumulate=2" in done.stderr + done.stdout


ZERO = "--use_deepspeed --num_processes 2 --zero_stage {stage}"
FSDP = "--use_fsdp --fsdp_version 2 --fsdp_state_dict_type FULL_STATE_DICT --num_processes {processes}"


def assert_shards_learn_the_same(whole: Recipe, shared: Recipe, options: str, tolerance: float = 1e-4) -> None:
    """Weights (and optimiser states) in shards; stopped after three steps and started again.

    Adam moves a weight by up to the rate, 3e-3, where the gradient is all but zero and only its sign counts: sums in
    another order show there.
    """
    train(whole, whole.build(), progress=False)
    for steps in (3, 6):
        done = launch(replace(shared, steps=steps), [*LAUNCH, *options.split()], "schedule=constant")
        assert done.returncode == 0, done.stderr[:3000] + done.stderr[-3000:]
    kept = [path.name for path in Path(shared.out).glob("state-*") if path.is_dir()]
    assert sorted(kept) == ["state-00000003", "state-00000006"], "each process writes its shards into a folder"
    assert_same(weights(whole), weights(shared), tolerance)


@pytest.mark.slow
@pytest.mark.parametrize("stage", [2, 3])
def test_zero_learns_the_same_and_resumes(questions: Path, tmp_path: Path, stage: int) -> None:
    pytest.importorskip("deepspeed", reason="ZeRO is DeepSpeed's")
    shared, whole = (replace(spoken(questions, tmp_path / n), schedule="constant") for n in ("shared", "whole"))
    assert_shards_learn_the_same(whole, shared, ZERO.format(stage=stage), tolerance=1e-4 if stage == 2 else 1e-3)


@pytest.mark.gpu
def test_fsdp_learns_the_same_and_resumes(questions: Path, tmp_path: Path) -> None:
    shared, whole = (replace(spoken(questions, tmp_path / n), schedule="constant") for n in ("shared", "whole"))
    assert_shards_learn_the_same(whole, shared, FSDP.format(processes=torch.cuda.device_count()))


@pytest.mark.slow
def test_fsdp_without_a_gpu_is_refused(questions: Path, tmp_path: Path) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    done = launch(spoken(questions, tmp_path), [*LAUNCH, *FSDP.format(processes=2).split()])
    assert done.returncode != 0 and "accelerate runs FSDP on GPUs alone" in done.stderr
