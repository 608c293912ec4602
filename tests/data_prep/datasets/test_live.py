"""Speech that is made while it is trained on: the clips that would be on disk."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from test_synthesis import need

from duologue.data_prep.datasets.live import LiveDataset, lengths_of, open_dataset
from duologue.data_prep.datasets.shards import ShardedDataset
from duologue.data_prep.recipes.questions import Config, run
from duologue.data_prep.speech.engine import SynthesisError
from duologue.model.errors import DuologueError
from duologue.training.data.corpus import Corpus

LIVE = "live:questions?n=6&seed=3&voices=dev"


def test_the_same_clips_as_on_disk(tmp_path: Path) -> None:
    need("espeak")
    run(Config(out=str(tmp_path / "set"), n=6, seed=3, voices="dev"), progress=False)
    stored, live = ShardedDataset(tmp_path / "set"), open_dataset(LIVE)
    assert len(live) == len(stored) == 6
    for at in range(6):
        assert np.array_equal(live[at].pcm, stored[at].pcm)
        assert live.metas[at]["text"] == stored.metas[at]["text"] == live[at].meta["text"]
    guessed, real = lengths_of(live), lengths_of(stored)
    assert np.corrcoef(guessed, real)[0, 1] > 0.8, "good enough to batch a clip with its like"


def test_beside_a_set_on_disk(tmp_path: Path) -> None:
    need("espeak")
    run(Config(out=str(tmp_path / "set"), n=2, voices="dev"), progress=False)
    corpus = Corpus((str(tmp_path / "set"), LIVE))
    assert len(corpus) == len(corpus.metas) == len(corpus.lengths) == 8
    assert corpus[3].meta["text"] == corpus.metas[3]["text"] == LiveDataset(LIVE).metas[1]["text"]


def test_a_sentence_that_cannot_be_spoken_gives_way(monkeypatch: pytest.MonkeyPatch) -> None:
    need("espeak")
    live = LiveDataset(LIVE)
    from duologue.data_prep.datasets import live as module

    def speak(utterance, real=module.speak):
        if utterance.id == live.metas[0]["id"]:
            raise SynthesisError("no")
        return real(utterance)

    monkeypatch.setattr(module, "speak", speak)
    assert live[0].meta["text"] == live.metas[1]["text"]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("live:songs", "unknown recipe of live speech 'songs'"),
        ("live:turns", "unknown recipe of live speech 'turns'.*; there are: asides, questions, replies"),
        ("live:questions?m=3", "unknown key 'm'"),
        ("live:questions?n=x", "n=x"),
    ],
)
def test_a_bad_name_is_refused(name: str, message: str) -> None:
    with pytest.raises(DuologueError, match=message):
        open_dataset(name)
