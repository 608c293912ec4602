"""Data sets from recipes: the same by any number of processes, whole after a kill, whatever fails."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from duologue.checkpoints.settings import read_settings
from duologue.data_prep.datasets.shards import ShardedDataset
from duologue.data_prep.nano.dialogues import generate, pauses_in
from duologue.data_prep.nano.domain import KIND_OF, PRACTICE
from duologue.data_prep.prepare import main
from duologue.data_prep.recipes import questions, replies, speaking
from duologue.data_prep.recipes.questions import Config, run
from duologue.data_prep.recipes.speaking import speak
from duologue.data_prep.speech.engine import SynthesisError
from duologue.data_prep.speech.voices import find_voices
from duologue.data_prep.text.spoken import NUMBER_WORDS, normalise
from duologue.model.errors import DuologueError

VOICES = "train" if all(shutil.which(program) for program in ("flite", "festival")) else "espeak"


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def fake_speech(text: str, voice: object, prosody: object = None) -> np.ndarray:
    """Ten samples a letter, which depend on the text alone."""
    return np.random.default_rng(list(text.encode())).integers(-9, 9, size=10 * len(text)).astype(np.int16)


@pytest.fixture
def mute(monkeypatch: pytest.MonkeyPatch) -> None:
    """No synthesiser: clips are made in an instant, in this process."""
    monkeypatch.setattr(speaking, "synthesise", fake_speech)
    monkeypatch.setattr(speaking, "require_voices", lambda voices: None)


@pytest.mark.programs
def test_one_and_two_workers_make_the_same(tmp_path: Path) -> None:
    for workers in (1, 2):
        settings = [f"workers={workers}", "n=16", "seed=5", "shard_size=4", f"voices={VOICES}"]
        counts = main("questions", [f"out={tmp_path / str(workers)}", *settings])
        assert counts["clips"] == 16 and counts["failed"] == 0
    one, two = contents(tmp_path / "1"), contents(tmp_path / "2")
    assert one == two and len(one) == 2 * 4 + 2
    voices = {clip.meta["voice"].partition(":")[0] for clip in ShardedDataset(tmp_path / "1")}
    assert voices == {voice.engine for voice in find_voices(VOICES)}


def test_a_killed_run_goes_on(tmp_path: Path) -> None:
    settings = ["n=32", "seed=2", "shard_size=4", "drills=0.5", "voices=espeak:en-us", "workers=1"]
    code = "import sys; from duologue.data_prep.prepare import main; main('replies', sys.argv[1:])"
    run = subprocess.Popen(
        [sys.executable, "-c", code, f"out={tmp_path / 'killed'}", *settings], stdout=subprocess.DEVNULL,
        env={"PYTHONPATH": ":".join(sys.path), "PATH": os.environ["PATH"]},
    )  # fmt: skip
    deadline = time.monotonic() + 120
    while not list((tmp_path / "killed").glob("shard-00001.jsonl")) and time.monotonic() < deadline:
        assert run.poll() is None
        time.sleep(0.005)
    run.send_signal(signal.SIGKILL)
    run.wait()
    before = len(ShardedDataset(tmp_path / "killed"))
    assert 8 <= before < 32
    assert main("replies", [f"out={tmp_path / 'killed'}", *settings])["clips"] == 32
    main("replies", [f"out={tmp_path / 'whole'}", *settings])
    killed = {name: data for name, data in contents(tmp_path / "killed").items() if not name.endswith(".tmp")}
    assert killed == contents(tmp_path / "whole")


def test_a_failing_voice_is_recorded_and_skipped(tmp_path: Path) -> None:
    counts = main(
        "questions", [f"out={tmp_path}", "n=12", "shard_size=6", "voices=espeak:en-us,espeak:nobody", "workers=1"]
    )
    assert counts["clips"] + counts["failed"] == 12 and counts["clips"] > 0 and counts["failed"] > 0
    failures = [json.loads(line) for line in (tmp_path / "failed.jsonl").read_text().splitlines()]
    assert len(failures) == counts["failed"]
    assert all("nobody" in failure["reason"] and failure["id"] for failure in failures)
    made = {clip.meta["id"] for clip in ShardedDataset(tmp_path)}
    assert made.isdisjoint(failure["id"] for failure in failures) and len(made) == counts["clips"]


def test_when_all_fail_it_says_so(tmp_path: Path) -> None:
    with pytest.raises(DuologueError, match="every clip failed"):
        main("questions", [f"out={tmp_path}", "n=3", "voices=espeak:nobody", "workers=1"])


def test_a_missing_synthesiser_is_named_before_anything_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(SynthesisError, match=r"not installed: festival .*not installed: flite"):
        main("questions", [f"out={tmp_path / 'q'}"])
    assert not (tmp_path / "q").exists()


def test_only_missing_shards_are_made(tmp_path: Path, mute: None, monkeypatch: pytest.MonkeyPatch) -> None:
    config = Config(out=str(tmp_path), n=10, shard_size=4, workers=1)
    run(config, progress=False)
    before = contents(tmp_path)
    (tmp_path / "shard-00001.jsonl").unlink()
    made = []
    monkeypatch.setattr(speaking, "synthesise", lambda text, *rest: made.append(text) or fake_speech(text, *rest))
    run(config, progress=False)
    assert len(made) == 4 and contents(tmp_path) == before


def test_clips_carry_their_dialogue(tmp_path: Path, mute: None) -> None:
    run(Config(out=str(tmp_path), n=60, seed=9, workers=1), progress=False)
    drills = 0
    for index, clip in enumerate(ShardedDataset(tmp_path)):
        meta = clip.meta
        assert normalise(meta["text"]) == meta["text"]
        if meta["category"] == "drill":
            drills += 1
            continue
        dialogue = generate(9, index)
        assert (meta["text"], meta["question"], meta["answer"], meta["slot"]) == (
            dialogue.question, dialogue.question, dialogue.answer, dialogue.slot,
        )  # fmt: skip
        assert (meta["template"], meta["operands"], meta["kind"]) == (
            dialogue.template,
            dialogue.operands,
            dialogue.kind,
        )
    assert 3 <= drills <= 25


def test_drills_may_be_words_alone() -> None:
    texts = [questions.sentence(i, Config(out="nowhere", n=200, drills=1, alone=1)).text for i in range(200)]
    assert all(" " not in text for text in texts)
    digits = sum(text in NUMBER_WORDS[:10] for text in texts)
    assert 90 <= digits <= 160  # six in ten
    with pytest.raises(DuologueError, match=r"alone=-0.1: expected a fraction"):
        Config(out="nowhere", alone=-0.1)


def test_a_question_is_said_in_two_breaths(mute: None) -> None:
    """Where the first alone is no question, neither among fillers; drills and wordings for practice are said in one."""
    config = Config(out="nowhere", n=200, drills=0.1, practice=0.2, pauses=0.7)
    plans = [questions.sentence(i, config) for i in range(200)]
    same = [questions.sentence(i, replace(config, pauses=0)) for i in range(200)]
    assert [(one.text, one.voice, one.prosody) for one in plans] == [(one.text, one.voice, one.prosody) for one in same]
    paused = [plan for plan in plans if plan.pause]
    assert 70 <= len(paused) <= 130
    assert all("kind" in plan.fields and KIND_OF[plan.fields["kind"]] not in PRACTICE for plan in paused)
    for plan in paused:
        words = plan.text.split()
        assert 0 < plan.pause < len(words) and plan.pause in pauses_in(plan.text)
        first, clip = fake_speech(" ".join(words[: plan.pause]), None), speak(plan)
        at = clip.meta["pause"]
        assert not clip.pcm[at - 640 : at + 640].any() and clip.pcm[at - 641] and clip.pcm[at + 640]
        assert at - 640 <= len(first) and len(clip.pcm) - 1280 <= 10 * len(plan.text)
    assert "pause" not in speak(same[0]).meta
    assert pauses_in("um what is two plus three please") == [1, 2, 3, 4, 5]
    assert pauses_in("tell me the capital of peru thank you") == [1, 2, 3, 4, 5]


def test_a_set_without_a_command_does_not_mention_it(tmp_path: Path, mute: None) -> None:
    """So sets that were made before there were commands can be gone on with."""
    run(Config(out=str(tmp_path), n=2, workers=1), progress=False)
    parameters = ShardedDataset(tmp_path).header["parameters"]
    assert set(parameters) == {"n", "seed", "shard_size", "split", "voices", "drills"}


def test_the_split_and_the_text_are_the_recipes(mute: None) -> None:
    test = Config(out="nowhere", split="test", drills=0.0)
    for index in range(50):
        dialogue = generate(0, index, "test")
        assert questions.sentence(index, test).text == dialogue.question
        assert replies.sentence(index, test).text == dialogue.answer
    assert {questions.sentence(index, test).fields["category"] for index in range(50)} >= {"arithmetic", "comparison"}


def test_a_voice_does_not_depend_on_the_sentence() -> None:
    """Two seeds share neither sentences nor voices; one seed gives both again."""
    one, two = (Config(out="nowhere", seed=seed) for seed in (1, 2))
    plans = [[questions.sentence(i, config) for i in range(20)] for config in (one, one, two)]
    assert plans[0] == plans[1]
    assert [plan.voice for plan in plans[0]] != [plan.voice for plan in plans[2]]


@pytest.mark.parametrize(
    ("overrides", "complaint"),
    [
        (["n=3"], "recipe questions needs out="),
        (["out="], "recipe questions needs out="),
        (["out=x", "m=3"], "unknown key 'm'"),
        (["out=x", "n=three"], "n=three: the value must be a whole number"),
        (["out=x", "n=2.5"], "whole number"),
        (["out=x", "drills=much"], "drills=much: the value must be a number, and finite"),
        (["out=x", "drills=1.5"], "fraction from 0 to 1"),
        (["out=x", "n"], "must be KEY=VALUE"),
        (["out=x", "n=0"], "at least 1"),
        (["out=x", "split=final"], "train, dev, test"),
        (["out=x", "voices=me"], "unknown voice"),
    ],
)
def test_wrong_overrides(overrides: list[str], complaint: str) -> None:
    with pytest.raises(DuologueError, match=complaint) as caught:
        main("questions", overrides)
    assert "\n" not in str(caught.value)


def test_overrides_are_typed() -> None:
    config = read_settings(Config, ["out=a=b", "n=7", "drills=0"], "recipe questions")
    assert (config.out, config.n, config.drills) == ("a=b", 7, 0.0)


def test_an_unknown_recipe() -> None:
    with pytest.raises(DuologueError, match=r"unknown recipe 'reply'.*questions, recordings, replies"):
        main("reply", [])


def test_what_is_practised_can_be_spoken() -> None:
    config = replies.Config(out="nowhere", practice=0.5, drills=0.0, only="months_after_practice")
    said = [replies.sentence(index, config).text for index in range(5)]
    assert all(" one " in text and " it is " in text for text in said), said
    with pytest.raises(DuologueError, match="only=months_after_practice: expected some of"):
        replies.Config(out="nowhere", only="months_after_practice")  # it would be found never
    for only in ("plus", "outside"):  # nor would these, where all is practice
        with pytest.raises(DuologueError, match=f"only={only}: expected some of arithmetic, .* practice=1"):
            replies.Config(out="nowhere", practice=1, only=only)
    with pytest.raises(DuologueError, match=r"practice=2: expected a fraction"):
        replies.Config(out="nowhere", practice=2)


def test_only_takes_categories_and_kinds_that_the_split_has() -> None:
    config = Config(out="nowhere", only="follow_again,clock", drills=0.0)
    fields = [questions.sentence(at, config).fields for at in range(40)]
    assert {f["category"] for f in fields if f["kind"] != "follow_again"} == {"clock"}
    assert any(f["kind"] == "follow_again" for f in fields)
    Config(out="nowhere", only="how_are_you")
    for split, only in (("train", "follow_agian"), ("dev", "how_are_you")):  # which has no wording there: found never
        with pytest.raises(DuologueError, match=f"only={only}: expected some of .*split={split}"):
            Config(out="nowhere", only=only, split=split)
