"""Who is faint beside the user is somebody else, until they speak again."""

from __future__ import annotations

import pytest
import torch

from duologue.inference.front_end.loudness import Loudness, LoudnessConfig
from duologue.model.errors import DuologueError


def heard(loudness: Loudness, dbfs: float, frames: int = 10) -> Loudness:
    loudness.new_turn()
    for at in range(frames):
        noise = torch.randn(1280, generator=torch.Generator().manual_seed(at))
        loudness.hear(noise * 10 ** (dbfs / 20))
    return loudness


def test_the_level_of_a_turn() -> None:
    loudness = Loudness.begin(LoudnessConfig())
    assert loudness.level_dbfs == float("-inf") and not loudness.far
    assert heard(loudness, -30.0).level_dbfs == pytest.approx(-30.0, abs=0.2)
    loudness.new_turn()
    loudness.hear(torch.zeros(1280))
    assert loudness.far


def test_who_is_nine_decibels_fainter_is_far() -> None:
    loudness = Loudness.begin(LoudnessConfig(usual_dbfs=-26))
    assert not heard(loudness, -34.5).far and heard(loudness, -35.5).far
    assert not heard(Loudness.begin(LoudnessConfig(far_db=0)), -60).far


def test_the_usual_level_follows_the_user() -> None:
    loudness = Loudness.begin(LoudnessConfig(usual_dbfs=-26))
    for _ in range(12):
        heard(loudness, -15.0).answered()
    assert loudness.usual_dbfs == pytest.approx(-15.0, abs=0.5)
    assert heard(loudness, -26).far, "a television as loud as the user was thought to be at first"


def test_a_faint_user_is_heard_the_second_time() -> None:
    loudness = Loudness.begin(LoudnessConfig(usual_dbfs=-26))
    assert heard(loudness, -45).far
    loudness.ignored()
    assert not heard(loudness, -43).far
    loudness.answered()
    assert not heard(loudness, -45).far and loudness.usual_dbfs == pytest.approx(-43, abs=0.2)


def test_two_different_faint_talkers_are_both_far() -> None:
    loudness = Loudness.begin(LoudnessConfig(usual_dbfs=-26))
    heard(loudness, -37).ignored()
    assert heard(loudness, -50).far


@pytest.mark.parametrize(("setting", "value"), [("usual_dbfs", 3.0), ("far_db", -1.0)])
def test_bad_settings_are_refused(setting: str, value: float) -> None:
    with pytest.raises(DuologueError, match=f"{setting} is {value}"):
        LoudnessConfig(**{setting: value})
