"""Scripted dialogues: the truth is where the sound is, and the same scene is the same everywhere."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from duologue.data_prep.datasets.question_sets import Dialogue, QuestionSet
from duologue.data_prep.nano.dialogues import Split, template_table
from duologue.data_prep.speech.engine import SAMPLE_RATE
from duologue.data_prep.speech.voices import find_voices
from duologue.inference.evaluation.inputs.material import STATEMENTS, Material
from duologue.inference.evaluation.inputs.scenes import FLOOR_DBFS, LEVEL_DBFS, Scene, SceneKind
from duologue.inference.evaluation.inputs.scenes import render as render_of
from duologue.model.errors import DuologueError

VOICES = find_voices("espeak:en-us+f5,espeak:en-gb+m8")
MATERIAL = Material("nano")


def render(kind: SceneKind, index: int, seed: int, voices: object, material: Material = MATERIAL) -> Scene:
    return render_of(kind, index, seed, voices, material)


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


def own(folder: Path, *turns: tuple[str, str]) -> str:
    """A question set's file."""
    entries = [{"turns": [{"text": question, "reply": reply, "slot": reply}]} for question, reply in turns]
    file = folder / f"{len(list(folder.iterdir()))}.jsonl"  # another each time: sets are read once
    file.write_text("".join(json.dumps(entry) + "\n" for entry in entries))
    return str(file)


def test_any_set_makes_all_scenes(tmp_path: Path) -> None:
    """What a scene wants and the set does not have is said; the nearest is asked, and its short answer is talked over
    sooner. Of what the set has, nothing is said."""
    short = Material(own(tmp_path, ("who is there", "me"), ("where", "in the old town")))
    found = {kind: render(kind, 0, 0, VOICES, short) for kind in SceneKind}
    over = {SceneKind.BACK_CHANNEL, SceneKind.COUGH, SceneKind.INTERRUPTION, SceneKind.STOP, SceneKind.RECALL}
    for kind in over:
        assert found[kind].note == "no answer has 6 words to be talked over: the longest has 4"
        assert found[kind].turns[0].question == "where"
        assert found[kind].spans[1].start_ms - found[kind].spans[0].end_ms in range(950, 1_350)
        assert Scene.from_truth(found[kind].truth(), found[kind].pcm).note == found[kind].note
    pause = found[SceneKind.PAUSE]
    assert [span.text for span in pause.spans] == ["who", "is there"] and "cut in half" in pause.note
    assert {kind for kind, scene in found.items() if scene.note} == over | {SceneKind.PAUSE, SceneKind.ECHO,
                                                                            SceneKind.ECHO_INTERRUPTION}  # fmt: skip
    long = Material(own(tmp_path, ("what is it that you see there", "i see a big dog in the garden")))
    assert not any(render(kind, 0, 0, VOICES, long).note for kind in SceneKind)
    with pytest.raises(DuologueError, match="no such file"):
        Material(str(tmp_path / "none.jsonl"))


def test_a_question_without_spaces_is_cut_in_half() -> None:
    material = object.__new__(Material)
    dialogue = Dialogue(category="", kind="", template="", question="法国的首都是哪里", answer="法国的首都是巴黎",
                        slot="巴黎", operands="")  # fmt: skip
    material.questions, material._written = QuestionSet(), [dialogue]
    asked = material.question_with_pause(0, 0, np.random.default_rng(0))
    assert asked.cut == 4 and "cut in half" in asked.note
    assert not material.question(0, 0, long=True).note, "an answer of eight characters is long"


def test_statements_of_ones_own(tmp_path: Path) -> None:
    (tmp_path / "said.txt").write_text("pass me the salt\n\nit rains\n")
    material = Material(own(tmp_path, ("where", "here")), tmp_path / "said.txt")
    rng = np.random.default_rng(0)
    assert {material.statement(0, at, rng) for at in range(20)} == {"pass me the salt", "it rains"}
    assert Material(own(tmp_path, ("where", "here"))).statement(0, 0, rng) in STATEMENTS, "it has none of its own"
    (tmp_path / "said.txt").write_text("\n")
    with pytest.raises(DuologueError, match=r"said\.txt is empty: expected statements"):
        Material("nano", tmp_path / "said.txt")
