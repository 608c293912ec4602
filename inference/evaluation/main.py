"""`duologue evaluate`: from the command line to a suite. Nothing heavy is imported before one is chosen.

A suite is a module of suites/ with a function ``run``. Its keyword arguments say what it takes: ``model``, ``outputs``,
``data`` and ``reports`` are the options of those names; all others are its settings, written KEY=VALUE.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ...checkpoints.files import expanded
from ...checkpoints.outputs import keep_apart, model_path
from ...checkpoints.settings import Catalogue, read_settings, settings_of
from ...model.errors import DuologueError

SUITES = Catalogue("inference/evaluation/suites", "suite")
OPTIONS = ("model", "outputs", "data", "reports")


def run(
    suite: str,
    words: Sequence[str],
    out: Path,
    *,
    model: str | None = None,
    outputs: Path | None = None,
    data: Path | None = None,
) -> None:
    """Run a suite; ``words`` are its settings, and the reports that ``compare`` compares.

    Raises:
        DuologueError: an unknown suite, or options and settings that do not belong to it or to each other.
    """
    if suite == "duplex" and (data or outputs) and _is_benchmark(data, outputs):
        suite = "full_duplex_bench"
    work = SUITES.module(suite).run
    takes = inspect.signature(work).parameters
    reports = [Path(word) for word in words if "reports" in takes and not re.match(r"[A-Za-z_]\w*=", word)]
    given = {"model": model, "outputs": outputs, "data": data, "reports": [expanded(path) for path in reports]}
    given = {name: value for name, value in given.items() if value or (name in takes and name == "reports")}
    if strange := [name for name in given if name not in takes]:
        raise DuologueError(f"{suite} has no use for --{', --'.join(strange)}")
    if missing := [name for name in OPTIONS if name in takes and name not in given
                   and takes[name].default is inspect.Parameter.empty]:  # fmt: skip
        raise DuologueError(f"{suite} needs --{', --'.join(missing)}")
    if model is not None and outputs is not None:
        raise DuologueError("give a model (--model), or what another system said (--outputs), and not both")
    settings = vars(read_settings(settings_of(work, (*OPTIONS, "out", "quiet")),
                                  [word for word in words if Path(word) not in reports], f"suite {suite}"))  # fmt: skip
    for name, value in settings.items():
        if name != "seed" and type(value) is int and value < 1 and value != takes[name].default:
            raise DuologueError(f"{name} is {value}; it must be at least 1")
    _keep_apart(suite, out, given, settings.get("utmos"))
    work(out=out, **given, **settings)


def _is_benchmark(data: Path | None, outputs: Path | None) -> bool:
    """Whether a folder of Full-Duplex-Bench is named, and not a question set or scenes of ours."""
    from .suites.full_duplex_bench import is_root

    return any(path is not None and path.is_dir() and is_root(path) for path in (data, outputs))


def _keep_apart(suite: str, out: Path, given: dict[str, Any], utmos: str | None) -> None:
    """The reports' folder is none that is read, nor one that holds a file that is read."""
    paths = {"--data": [given.get("data")], "--outputs": [given.get("outputs")], "a report": given.get("reports", [])}
    read = {what: [path.parent if path.is_file() else path for path in some if path] for what, some in paths.items()}
    read["--model"] = [model_path(given["model"])] if "model" in given else []
    read["utmos="] = [expanded(utmos)] if utmos else []
    keep_apart({"-o": out}, read)
    if suite in ("duplex", "full_duplex_bench"):  # a folder of scenes is searched for sounds
        folders = [path for path in paths["--data"] + paths["--outputs"] if path and path.is_dir()]
        keep_apart({"-o": out}, {"the scenes": folders}, mixes=True)
