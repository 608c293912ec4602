"""What commands find by name is documented: a first line for --help, and its name on a page."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from duologue.checkpoints.settings import Catalogue
from duologue.data_prep.prepare import RECIPES as PREPARED
from duologue.data_prep.speech.engine import ENGINES
from duologue.demo.cli import BENCHES
from duologue.demo.importing import IMPORTERS
from duologue.inference.assistant.loading import AUDIO_LLMS
from duologue.inference.evaluation.main import SUITES
from duologue.model.errors import DuologueError
from duologue.training.main import RECIPES

ROOT = Path(__file__).resolve().parent.parent
CATALOGUES = (PREPARED, RECIPES, SUITES, IMPORTERS, BENCHES, ENGINES, AUDIO_LLMS)
PAGES = "".join(
    path.read_text(encoding="utf-8") for path in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
)
each = pytest.mark.parametrize("catalogue", CATALOGUES, ids=lambda catalogue: catalogue.folder)


@each
def test_all_are_documented(catalogue: Catalogue) -> None:
    assert len(catalogue.first_lines()) > 3 or catalogue is AUDIO_LLMS
    for name, line in catalogue.first_lines().items():
        assert 15 < len(line) <= 117 and line[0] != " ", f"{name}: its first line is {line!r}"
        assert re.search(rf"`{re.escape(name)}`", PAGES), f"{name} is on no page of docs/"


@each
def test_helpers_are_none_of_them(catalogue: Catalogue) -> None:
    files = {path.stem for path in (ROOT / catalogue.folder).glob("*.py")}
    names = {name.replace("-", "_") for name in catalogue.first_lines()}
    assert names <= files - {"__init__"}
    assert not names & {"files", "pickles", "plot", "schedules", "speaking", "espeak_library", "silero_vad"}


@each
def test_an_unknown_name_is_one_line(catalogue: Catalogue) -> None:
    name = next(iter(catalogue.first_lines()))
    with pytest.raises(
        DuologueError, match=rf"unknown {catalogue.what} '{name}x' \(did you mean {name}\?\); there are: "
    ):
        catalogue.module(name + "x")
