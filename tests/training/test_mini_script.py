"""The script that makes mini gives every command keys that it knows, and what it needs is made before."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from any_model import tiny_llm, tiny_whisper

from duologue.checkpoints.cards.collect import CardConfig
from duologue.checkpoints.settings import read_settings, settings_of
from duologue.data_prep.prepare import RECIPES
from duologue.inference.evaluation.main import OPTIONS
from duologue.inference.evaluation.suites import asr, duplex, latency, s2s
from duologue.training import assemble, grow
from duologue.training.main import resolve

SCRIPT = Path(__file__).resolve().parents[2] / "training" / "mini.sh"
STAGES = (
    "questions", "q.tsv", "answers", "speech", "adaptor", "replies", "voice", "monitor", "assemble", "figures", "q.tsv"
)  # fmt: skip
SUITES = {"asr": asr.run, "s2s": s2s.run, "latency": latency.run, "duplex": duplex.run}
# Stands in for Python: writes down what it was asked to do, and leaves behind what the script looks for.
FAKE = """#!/usr/bin/env bash
printf '%s\\037' "${{@:2}}" >> {log}; printf '\\036' >> {log}  # a setting may have lines
for word in "$@"; do
    if [[ $3 == prepare && $word == out=*.jsonl ]]; then touch "${{word#out=}}"
    elif [[ $3 == prepare && $word == out=* ]]; then
        mkdir -p "${{word#out=}}"; echo '{{"complete": true}}' > "${{word#out=}}/dataset.json"
    elif [[ $3 == evaluate && $word == */figures/* ]]; then mkdir -p "$word"; touch "$word/report.json"
    elif [[ $3 == prepare && $4 == units && $word == data=* ]]; then touch "${{word#data=}}/units.jsonl"
    fi
done
if [[ $3 == lm ]]; then touch "$7"; fi
if [[ $3 == grow ]]; then mkdir -p "$4"; fi
if [[ $3 == import ]]; then mkdir -p "$6"; cp -r {parts}/"${{7#part=}}"/* "$6"; fi
"""
Run = Callable[..., list[list[str]]]


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("parts")
    Path(tiny_llm(folder)).rename(folder / "llm")
    Path(tiny_whisper(folder)).rename(folder / "encoder")
    return folder


@pytest.fixture
def script(tmp_path: Path, parts: Path) -> Run:
    log, fake = tmp_path / "log", tmp_path / "python"
    fake.write_text(FAKE.format(log=log, parts=parts))
    fake.chmod(0o755)

    def run(*stages: str, **variables: str) -> list[list[str]]:
        own = dict.fromkeys(("RECORDINGS", "RECOGNISER", "DUOLOGUE_KOKORO", "LEXICON"), "")  # whoever runs the tests
        environment = os.environ | own | {"PYTHON": str(fake), "BASE": "base.json"} | variables
        log.unlink(missing_ok=True)
        done = subprocess.run(
            ["bash", str(SCRIPT), str(tmp_path / "work"), *stages], env=environment, capture_output=True, text=True,
            timeout=60, check=False,
        )  # fmt: skip
        if done.returncode:
            raise RuntimeError(f"{done.returncode}: {done.stderr}")
        return [words.split("\x1f")[1:-1] for words in log.read_text().split("\x1e")[:-1]] if log.exists() else []

    return run


def test_every_command_is_one_that_the_package_knows(script: Run, tmp_path: Path) -> None:
    given = {"RECORDINGS": "people", "RECOGNISER": "whisper", "DUOLOGUE_KOKORO": "kokoro", "LEXICON": "names"}
    commands = script(*STAGES, SCALE="0.01", **given)
    made = {"q.tsv", "people", "nano"}
    assert any("swap=names" in words for words in commands)
    for command, name, *words in commands:
        if command == "prepare":
            config = read_settings(RECIPES.module(name).Config, words, name)
            assert {getattr(config, each) for each in ("source", "data", "llm") if hasattr(config, each)} <= made
            made |= {getattr(config, each) for each in ("out", "quantiser") if hasattr(config, each)}
        elif command == "import":
            made.add(words[1])
        elif command == "lm":
            assert (name, words[0], words[1]) == ("train", str(tmp_path / "work/questions.jsonl"), "-o")
            made.add(words[2])
        elif command == "grow":
            assert read_settings(grow.Config, words, command).vocoder == "nano"
            made.add(f"vocoder={name}")
        elif command == "train":
            reads = {word.partition("=")[0]: word.partition("=")[2].split(",") for word in words}
            for key in ("data", "dev_data", "noises", "llm", "encoder", "adaptor", "start"):
                assert set(reads.get(key, ())) <= made, (name, key)
            recipe = resolve(name, [word for word in words if not word.startswith("adaptor=")])
            assert recipe.steps == 20
            made.add(recipe.out)
        elif command == "evaluate":
            options = dict(zip(words[:6:2], words[1:6:2], strict=True))
            assert options.keys() == {"--model", "--data", "--output"} and options["--data"] in made
            read_settings(settings_of(SUITES[name], (*OPTIONS, "out", "quiet")), words[6:], name)
        elif command == "card":
            card = read_settings(CardConfig, [f"folder={name}", *words], command)
            assert [report.parent.name for report in card.reports] == [
                "asr-mini", "s2s-mini", "latency-mini", "duplex-mini"
            ]
        else:
            config = read_settings(assemble.Config, words, command)
            assert command == "assemble" and config.base == "base.json" and config.llm_dtype == "auto"
            assert {config.adaptor, config.monitor, config.unit_decoder, config.vocoder, config.lm} <= made
    assert [name for command, name, *_ in commands if command == "train"] == [
        "ctc_adaptor", "unit_decoder", "unit_vocoder", "duplex"
    ]  # fmt: skip
    assert len([name for command, name, *_ in commands if command == "import"]) == 2


def test_what_is_there_is_not_made_again(script: Run) -> None:
    """Nor is what nobody gave: people, a recogniser, Kokoro."""
    first = script(*STAGES, RECOGNISER="whisper")
    again = script(*STAGES, RECOGNISER="whisper")
    assert {words[0] for words in first} == {"prepare", "import", "grow", "train", "lm", "assemble", "evaluate", "card"}
    assert {words[0] for words in again} == {"train", "assemble", "card"}  # which know themselves what is left to do
    assert [words for words in first if words[0] == "train"] == [words for words in again if words[0] == "train"]
    spoken = [words for words in first if words[0] != "evaluate"]
    assert not any(word.startswith(("noises", "recogniser", "voices=neural")) for words in spoken for word in words)


def test_stages_that_cannot_be(script: Run) -> None:
    with pytest.raises(RuntimeError, match=r"^2: .*there is no stage song"):
        script("song")
    with pytest.raises(RuntimeError, match="answers needs BASE, a JSON file"):
        script("answers", BASE="")
    with pytest.raises(RuntimeError, match="questions needs a table"):
        script("questions")
    with pytest.raises(RuntimeError, match="figures needs RECOGNISER, a Whisper"):
        script("figures", "q.tsv")
    with pytest.raises(RuntimeError, match="which stage"):
        script()
