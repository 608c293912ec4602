"""Recipes: overrides by key=value, what is refused, the learning rate, what is saved."""

from __future__ import annotations

import json

import pytest

from duologue.checkpoints.settings import read_settings
from duologue.model.errors import DuologueError
from duologue.training.main import RECIPES, resolve
from duologue.training.recipe import save_recipe


@pytest.mark.parametrize("stage", RECIPES.first_lines())
@pytest.mark.parametrize("preset", ["nano", "tiny"])
def test_every_stage_has_both_presets(stage: str, preset: str) -> None:
    recipe = resolve(stage, [f"preset={preset}"])
    assert recipe.stage == stage
    assert recipe.learn


def test_values_are_read_by_their_type() -> None:
    recipe = resolve("asr_pretrain", ["steps=7", "lr=0.5", "compile=true", "data=a,b", "noises=x", "precision=no"])
    assert (recipe.steps, recipe.lr, recipe.compile, recipe.precision) == (7, 0.5, True, "no")
    assert recipe.data == ("a", "b")  # type: ignore[attr-defined]
    assert read_settings(recipe, ["noises=none"], "recipe").noises is None  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["stpes=7"], r"unknown key 'stpes' for recipe asr_pretrain \(did you mean steps\?\); there are: accumulate, "),
        (["steps=many"], "steps=many: the value must be a whole number"),
        (["steps=0"], "steps is 0; it must be at least 1"),
        (["steps"], "must be KEY=VALUE"),
        (["schedule=linear"], "'cosine' or 'constant'"),
        (["precision=fp8"], "'no', 'bf16' or 'auto'"),
        (["preset=huge"], "'nano' or 'tiny'"),
        (["start=encoder"], "PREFIX=FOLDER"),
    ],
)
def test_mistakes_are_named(overrides: list[str], message: str) -> None:
    with pytest.raises(DuologueError, match=message):
        resolve("asr_pretrain", overrides)


def test_an_unknown_recipe_is_named() -> None:
    with pytest.raises(DuologueError, match=r"unknown recipe 'asr'.*; there are: asr_pretrain"):
        resolve("asr", [])


def test_the_learning_rate_rises_and_falls() -> None:
    recipe = resolve("text_sft", ["steps=100", "warmup=10", "lr=1.0"])
    assert recipe.lr_at(0) == pytest.approx(0.1)
    assert recipe.lr_at(9) == pytest.approx(1.0)
    assert recipe.lr_at(55) == pytest.approx(0.5)
    assert recipe.lr_at(100) == pytest.approx(0.0)
    flat = read_settings(recipe, ["schedule=constant"], "recipe")
    assert flat.lr_at(99) == 1.0


def test_the_resolved_recipe_is_saved(tmp_path) -> None:
    save_recipe(resolve("text_sft", ["steps=12"]), tmp_path)
    saved = json.loads((tmp_path / "recipe.json").read_text())
    assert saved["steps"] == 12
    assert [path.name for path in tmp_path.iterdir()] == ["recipe.json"]
