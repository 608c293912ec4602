"""Recipe mwer: it goes on with an adaptor, whose word errors become fewer, keywords' first."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from any_model import tiny_llm, tiny_whisper
from test_ctc_adaptor_recipe import tones

from duologue.model.decoding.beam import BeamConfig
from duologue.model.errors import DuologueError
from duologue.training.main import resolve, run
from duologue.training.recipes.mwer import read_weights


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The settings of both recipes, and behind them an adaptor that has learnt a little."""
    folder = tmp_path_factory.mktemp("parts")
    parts = ["preset=tiny", f"llm={tiny_llm(folder)}", f"encoder={tiny_whisper(folder)}", "augment=none",
             f"data={tones(folder / 'tones')}", f"dev_data={folder / 'tones'}"]  # fmt: skip
    run("ctc_adaptor", [*parts, f"out={folder / 'ctc'}", "steps=60", "save_every=60", "lr=5e-3"])
    return [*parts, f"adaptor={folder / 'ctc'}"]


def test_word_errors_become_fewer(tmp_path: Path, parts: list[str]) -> None:
    before: Any = resolve("mwer", parts).build()
    start = before.evaluate()["wer_tones"]
    assert start > 0.3, "it has learnt a little"
    metrics = run("mwer", [*parts, f"out={tmp_path / 'run'}"])
    assert metrics["wer_tones"] < start / 2 and metrics["first"] < 0.2


def test_the_loss_is_of_the_beam_and_of_ctc(parts: list[str]) -> None:
    words = [*parts, "beam.width=5", "batch_size=4"]
    alone: Any = resolve("mwer", [*words, "ctc_weight=0"]).build()
    both: Any = resolve("mwer", [*words, "ctc_weight=0.5"]).build()
    batch = alone.batch(0)
    (loss, shown), (mixed, _) = alone(batch), both(batch)
    assert loss.item() == pytest.approx(shown["expected"].item())
    assert mixed.item() == pytest.approx(loss.item() + 0.5 * shown["ctc"].item(), rel=1e-4)
    logits, frames = alone.logits(batch)
    texts = alone.hypotheses(logits.log_softmax(-1), frames)
    assert len(texts) == 4 and all(len(each) == len(set(each)) <= 5 for each in texts)
    assert max(map(len, texts)) == 5


def test_an_error_at_a_keyword_weighs_more(tmp_path: Path, parts: list[str]) -> None:
    words = tmp_path / "words.txt"
    words.write_text("# places\nParis:5\ncapital  # usual\n\n")
    assert read_weights(str(words), 3.0) == {"paris": 5.0, "capital": 3.0}
    plain: Any = resolve("mwer", parts).build()
    heavy: Any = resolve("mwer", [*parts, f"keywords={words}"]).build()
    batch = plain.batch(0)
    assert heavy(batch)[1]["first"] > plain(batch)[1]["first"]


def test_mistakes_are_one_line(tmp_path: Path, parts: list[str]) -> None:
    with pytest.raises(DuologueError, match="recipe mwer needs adaptor=FOLDER"):
        resolve("mwer", parts[:-1]).build()
    with pytest.raises(DuologueError, match=r"beam.width is 1; expected errors need at least 2 hypotheses"):
        resolve("mwer", [*parts, "beam.width=1"])
    for text, message in (("new york", "line 1: 'new york' must be one word"), ("rome:0", "'rome:0' must be"),
                          ("rome:much", "'rome:much' must be"), ("# rome", "there are no words in it")):  # fmt: skip
        (tmp_path / "wrong.txt").write_text(text)
        with pytest.raises(DuologueError, match=message):
            read_weights(str(tmp_path / "wrong.txt"), 3.0)
    assert BeamConfig(width=2) == resolve("mwer", [*parts, "beam.width=2"]).beam  # type: ignore[attr-defined]
