"""The script of two iterations gives every command keys that it knows, and each finds what it needs."""

import os
import subprocess
from pathlib import Path
from typing import Any

from duologue.checkpoints.settings import read_settings
from duologue.data_prep.recipes.units import Config
from duologue.training.main import resolve

SCRIPT = Path(__file__).resolve().parent.parent.parent.parent / "training" / "presets" / "ssl.sh"

# Stands in for Python: writes down what it was asked to do, and makes what the script looks for.
FAKE = """#!/usr/bin/env bash
if [[ $1 == -c ]]; then exec python3 "$@"; fi
printf '%s\\t' "${{@:3}}" >> {log}; echo >> {log}
for word in "$@"; do
    if [[ $word == quantiser=* && ! -f ${{word#*=}}/units.json ]]; then
        mkdir -p "${{word#*=}}"; touch -d yesterday "${{word#*=}}/units.json"
    fi
done
if [[ $4 == units ]]; then touch "${{5#data=}}/ssl_units.jsonl"; fi
if [[ $3 == evaluate ]]; then
    mkdir -p "$8"; echo '{{"figures": {{"dev": {{"best_layer": 3}}}}}}' > "$8/report.json"
fi
"""


def test_two_iterations(tmp_path: Path) -> None:
    log, fake, runs = tmp_path / "log", tmp_path / "python", tmp_path / "runs"
    fake.write_text(FAKE.format(log=log))
    fake.chmod(0o755)
    sets = [tmp_path / name for name in ("a", "b", "dev")]
    for folder in sets:
        folder.mkdir()
    places = {"PYTHON": str(fake), "RUNS": str(runs), "DATA": f"{sets[0]},{sets[1]}", "DEV": str(sets[2]), "STEPS": "7"}

    def run() -> list[list[str]]:
        log.unlink(missing_ok=True)
        done = subprocess.run(
            ["bash", str(SCRIPT)], env=os.environ | places, capture_output=True, text=True, timeout=60
        )
        assert done.returncode == 0, done.stderr
        return [line.split("\t")[:-1] for line in log.read_text().splitlines()]

    commands = run()
    assert [words[:2] for words in commands] == [
        ["train", "ssl"], ["train", "probe"], ["evaluate", "probe"], *[["prepare", "units"]] * 3,
        ["train", "ssl"], ["train", "probe"], ["evaluate", "probe"],
    ]  # fmt: skip
    ssl: list[Any] = [resolve(words[1], words[2:]) for words in commands if words[:2] == ["train", "ssl"]]
    first, second = ssl
    assert first.steps == second.steps == 7 and first.out == str(runs / "ssl") and second.out == str(runs / "ssl2")
    assert (first.units, second.units, second.clusters) == ("", "ssl_units.jsonl", 200)
    probes: list[Any] = [resolve(words[1], words[2:]) for words in commands if words[:2] == ["train", "probe"]]
    assert [probe.source for probe in probes] == [first.out, second.out]
    assert probes[0].data == (str(sets[0]),) and probes[0].dev_data == first.dev_data == (str(sets[2]),)
    units = [read_settings(Config, words[2:], "recipe units") for words in commands if words[0] == "prepare"]
    assert [one.data for one in units] == [str(folder) for folder in sets]
    assert all((one.layer, one.checkpoint, one.file) == (3, first.out, second.units) for one in units)
    again = run()
    assert not any(words[0] == "prepare" for words in again), "units that are there are not made again"
