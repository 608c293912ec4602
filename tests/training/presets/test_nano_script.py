"""The script that rebuilds nano gives every command keys that it knows, and what it needs is made before."""

import os
import subprocess
from pathlib import Path

import pytest

from duologue.checkpoints.cards.collect import CardConfig
from duologue.checkpoints.settings import read_settings
from duologue.data_prep.prepare import RECIPES
from duologue.training.main import RECIPES as STAGES
from duologue.training.main import resolve

ROOT = Path(__file__).resolve().parent.parent.parent.parent
SCRIPT = ROOT / "training" / "presets" / "nano.sh"

# Stands in for Python: writes down what it was asked to do, and leaves behind what the script looks for.
FAKE = """#!/usr/bin/env bash
if [[ $1 == -c ]]; then echo 5000; exit; fi  # the steps of a recipe
printf '%s\\t' "${{@:2}}" >> {log}; echo >> {log}
for word in "$@"; do
    if [[ $3 == prepare && $word == out=* ]]; then
        mkdir -p "${{word#out=}}"; echo '{{"complete": true}}' > "${{word#out=}}/dataset.json"
    fi
    if [[ $3 == prepare && $4 == units && $word == data=* ]]; then touch "${{word#data=}}/units.jsonl"; fi
done
if [[ $3 == assemble ]]; then mkdir -p "$4"; echo weights > "$4/model.safetensors"; fi
if [[ $3 == card ]]; then echo "$@" >> "$4/card.json"; fi
"""

# stages that nano does not come of
OTHERS = {"codec", "ssl", "probe", "manner", "ctc_adaptor", "mwer", "dpo", "reward", "distil"}
NANO_STAGES = STAGES.first_lines().keys() - OTHERS


@pytest.fixture
def script(tmp_path: Path):
    log, fake = tmp_path / "log", tmp_path / "python"
    fake.write_text(FAKE.format(log=log))
    fake.chmod(0o755)

    def run(*arguments: str, **variables: str) -> list[list[str]]:
        places = {name: str(tmp_path / name.lower()) for name in ("WORK", "RUNS", "OUT", "LIKE")}
        own = {"RECORDINGS": ""}  # whoever runs the tests may have some
        environment = os.environ | own | places | {"PYTHON": str(fake)} | variables
        log.unlink(missing_ok=True)
        done = subprocess.run(
            ["bash", str(SCRIPT), *arguments], env=environment, capture_output=True, text=True, timeout=60, check=False
        )
        if done.returncode:
            raise RuntimeError(f"{done.returncode}: {done.stderr}")
        return [line.split("\t")[:-1] for line in log.read_text().splitlines()] if log.exists() else []

    return run


def mixed(entry: str) -> list[str]:
    """The folders in part=folder or part=0.3*folder+0.7*folder."""
    return [each.rpartition("*")[2] for each in entry.partition("=")[2].split("+")]


def test_every_command_is_one_that_the_package_knows(script):
    commands = script(RECORDINGS="/recordings", SCALE="0.01", TTS="cat {text} {wav}")
    made: set[str] = set()
    for program, command, *words in commands:
        keys = dict(word.split("=", 1) for word in words if "=" in word and not word.startswith("-"))
        if command == "prepare" and words[0] == "units":
            assert keys["data"] in made
        elif command == "prepare":
            config = RECIPES.module(words[0]).Config
            assert keys.get("source", "/recordings") in made | {"/recordings"}
            made.add(read_settings(config, words[1:], words[0]).out)
        elif command == "train":
            recipe = resolve(words[0], words[1:])
            less = {"duplex_a": 12, "duplex_b": 12, "words": 6, "duplex_c": 4, "monitor": 3}
            assert recipe.steps == less.get(Path(recipe.out).name, 50)
            for folder in (*getattr(recipe, "data", ()), *getattr(recipe, "dev_data", ())):
                assert folder in made, folder
            assert {folder for entry in recipe.start for folder in mixed(entry)} <= made
            made.add(recipe.out)
        elif command == "assemble":
            assert {folder for word in words[1:] for folder in mixed(word)} <= made
            made.add(words[0])
        elif command == "card":
            card = read_settings(CardConfig, [f"folder={words[0]}", *words[1:]], "card")
            assert {str(path) for path in (card.folder, *card.data, *card.runs)} <= made
            assert bool(card.reports) == (card.accept is not None) != bool(card.data)
        else:
            assert (program, command) == ("duologue", "evaluate")
    stages = [words[0] for _, command, *words in commands if command == "train"]
    assert set(stages) == NANO_STAGES
    assert any(word.startswith("tts_command=cat") for words in commands for word in words)
    assert any("recordings_train" in word for words in commands for word in words)


def test_it_does_without_people(script):
    commands = script()
    assert not any("recordings" in word or "noises" in word for words in commands for word in words)
    stated = {"steps=1200", "steps=600", "steps=400", "steps=300"}  # the others have the recipe's own
    own = [words for words in commands if not stated & {*words}]
    assert len(commands) - len(own) == 5
    assert not any(word.startswith("steps=") for words in own for word in words)


def test_it_stops_where_told_and_goes_on_from_there(script):
    first = script("data")
    assert {words[1] for words in first} == {"prepare"}
    rest = script("checkpoint")
    assert "prepare" not in {words[1] for words in rest} and rest[-1][1] == "card"
    assert [words[1] for words in script("stages")] == ["train"] * (len(NANO_STAGES) + 5)


def test_what_was_spoken_elsewhere_is_trained_on_where_nothing_speaks(script):
    script("data", TTS="cat {text} {wav}", DUOLOGUE_KOKORO="/kokoro")
    heard = next(word for words in script("stages") for word in words if word.startswith("data="))
    assert {f"questions{n}" for n in (13, 17, 18)} <= {folder.rsplit("/", 1)[1] for folder in heard.split(",")}


def test_an_unknown_step_is_refused(script):
    with pytest.raises(RuntimeError, match=r"^2: .*there is no step all"):
        script("all")
