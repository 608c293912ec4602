"""A card says what data sets, runs and reports say, keeps it in card.json, and is written from that alone."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from safetensors.numpy import save_file

from duologue.checkpoints.cards.collect import CardConfig, data_facts, run, stage_facts
from duologue.checkpoints.cards.facts import Card, digest, part_facts, read_card
from duologue.checkpoints.cards.markdown import table
from duologue.checkpoints.cards.render import render, write_card
from duologue.model.errors import DuologueError

HOUR = 3600.0
BUNDLED = Path(__file__).resolve().parents[3] / "checkpoints"


def save_weights(folder: Path, **shapes: tuple[int, ...]) -> Path:
    folder.mkdir(exist_ok=True)
    tensors = {name.replace("__", "."): np.full(shape, 0.5, np.float16) for name, shape in shapes.items()}
    save_file(tensors, folder / "model.safetensors")
    (folder / "config.json").write_text("{}")
    return folder


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    return save_weights(tmp_path / "small", encoder__a=(3, 5), llm__lm__weight=(10, 10), llm__b=(7,), vocoder__c=(2, 4))


def prepared(folder: Path, kind: str, rows: list[dict[str, Any]], **counts: Any) -> Path:
    folder.mkdir()
    header = {"name": kind, "sample_rate": 16000, "complete": True, "counts": {"failed": 0, **counts}}
    (folder / "dataset.json").write_text(json.dumps(header))
    (folder / "shard-00000.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "shard-00000.failed.jsonl").write_text('{"id": "x"}\n')
    return folder


@pytest.fixture
def questions(tmp_path: Path) -> Path:
    rows = [{"voice": voice, "samples": 16000} for voice in ("espeak:en-us+f1", "flite:rms", "flite:slt")]
    return prepared(tmp_path / "questions", "questions", rows, clips=3, failed=1, hours=1.5)


@pytest.fixture
def recordings(tmp_path: Path) -> Path:
    row = {"set": "fsdd", "licence": "CC BY-SA 4.0", "source": "github:a/b", "voice": "fsdd:george"}
    rows = [row | {"samples": 16000 * 90}] * 2
    rows[1] = {name: value for name, value in rows[1].items() if name != "source"}  # nobody says where it is from
    return prepared(tmp_path / "people", "recordings-train", rows, clips=2, hours=0.05)


@pytest.fixture
def trained(tmp_path: Path) -> Path:
    folder = tmp_path / "asr"
    folder.mkdir()
    recipe = {
        "stage": "asr_pretrain", "start": ["encoder=0.3*/home/me/x+0.7*/home/me/y"], "learn": ["encoder"],
        "data": ["work/questions"], "steps": 400, "batch_size": 32, "lr": 0.002, "precision": "bf16",
    }  # fmt: skip
    (folder / "recipe.json").write_text(json.dumps(recipe))
    times = [0.0, HOUR, 2 * HOUR, 12 * HOUR]  # an hour for 100 steps, and a night's pause before the last
    rows = [{"step": 100 * (i + 1), "time": time, "loss": 4.0 - i} for i, time in enumerate(times)]
    (folder / "figures.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def scores(questions: int, right: float | None) -> dict[str, Any]:
    return {"questions": questions, "right": right, "transcript_wer": 0.125, "transcript_exact": 0.5}


def metric(key: str, value: float | None, unit: str = "", spread: float = 0.05) -> dict[str, Any]:
    ends = {"low": None if value is None else value - spread, "high": None if value is None else value + spread}
    return {"id": key, "name": key.upper(), "unit": unit, "better": "higher", "value": value, "count": 300, **ends}


def report(path: Path, sha256: str | None, **settings: Any) -> Path:
    found = {
        "settings": {"suite": "s2s", "voices": ["flite:awb", "flite:slt"], "seed": 0, "recogniser": None,
                     "model": {"name": "/home/me/x", "sha256": sha256}, "data": "/home/me/pairs", **settings},
        "metrics": [metric("right", 0.7, "%"), metric("transcript_wer", 0.125, "%"), metric("delay", 123.4, "ms", 9)],
        "figures": {
            "by_voice": {"flite:slt": scores(150, 0.8), "flite:awb": scores(150, 0.6)},
            "by_category": {"arithmetic": scores(200, 0.9), "spelling": scores(100, 0.3), "none": scores(0, None)},
            "by_kind": {"noise": 0.5}, "by_voice_and_category": {"flite:slt": {"spelling": scores(1, 1.0)}},
            "overall": scores(300, 0.7) | {"right_macro": 0.6}, "peak_rss_mib": 812.0,
            "codebooks": [{"codebook": 0, "tokens": 40000, "used": 3456, "perplexity": 1234.5, "utilisation": 0.84375}],
        },
        "parts": {"easy": [metric("right", 0.9, "%")], "hard": [metric("right", 0.5, "%"), metric("delay", None)]},
        "environment": {"processor": "Some Processor", "cores": 2, "torch_threads": 2},
    }  # fmt: skip
    path.write_text(json.dumps(found))
    return path


def cells(card: str, start: str) -> list[str]:
    """The cells of the table row that starts with a cell."""
    rows = [line for line in card.splitlines() if line.startswith(f"| {start} |")]
    assert len(rows) == 1, (start, rows)
    return [cell.strip() for cell in rows[0].strip("|").split("|")]


def card_of(folder: Path, **settings: Any) -> str:
    run(CardConfig(folder=folder, **settings))
    return (folder / "README.md").read_text(encoding="utf-8")


def test_a_card_says_what_its_sources_say(checkpoint, questions, recordings, trained, tmp_path):
    found = report(tmp_path / "report.json", digest(checkpoint))
    given = {"data": (questions, recordings), "runs": (trained,), "machine": "two cores", "reports": (found,),
             "accept": "first look", "licence": "Apache-2.0"}  # fmt: skip
    card = card_of(checkpoint, **given)
    facts = (checkpoint / "card.json").read_text()
    assert card_of(checkpoint, **given) == card_of(checkpoint) == card, "what is there is not added again"
    assert (checkpoint / "card.json").read_text() == facts and "/home/me" not in facts and str(tmp_path) not in facts
    headings = [line[3:] for line in card.splitlines() if line.startswith("## ")]
    assert headings == ["Parts", "Training data", "Training", "Evaluation: s2s", "Acceptance runs", "Licence"]
    assert card.index("| encoder |") < card.index("| llm |") < card.index("| vocoder |")
    assert cells(card, "llm")[2] == "107" and cells(card, r"**all**")[2] == "**130**"
    assert cells(card, "questions") == ["questions", "questions", "3", "1.50", "3", "1"]
    assert cells(card, "fsdd") == ["fsdd", "people", "2", "3.0", "CC BY-SA 4.0", "github:a/b"]
    assert "by espeak-ng (formant synthesis, GPL-3.0-or-later program) and flite (BSD-style licence)." in card
    assert cells(card, "asr_pretrain") == [
        "asr_pretrain", "encoder", "encoder of x and y", "400", "32", "0.002", "bf16", "4.0", "two cores"
    ]  # fmt: skip
    assert "- asr_pretrain: loss 1\n" in card and "Training took 4.0 hours in all." in card
    assert "under Apache-2.0. Some of the recordings above are under share-alike licences" in card
    assert "Measured (s2s): RIGHT 70.0 % (65 to 75); TRANSCRIPT_WER 12.5 % (8 to 18); DELAY 123 ms (114 to 1" in card
    assert "Not recorded" not in card
    row = cells(card, "1")
    assert row[1] == digest(checkpoint) and "flite:awb, flite:slt" in row[2] and "70.0 %" in row[3]
    assert row[-1] == "first look"


def test_an_evaluation_by_voice_category_part_and_codebook(checkpoint, questions, tmp_path):
    card = card_of(checkpoint, data=(questions,), reports=(report(tmp_path / "r.json", digest(checkpoint)),))
    assert "data: pairs" in card and "Measured on Some Processor, 2 cores, 2 threads." in card
    assert "Of these voices the training data have flite:slt." in card
    recordings = report(tmp_path / "of_recordings.json", digest(checkpoint), voices=None)
    assert "Of these voices" not in card_of(checkpoint, data=(questions,), reports=(recordings,))
    assert card.index("| none |") < card.index("| spelling |") < card.index("| arithmetic |"), "the weakest first"
    assert cells(card, "flite:awb") == ["flite:awb", "150", "60.0 % (52 to 67)", "12.5 %"], "Wilson's interval"
    assert cells(card, "none")[2] == "not measured" and cells(card, "peak rss mib")[1] == "812"
    assert cells(card, "hard")[2:] == ["50.0 % (45 to 55)", "not measured"] and cells(card, "easy")[3] == "not measured"
    assert cells(card, "0") == ["0", "", "40,000", "3,456", "1,234", "84.4 %"]
    assert cells(card, "right macro")[1] == "0.6"


@pytest.mark.parametrize(("low", "high", "value"), [(0.72246, 1.0, 1.0), (0.0, 0.27754, 0.0)])
def test_an_interval_stays_within_0_and_1(checkpoint, tmp_path, low, high, value):
    path = report(tmp_path / "r.json", digest(checkpoint))
    found = json.loads(path.read_text())
    found["figures"]["by_voice"] = {"flite:slt": scores(10, value)}
    path.write_text(json.dumps(found))
    card = run(CardConfig(folder=checkpoint, reports=(path,)))
    (right, *_) = card.evaluations[0].parts["voice"]["flite:slt"]
    assert right.low == pytest.approx(low, abs=1e-5) and right.high == pytest.approx(high, abs=1e-5)


def test_a_report_must_be_one_about_these_weights(checkpoint, tmp_path):
    for sha256, named in (("0" * 64, "0" * 12), (None, "unknown")):
        with pytest.raises(DuologueError, match=f"is about the weights {named}, not {digest(checkpoint)}"):
            run(CardConfig(folder=checkpoint, reports=(report(tmp_path / "r.json", sha256),)))
    (tmp_path / "r.json").write_text('{"settings": {}}')
    with pytest.raises(DuologueError, match="no report of duologue evaluate: it has no metrics"):
        run(CardConfig(folder=checkpoint, reports=(tmp_path / "r.json",)))
    with pytest.raises(DuologueError, match="has no voicing_f1, as a card must"):
        run(CardConfig(folder=checkpoint, reports=(report(tmp_path / "r.json", digest(checkpoint), suite="codec"),)))
    with pytest.raises(DuologueError, match=r"give reports=…"):
        CardConfig(folder=checkpoint, accept="a look")
    assert not (checkpoint / "card.json").exists()


def test_every_look_at_the_acceptance_questions_is_counted_once(checkpoint, tmp_path):
    found = report(tmp_path / "r.json", digest(checkpoint))
    for note, count in (("one", 1), ("one", 1), ("again", 1)):
        assert len(run(CardConfig(folder=checkpoint, reports=(found,), accept=note)).acceptance) == count
    run(CardConfig(folder=checkpoint, reports=(report(found, digest(checkpoint), seed=1),), accept="another seed"))
    first = read_card(checkpoint)
    assert [one.note for one in first.acceptance] == ["one", "another seed"]

    save_weights(checkpoint, encoder__a=(4, 4))  # other weights: what was measured is not of them, the looks stay
    assert not run(CardConfig(folder=checkpoint)).evaluations and read_card(checkpoint).acceptance == first.acceptance

    other = save_weights(tmp_path / "other", encoder__a=(4, 4), llm__b=(1,))
    write_card(checkpoint, replace(first, summary="It hears.", limits=("It errs.",)))
    card = card_of(other, like=str(checkpoint), reports=(report(found, digest(other)),), accept="the other")
    assert [one.note for one in read_card(other).acceptance] == ["one", "another seed", "the other"]
    assert "# other\n\nIt hears." in card and "- It errs." in card and cells(card, "3")[1] == digest(other)


def test_a_model_trained_further_has_the_data_and_stages_of_the_one_before(
    checkpoint, questions, recordings, trained, tmp_path
):
    before = card_of(checkpoint, data=(questions, recordings), runs=(trained,), machine="a laptop")
    later = save_weights(tmp_path / "later", encoder__a=(1, 1), llm__b=(1,))
    more, duplex = tmp_path / "more", tmp_path / "duplex"
    prepared(more, "questions", [{"voice": "pico:en-US", "samples": 1}], clips=1, hours=0.1)
    shutil.copytree(trained, duplex)
    (duplex / "recipe.json").write_text((trained / "recipe.json").read_text().replace("asr_pretrain", "duplex"))
    given = {"data": (more, questions), "runs": (duplex,), "machine": "a server", "before": str(checkpoint)}
    card = card_of(later, **given)
    assert [cells(card, name)[2] for name in ("questions", "people", "more", "fsdd")] == ["3", "2", "1", "2"]
    assert card.index("| questions |") < card.index("| people |") < card.index("| more |")
    assert cells(card, "asr_pretrain") == cells(before, "asr_pretrain") and cells(card, "duplex")[-1] == "a server"
    assert "Training took 8.0 hours in all." in card and "SVOX Pico" in card and "espeak-ng" in card
    assert card_of(later, **given) == card


def test_a_checkpoint_of_before_is_told_what_to_do(checkpoint, tmp_path):
    (checkpoint / "README.md").write_text("# Mine\n")
    other = save_weights(tmp_path / "other", encoder__a=(1, 1), llm__b=(1,))
    for config in (
        CardConfig(folder=checkpoint), CardConfig(folder=other, before=str(checkpoint)),
        CardConfig(folder=other, like=str(checkpoint)),
    ):  # fmt: skip
        with pytest.raises(DuologueError, match=r"has a README\.md but no card\.json.*: rename its README\.md, then"):
            run(config)
    assert (checkpoint / "README.md").read_text() == "# Mine\n"
    (checkpoint / "README.md").rename(checkpoint / "old.md")
    assert "Not recorded: training data, training, evaluation, licence." in card_of(checkpoint)


def test_facts_that_are_wrong_are_refused(checkpoint, questions, trained, tmp_path):
    for text, said in (
        ('{"format": "other/2"}', "has format 'other/2'; this version reads 'duologue-card/1'"),
        ('{"format": "duologue-card/1", "colour": "red"}', r"card\.json: config: unknown field 'colour'"),
        ('{"format": "duologue-card/1", "tags": "one"}', "tags is 'one'"),
    ):
        (checkpoint / "card.json").write_text(text)
        with pytest.raises(DuologueError, match=said):
            run(CardConfig(folder=checkpoint))
    with pytest.raises(DuologueError, match=r"is no checkpoint: it has no model\.safetensors"):
        run(CardConfig(folder=tmp_path / "nowhere"))
    header = json.loads((questions / "dataset.json").read_text())
    (questions / "dataset.json").write_text(json.dumps(header | {"complete": False}))
    with pytest.raises(DuologueError, match="is not finished"):
        data_facts(questions)
    (trained / "figures.jsonl").unlink()
    with pytest.raises(DuologueError, match="has not been trained"):
        stage_facts(trained)
    (checkpoint / "model.safetensors").write_bytes(b"\x05\0\0\0\0\0\0\0hello")
    with pytest.raises(DuologueError, match="is not a file of safetensors"):
        part_facts(checkpoint)


def test_hours_of_a_run_with_one_save_are_not_recorded(trained):
    rows = (trained / "figures.jsonl").read_text().splitlines()
    (trained / "figures.jsonl").write_text(rows[0] + "\n")
    once = stage_facts(trained)
    assert once.hours is None and (once.steps, once.planned) == (100, 400)
    card = render(Card(stages=(once, replace(once, hours=1.5))))
    assert "| 100 of 400 |" in card and "Training took 1.5 hours in all, 1 of 2 stages not counted." in card
    assert "How long training took is not recorded." in render(Card(stages=(once,)))


def test_a_card_written_by_hand(checkpoint):
    facts = {
        "format": "duologue-card/1", "name": "mine", "summary": "It answers.", "example": "duologue ask -m mine",
        "tables": [{"title": "Ablations", "note": "", "columns": ["change", "WER"], "rows": [["a|b", "5 %"]]}],
        "tags": ["a: b", "'c'"], "licence": "CC-BY-4.0", "source": "`x.pt`",
    }  # fmt: skip
    (checkpoint / "card.json").write_text(json.dumps(facts))
    card = card_of(checkpoint, language="en")
    head = yaml.safe_load(card.split("---\n")[1])
    assert head == {"license": "cc-by-4.0", "language": "en", "library_name": "duologue", "tags": ["a: b", "'c'"]}
    assert "# mine\n\nIt answers.\n\nConverted from `x.pt`;" in card and "```sh\nduologue ask -m mine\n```" in card
    assert "## Ablations\n\n| change | WER |\n|---|---|\n| a\\|b | 5 % |\n" in card
    assert read_card(checkpoint).language == "en"


def test_parts_are_known_by_their_tensors(checkpoint, tmp_path):
    parts = {part.name: part for part in part_facts(checkpoint)}
    assert {name: part.parameters for name, part in parts.items()} == {"encoder": 15, "llm": 107, "vocoder": 8}
    other = save_weights(tmp_path / "other", vocoder__c=(2, 4), encoder__a=(5, 3), encoder__b=(1,))
    same = {part.name: part.sha256 == parts[part.name].sha256 for part in part_facts(other)}
    assert same == {"encoder": False, "vocoder": True}
    codec = save_weights(tmp_path / "codec", codec__encoder__a=(2,), codec__decoder__a=(3,))
    assert {part.name: part.parameters for part in part_facts(codec)} == {"codec.encoder": 2, "codec.decoder": 3}


@pytest.mark.parametrize("name", ["nano", "nano-codec"])
def test_the_bundled_cards_are_those_of_their_facts_and_weights(name):
    folder = BUNDLED / name
    card, text = read_card(folder), (folder / "README.md").read_text(encoding="utf-8")
    assert render(card) == text and (card.name, card.weights) == (name, digest(folder))
    assert card.parts == part_facts(folder) and "Not recorded" not in text
    assert all(one.weights == card.weights for one in card.evaluations)
    assert yaml.safe_load(text.split("---\n")[1])["license"] == "apache-2.0"


def test_tables_hold_any_text():
    assert table(("a", "b"), [("x|y", "1\n2")], (1,)) == "| a | b |\n|---|---:|\n| x\\|y | 1 2 |"
