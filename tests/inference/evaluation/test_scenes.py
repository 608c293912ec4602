"""Scripted dialogues: the truth is where the sound is, and the same scene is the same everywhere."""

from __future__ import annotations

import json

import numpy as np
import pytest

from duologue.data_prep.nano.dialogues import Split, template_table
from duologue.data_prep.speech.engine import SAMPLE_RATE
from duologue.data_prep.speech.voices import find_voices
from duologue.inference.evaluation.inputs.scenes import FLOOR_DBFS, LEVEL_DBFS, SceneKind, render
from duologue.model.errors import DuologueError

VOICES = find_voices("espeak:en-us+f5,espeak:en-gb+m8")


@pytest.mark.parametrize("kind", SceneKind)
def test_the_truth_is_where_the_sound_is(kind: SceneKind) -> None:
    scene = render(kind, 3, 0, VOICES)
    assert scene.pcm.dtype == np.float32 and np.abs(scene.pcm).max() <= 1
    loud = np.zeros(len(scene.pcm), bool)
    for span in scene.spans:
        inside = slice(span.start_ms * SAMPLE_RATE // 1000, span.end_ms * SAMPLE_RATE // 1000)
        loud[inside] = True
        level = 10 * np.log10(np.mean(scene.pcm[inside] ** 2))
        far = span.text.startswith("[far")
        assert level < LEVEL_DBFS - 10 if far else level > LEVEL_DBFS - 8, span
    quiet = scene.pcm[~loud]
    assert 10 * np.log10(np.mean(quiet**2)) < FLOOR_DBFS + 3, "elsewhere there is the room alone"
    again = render(kind, 3, 0, VOICES)
    assert np.array_equal(scene.pcm, again.pcm) and scene.truth() == again.truth()
    assert json.loads(json.dumps(scene.truth()))["kind"] == kind.value


def test_texts_are_of_the_test_and_differ() -> None:
    scenes = [render(SceneKind.INTERRUPTION, index, 0, VOICES) for index in range(6)]
    held_out = {
        f"{kind}-{template}" for kind, table in template_table().items() for template, where in table.items()
        if where is Split.TEST
    }  # fmt: skip
    assert held_out and len({turn.question for scene in scenes for turn in scene.turns}) > 8
    for scene in scenes:
        assert len(scene.turns) == 2 and len(scene.turns[0].answer.split()) >= 6
        assert scene.spans[1].start_ms - scene.spans[0].end_ms in range(1_400, 2_100)
    assert {scene.voice for scene in scenes} == {voice.key for voice in VOICES}


def test_a_pause_is_inside_the_question() -> None:
    for index in range(4):
        scene = render(SceneKind.PAUSE, index, 0, VOICES)
        first, second = scene.spans
        assert f"{first.text} {second.text}" == scene.turns[0].question
        assert 300 <= second.start_ms - first.end_ms <= 901


def test_somebody_must_speak() -> None:
    with pytest.raises(DuologueError, match="at least one voice"):
        render(SceneKind.QUESTION, 0, 0, ())
