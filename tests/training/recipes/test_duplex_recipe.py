"""The monitor's rows have the turn state that is due at every position, and a tiny one learns them."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from tone_clips import tone_clips

from duologue.model.adaptor.adaptor import HeardClips
from duologue.model.duplex.monitor import CERTAIN, TURN_STATES, TurnState
from duologue.model.errors import DuologueError
from duologue.training.augment.augment import AugmentConfig
from duologue.training.data.marked_turns import marked_tokens
from duologue.training.loop.trainer import train
from duologue.training.recipes import duplex, speech_to_text

QUERY, NOISE, WAIT = (
    TURN_STATES.index(turn_state) for turn_state in (TurnState.QUERY, TurnState.NOISE, TurnState.WAIT)
)


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> str:
    """One of the asides is to be obeyed."""
    return tone_clips(tmp_path_factory.mktemp("clips") / "set", obeyed=(2,))


def tiny(clips: str, **changes: object) -> duplex.DuplexRecipe:
    return replace(duplex.recipe("tiny"), data=(clips,), **changes)  # type: ignore[arg-type]


def scene(task: duplex.Duplex, item: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    wave, turn_states, _ = task.scene(task.corpus[item], np.random.default_rng(seed), task.augmentation)
    assert len(turn_states) == len(wave) // 1280
    return wave, np.array(turn_states)


def loud(wave: np.ndarray, places: int) -> np.ndarray:
    """Whether each place of 80 ms has sound in it."""
    return np.abs(wave[: places * 1280]).reshape(places, 1280).max(1) > 0.01


def test_a_question_is_waited_for_and_then_answered(clips: str) -> None:
    task = tiny(clips).build()
    wave, turn_states = scene(task, 1)
    last = np.flatnonzero(loud(wave, len(turn_states)))[-1]
    assert (turn_states[: last - 1] == WAIT).all() and (turn_states[last + 2 :] == QUERY).all()
    assert (turn_states[[last]] == -100).all() and len(turn_states) - last > 4


def test_a_pause_inside_is_waited_for(clips: str) -> None:
    task = tiny(clips, pause_fraction=1.0).build()
    wave, turn_states = scene(task, 1)
    heard = np.flatnonzero(loud(wave, len(turn_states)))
    assert np.diff(heard).max() >= 3, "there is a pause"
    longest = max(np.diff(np.flatnonzero(loud(w, len(v)))).max() for w, v in (scene(task, 1, i) for i in range(9)))
    assert longest > 13, "and some last longer than a second, which questions do not end by either"
    assert (turn_states[: heard[-1] - 1] == WAIT).all() and (turn_states[heard[-1] + 2 :] == QUERY).all()


def test_the_pause_is_where_a_breath_is_taken(tmp_path: Path) -> None:
    task = tiny(tone_clips(tmp_path / "set", breaths=True), pause_fraction=1.0).build()
    chances: dict[str, Any] = {f.name: 0.0 for f in fields(AugmentConfig) if f.name.endswith("_chance")}
    slower = AugmentConfig(**chances | {"tempo_chance": 1.0, "tempo": (0.82, 0.85)})
    for augmented in (None, slower):
        wave, turn_states, _ = task.scene(task.corpus[1], np.random.default_rng(0), augmented)
        heard = np.flatnonzero(np.abs(wave) > 0.01)
        gap = int(np.diff(heard).argmax())
        first, second = heard[gap] - heard[0], heard[-1] - heard[gap + 1]
        assert heard[gap + 1] - heard[gap] > 0.25 * 16000 and abs(first / (first + second) - 0.8) < 0.01
        assert (np.array(turn_states)[: heard[-1] // 1280 - 1] == WAIT).all()


def test_asides_noises_and_far_talkers_need_no_answer(clips: str) -> None:
    task = tiny(clips).build()
    for item, due in ((0, NOISE), (2, QUERY)):
        wave, turn_states = scene(task, item)
        last = np.flatnonzero(loud(wave, len(turn_states)))[-1]
        assert (turn_states[last + 2 :] == due).all()
    for fractions in ({"noise_fraction": 1.0}, {"far_fraction": 1.0}):
        found = [scene(tiny(clips, **fractions).build(), 1, seed)[1] for seed in range(4)]
        assert {int(v) for row in found for v in row} <= {NOISE, -100, WAIT} and all(NOISE in row for row in found)
        assert not any(QUERY in row for row in found)


def test_words_are_written_down_where_they_are_near_also_if_they_need_no_answer(clips: str) -> None:
    (one,) = marked_tokens("nano").encode("one")
    for fractions, written in (({}, True), ({"noise_fraction": 1.0}, False)):
        words = [word for row in tiny(clips, **fractions).build().batch(0)["spoken"] for word in row]
        assert words == [one] * (8 if written else 0)
    task = tiny(clips, far_fraction=1.0).build()
    near = [task.scene(task.corpus[item], np.random.default_rng(0), None)[2] for item in range(8)]
    assert near == [item % 2 == 0 for item in range(8)], "a far talker's question is not"


def test_a_tiny_monitor_learns(clips: str, tmp_path: Path) -> None:
    recipe = tiny(clips, out=str(tmp_path / "run"), steps=90, save_every=90)
    task = recipe.build()
    metrics = train(recipe, task, progress=False)
    assert metrics["turn_states"] < 0.25 and metrics["right"] > 0.93
    task.recipe = replace(recipe, dev_data=(clips,))
    scores = task.evaluate()
    assert set(scores) == {"query_set", "noise_set", "wait_set"} and scores["query_set"] > 0.8


def test_noise_counts_from_where_few_questions_are_taken_for_it(clips: str, tmp_path: Path) -> None:
    """Of a calibrated monitor; what it has measured is among its tensors."""
    monitor = replace(duplex.recipe("tiny").monitor, calibrated=True)
    task = tiny(clips, monitor=monitor, dev_data=(clips,), missed_questions=0.25).build()
    before = task.monitor.thresholds
    assert np.allclose(before, CERTAIN) and "certain" in task.monitor.state_dict()
    found = task.evaluate()
    after = task.monitor.thresholds
    assert found["ignored_questions"] <= 0.25
    assert after[1] >= before[1] and (after[0], after[2]) == (before[0], before[2])
    assert task.calibrate([0.1, 0.7, 0.8, 0.99]) == pytest.approx(0.801, abs=1e-6), "one of four"
    assert task.calibrate([0.1, 0.7, 0.8, 0.9, 0.95]) == pytest.approx(0.901, abs=1e-6)
    assert task.calibrate([0.0]) == pytest.approx(CERTAIN[1]), "never below what an uncalibrated one has"
    assert "certain" not in tiny(clips).build().monitor.state_dict()


def test_the_largest_probability_of_each_scene() -> None:
    due = torch.tensor([WAIT, QUERY, QUERY, WAIT, QUERY, NOISE])
    heard = torch.tensor([0.9, 0.1, 0.3, 0.8, 0.2, 0.7])
    assert duplex.peaks(heard, due, QUERY) == pytest.approx([0.3, 0.2])
    assert duplex.peaks(heard, due, NOISE) == pytest.approx([0.7]) and not duplex.peaks(heard, due, -100)


@pytest.mark.parametrize("stage", [speech_to_text, duplex])
@pytest.mark.parametrize("named", [True, False])
def test_the_encoder_learns_if_it_is_named(stage: ModuleType, named: bool, clips: str, tmp_path: Path) -> None:
    recipe = replace(stage.recipe("tiny"), data=(clips,), out=str(tmp_path / "run"), steps=2, warmup=1, save_every=2)
    learn = ("adaptor", "llm", "encoder") if named else ("adaptor", "llm")
    task = replace(recipe, learn=learn).build()
    before = [parameter.clone() for parameter in task.encoder.parameters()]
    train(replace(recipe, learn=learn), task, progress=False)
    after = list(task.encoder.parameters())
    assert all(torch.equal(one, other) != named for one, other in zip(before, after, strict=True))


def test_what_should_learn_and_cannot_is_refused(clips: str, tmp_path: Path) -> None:
    recipe = tiny(clips, out=str(tmp_path / "run"), learn=("monitor", "adaptor"))
    task = recipe.build()
    task.hear = lambda batch: HeardClips(*(x.detach() for x in duplex.Duplex.hear(task, batch)))
    with pytest.raises(DuologueError, match="learn=adaptor: no gradient reaches it"):
        train(recipe, task, progress=False)


def test_a_batch_is_a_function_of_its_number(clips: str) -> None:
    recipe = tiny(clips, augment="full", noise_fraction=0.3)
    first, again, other = recipe.build().batch(0), recipe.build().batch(0), recipe.build().batch(1)
    tensors = {key for key, value in first.items() if isinstance(value, torch.Tensor)}
    assert "turn_states" in tensors and all((first[key] == again[key]).all() for key in tensors)
    assert first["samples"].shape != other["samples"].shape or (first["samples"] != other["samples"]).any()


def test_bad_shares_are_refused() -> None:
    with pytest.raises(DuologueError, match=r"noise_fraction is 1\.5"):
        replace(duplex.recipe("tiny"), noise_fraction=1.5)
