"""A model card says what the files say, names what they do not, and counts every look at the acceptance questions."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from duologue.checkpoints.cards.evaluation import evaluation_section, interval, summary
from duologue.checkpoints.cards.facts import (
    AcceptanceRun,
    data_facts,
    digest,
    log_acceptance,
    part_facts,
    read_acceptance,
    stage_facts,
)
from duologue.checkpoints.cards.markdown import table
from duologue.checkpoints.cards.speech_lm import CardFacts, collect, folder_mib, main, render
from duologue.model.errors import DuologueError

HOUR = 3600.0


def scores(questions: int, right: float | None) -> dict[str, Any]:
    return {
        "questions": questions,
        "right": right,
        "right_by_ear": None if right is None else right - 0.1,
        "transcript_wer": 0.125,
        "transcript_exact": 0.5,
    }


def report(sha256: str = "", **changes: Any) -> dict[str, Any]:
    times = {"p50": 123.4, "p95": 234.5, "max": 345.6}
    found = {
        "overall": scores(300, 0.7),
        "by_voice": {"flite:slt": scores(150, 0.6), "flite:awb": scores(150, 0.8)},
        "by_category": {"arithmetic": scores(200, 0.9), "spelling": scores(100, 0.3)},
        "reply_speech": {"replies": 290, "words": 999, "wer": 0.21, "synthesiser_wer": 0.15, "difference": 0.06},
        "compute_delay_ms": times,
        "first_word_ms": times,
        "real_time_factor": {"p50": 0.25, "p95": 0.5, "max": 0.75},
        "peak_rss_mib": 812.0,
        "failed": 0,
    }
    settings = {
        "voices": ["flite:awb", "flite:slt"],
        "split": "test",
        "seed": 0,
        "model": {"name": "x", "sha256": sha256},
    }
    environment = {"processor": "Some Processor", "cores": 2, "torch_threads": 2}
    return {"settings": settings, "figures": found | changes, "environment": environment}


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    from safetensors.numpy import save_file

    folder = tmp_path / "small"
    folder.mkdir()
    tensors = {
        "encoder.a": (3, 5),
        "llm.lm_head.weight": (10, 10),
        "llm.b": (7,),
        "vocoder.c": (2, 2, 2),
        "adaptor.d": (1,),
    }
    save_file({name: np.zeros(shape, np.float16) for name, shape in tensors.items()}, folder / "model.safetensors")
    (folder / "config.json").write_text("{}")
    return folder


@pytest.fixture
def questions(tmp_path: Path) -> Path:
    folder = tmp_path / "questions"
    folder.mkdir()
    header = {"name": "questions", "sample_rate": 16000, "complete": True}
    header["counts"] = {"clips": 3, "failed": 1, "hours": 1.5}
    (folder / "dataset.json").write_text(json.dumps(header))
    voices = ("espeak:en-us+f1", "flite:rms", "flite:slt")
    lines = [json.dumps({"id": str(i), "voice": voice, "samples": 16000}) for i, voice in enumerate(voices)]
    (folder / "shard-00000.jsonl").write_text("\n".join(lines) + "\n")
    (folder / "shard-00000.failed.jsonl").write_text('{"id": "x"}\n')
    return folder


@pytest.fixture
def recordings(tmp_path: Path) -> Path:
    folder = tmp_path / "people"
    folder.mkdir()
    header = {"name": "recordings-train", "sample_rate": 16000, "complete": True}
    header["counts"] = {"clips": 2, "failed": 0, "hours": 0.05}
    (folder / "dataset.json").write_text(json.dumps(header))
    meta = {"set": "fsdd", "licence": "CC BY-SA 4.0", "source": "github:a/b", "voice": "fsdd:george"}
    lines = [json.dumps(meta | {"id": i, "samples": 16000 * 90}) for i in range(2)]
    (folder / "shard-00000.jsonl").write_text("\n".join(lines) + "\n")
    return folder


@pytest.fixture
def run(tmp_path: Path) -> Path:
    folder = tmp_path / "asr"
    folder.mkdir()
    recipe = {
        "stage": "asr_pretrain",
        "start": ["encoder=/home/me/runs/x"],
        "learn": ["encoder"],
        "data": ["work/questions"],
    }
    recipe |= {"steps": 400, "batch_size": 32, "lr": 0.002, "precision": "bf16"}
    (folder / "recipe.json").write_text(json.dumps(recipe))
    # an hour each hundred steps, and a night's pause before the last
    times = [0.0, HOUR, 2 * HOUR, 12 * HOUR]
    lines = [json.dumps({"step": 100 * (i + 1), "time": time, "loss": 4.0 - i}) for i, time in enumerate(times)]
    (folder / "figures.jsonl").write_text("\n".join(lines) + "\n")
    return folder


def cells(card: str, start: str) -> list[str]:
    """The cells of the table row that starts with a cell."""
    rows = [line for line in card.splitlines() if line.startswith(f"| {start} |")]
    assert len(rows) == 1, (start, rows)
    return [cell.strip() for cell in rows[0].strip("|").split("|")]


def test_the_card_says_what_the_files_say(checkpoint, questions, recordings, run, tmp_path):
    (tmp_path / "report.json").write_text(json.dumps(report(digest(checkpoint))))
    log = tmp_path / "acceptance.jsonl"
    command = [str(checkpoint), "--data", str(questions), "--data", str(recordings), "--run", f"{run}@two cores"]
    command += ["--report", str(tmp_path / "report.json"), "--log", str(log), "--accept", "first look"]
    size = folder_mib(checkpoint)
    main(command)
    card = (checkpoint / "README.md").read_text()
    main(command)
    assert (checkpoint / "README.md").read_text() == card and folder_mib(checkpoint) == size
    assert card.startswith("---\nlicense: apache-2.0\n") and "\n# small\n" in card
    headings = [line[3:] for line in card.splitlines() if line.startswith("## ")]
    assert headings == [
        "Use", "Sizes", "Data", "Training", "Evaluation", "Acceptance runs", "Limits", "Licence"
    ]  # fmt: skip
    assert "/home/me" not in card and str(tmp_path) not in card
    assert card.index("| encoder |") < card.index("| adaptor |") < card.index("| llm |") < card.index("| vocoder |")
    assert cells(card, "llm")[2] == "107" and "| **all** |  | **131** |" in card
    assert cells(card, "questions") == ["questions", "questions", "3", "1.50", "3", "1"]
    assert cells(card, "fsdd") == ["fsdd", "people", "2", "3.0", "CC BY-SA 4.0", "github:a/b"]
    assert "espeak-ng" in card and "flite" in card and "by espeak-ng" in card and "festival (" not in card
    stage = cells(card, "asr_pretrain")
    assert stage == [
        "asr_pretrain", "encoder", "encoder of x", "400", "32", "0.002", "bf16", "4.0", "two cores"
    ]  # fmt: skip
    assert "asr_pretrain: loss 1" in card
    assert "share-alike" in card
    assert "Of 300 spoken questions it answered 70.0 % right, 60.0 % as heard in its own speech" in card
    assert "123 ms at the median, 234 ms at the 95th percentile, 346 ms at most" in card
    assert "word error rate 21.0 % over 290 replies; the synthesiser it learnt from 15.0 %" in card
    assert cells(card, "1")[2:5] == ["300 in flite:awb, flite:slt", "70.0 %", "60.0 %"]
    assert cells(card, "1")[-1] == "first look" and digest(checkpoint) in card


def test_a_voice_that_training_heard_is_marked_and_the_weakest_category_comes_first(questions):
    section = evaluation_section(report(), frozenset(data_facts(questions).voices))
    assert cells(section, "flite:slt")[1] == "yes" and cells(section, "flite:awb")[1] == "no"
    assert section.index("| spelling |") < section.index("| arithmetic |")
    assert "never trained on" in section and "Some Processor, 2 cores, 2 threads" in section
    train = report()
    train["settings"]["split"] = "train"
    assert "may occur in the training data" in evaluation_section(train, frozenset())


def test_what_no_file_says_is_named():
    card = render(CardFacts(name="bare", parts=(), file_mib=0.0))
    assert "This checkpoint has not been measured." in card
    for heading in ("Data", "Training"):
        assert f"## {heading}\n\nNot recorded." in card
    assert "## Evaluation\n\nNot measured." in card and "## Acceptance runs\n\nNone so far." in card
    silent = report(
        overall=scores(0, None),
        by_voice={},
        by_category={},
        reply_speech={"replies": 0, "words": 0, "wer": None, "synthesiser_wer": None, "difference": None},
        compute_delay_ms={"p50": None, "p95": None, "max": None},
        peak_rss_mib=None,
        failed=7,
    )
    section = evaluation_section(silent, frozenset())
    assert section.count("not measured") >= 6 and "7 questions could not be synthesised" in section


def test_a_report_about_other_weights_is_refused(checkpoint, tmp_path):
    (tmp_path / "report.json").write_text(json.dumps(report("0" * 64)))
    with pytest.raises(DuologueError, match=f"is about the weights 000000000000, not {digest(checkpoint)}"):
        collect(checkpoint, report=tmp_path / "report.json")
    (tmp_path / "report.json").write_text(json.dumps({"settings": {"voices": []}}))
    with pytest.raises(DuologueError, match=r"the report has no settings\.split"):
        collect(checkpoint, report=tmp_path / "report.json")


def test_every_look_is_counted_once(tmp_path):
    log = tmp_path / "log.jsonl"
    first = AcceptanceRun(weights="aaa", metrics=summary(report()), note="one")
    assert log_acceptance(log, first) == 1 and log_acceptance(log, first) == 1
    assert log_acceptance(log, AcceptanceRun(weights="bbb", metrics=summary(report()))) == 2
    assert log_acceptance(log, AcceptanceRun(weights="aaa", metrics=summary(report(overall=scores(9, 0.5))))) == 3
    assert [run.weights for run in read_acceptance(log)] == ["aaa", "bbb", "aaa"]
    log.write_text('{"weights": "a", "what": 1}\n')
    with pytest.raises(DuologueError, match="is not a log of acceptance runs"):
        read_acceptance(log)


def test_an_unfinished_data_set_and_an_untrained_run_are_refused(questions, run):
    header = json.loads((questions / "dataset.json").read_text())
    (questions / "dataset.json").write_text(json.dumps(header | {"complete": False}))
    with pytest.raises(DuologueError, match="is not finished"):
        data_facts(questions)
    (run / "figures.jsonl").unlink()
    with pytest.raises(DuologueError, match="has not been trained"):
        stage_facts(run)
    with pytest.raises(DuologueError, match="no such file"):
        stage_facts(run / "nowhere")


def test_an_unfinished_run_shows_its_steps_and_one_save_tells_no_hours(run):
    lines = (run / "figures.jsonl").read_text().splitlines()
    (run / "figures.jsonl").write_text(lines[0] + "\n")
    facts = stage_facts(run)
    assert (facts.steps, facts.planned, facts.hours) == (100, 400, None)
    card = render(CardFacts(name="n", parts=(), file_mib=0.0, stages=(facts,)))
    assert cells(card, "asr_pretrain")[3] == "100 of 400" and cells(card, "asr_pretrain")[7] == "not recorded"
    assert "How long training took is not recorded." in card
    two = render(CardFacts(name="n", parts=(), file_mib=0.0, stages=(facts, replace(facts, hours=1.5))))
    assert "Training took 1.5 hours in all, 1 of 2 stages not counted." in two


def test_sizes_are_those_of_the_weights(checkpoint):
    assert {part.name: part.parameters for part in part_facts(checkpoint)} == {
        "adaptor": 1, "encoder": 15, "llm": 107, "vocoder": 8
    }  # fmt: skip


def test_intervals_are_wilsons():
    assert interval(0.6, 300) == "60.0 % (54 to 65)"
    assert interval(1.0, 10) == "100.0 % (72 to 100)" and interval(0.0, 10) == "0.0 % (0 to 28)"
    assert interval(None, 10) == interval(0.5, 0) == "not measured"


def test_tables_hold_any_text():
    assert table(("a", "b"), [("x|y", "1\n2")], (1,)) == "| a | b |\n|---|---:|\n| x\\|y | 1 2 |"


def test_ingredients_and_further_figures_are_tables_of_their_own(checkpoint, tmp_path):
    ingredients, further = tmp_path / "ingredients.jsonl", tmp_path / "further.jsonl"
    ingredients.write_text('{"ingredient": "salt", "measure": "taste", "without": "3", "with": "5"}\n')
    further.write_text('{"measure": "digits", "figure": "80 %", "command": "duologue evaluate"}\n')
    main([str(checkpoint), "--ingredients", str(ingredients), "--further", str(further)])
    card = (checkpoint / "README.md").read_text()
    assert cells(card, "salt") == ["salt", "taste", "3", "5"] and cells(card, "digits")[1:] == [
        "80 %",
        "duologue evaluate",
    ]
    assert (
        card.index("## Further figures") < card.index("## What each large ingredient brings") < card.index("## Accept")
    )
    further.write_text('{"measure": "digits", "number": "80 %"}\n')
    with pytest.raises(
        DuologueError, match=r"further\.jsonl, line 1: the fields are measure, number; expected measure"
    ):
        main([str(checkpoint), "--further", str(further)])
    with pytest.raises(DuologueError, match="no file"):
        main([str(checkpoint), "--ingredients", str(tmp_path / "none.jsonl")])


def test_a_model_trained_on_carries_what_the_one_before_was_made_of(checkpoint, questions, recordings, run, tmp_path):
    """Its data and stages come first, each once, and the hours are those of both."""
    before, after = tmp_path / "before.md", tmp_path / "after.md"
    main([str(checkpoint), "--data", str(questions), "--data", str(recordings), "--run", f"{run}@a laptop"])
    (checkpoint / "README.md").rename(before)
    more, further = tmp_path / "more", tmp_path / "further"
    shutil.copytree(questions, more)
    shutil.copytree(run, further)
    (more / "shard-00000.jsonl").write_text(json.dumps({"id": "0", "voice": "espeak:en", "samples": 16000}) + "\n")
    (further / "recipe.json").write_text((run / "recipe.json").read_text().replace("asr_pretrain", "duplex"))
    given = [str(checkpoint), "--data", str(more), "--data", str(questions), "--run", f"{further}@a server"]
    main([*given, "--before", str(before)])
    (checkpoint / "README.md").rename(after)
    old, new = before.read_text(), after.read_text()
    assert [cells(new, name)[2] for name in ("questions", "people", "more", "fsdd")] == ["3", "2", "3", "2"]
    assert new.index("| questions |") < new.index("| people |") < new.index("| more |")
    assert cells(new, "asr_pretrain") == cells(old, "asr_pretrain") and cells(new, "duplex")[-1] == "a server"
    assert "Training took 4.0 hours in all." in old and "Training took 8.0 hours in all." in new
    assert "- asr_pretrain: loss 1" in new and "- duplex: loss 1" in new
    assert "by espeak-ng (formant synthesis, GPL-3.0-or-later program) and flite (BSD-style licence)." in new
    assert "share-alike" in new.split("## Licence")[1]
    for section in ("Use", "Sizes", "Evaluation", "Limits"):
        assert new.split(f"## {section}")[1].split("##")[0] == old.split(f"## {section}")[1].split("##")[0]

    main([*given, "--before", str(after)])  # said again it is the same, but for the hours of what was trained
    again = (checkpoint / "README.md").read_text()
    assert again.replace("12.0 hours", "8.0 hours") == new
    with pytest.raises(DuologueError, match="has no section Data"):
        main([*given, "--before", str(questions / "dataset.json")])
    with pytest.raises(DuologueError, match=r"no such file: .*nowhere"):
        main([*given, "--before", str(tmp_path / "nowhere")])
    assert (checkpoint / "README.md").read_text() == again
    main([str(checkpoint), "--before", str(before)])  # nothing of its own
    assert (checkpoint / "README.md").read_text() == old
