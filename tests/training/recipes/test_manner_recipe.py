"""A head for the manner of speaking learns what can be told from frames, alone; then it is measured and assembled."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from duologue.checkpoints import store
from duologue.checkpoints.cards.facts import Card
from duologue.checkpoints.parts import EncoderPart, load_manner, save_part
from duologue.data_prep.datasets.shards import Clip, ShardWriter
from duologue.inference.evaluation.suites import manner as suite
from duologue.model.audio_encoder.mel import LogMel
from duologue.model.errors import DuologueError
from duologue.training import assemble
from duologue.training.loop.trainer import train
from duologue.training.main import resolve
from duologue.training.recipes.manner import MannerRecipe, recipe

RATE = 16_000
TWO = ("calm", "shout")


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Calm is low and shouting high, as loud as each other."""
    folder, rng, made = tmp_path_factory.mktemp("clips") / "set", np.random.default_rng(0), []
    for at in range(8):
        hz, t = (2500 if at % 2 else 300) + 40 * at, np.arange(RATE // 2 + 800 * at) / RATE
        pcm = (rng.uniform(1000, 12_000) * np.sin(2 * np.pi * hz * t)).astype(np.int16)
        kind = "synthetic" if at < 4 else "recording"
        made.append(Clip(pcm, {"id": str(at), "text": "", "voice": "tone", "manner": TWO[at % 2], "kind": kind}))
    writer = ShardWriter(folder, name="manner", sample_rate=RATE, seed=0, parameters={})
    writer.write(0, made)
    writer.finish()
    return str(folder)


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A part with random weights."""
    torch.manual_seed(0)
    sizes = recipe("tiny")
    part = EncoderPart(mel=sizes.mel, encoder=replace(sizes.encoder, n_audio_state=32))
    folder = tmp_path_factory.mktemp("part") / "encoder"
    return str(save_part(folder, "encoder", part.encoder.build(), part, Card()))


def tiny(clips: str, encoder: str, out: Path, *more: str) -> Any:
    words = ["preset=tiny", f"data={clips}", f"source={encoder}", f"out={out}", "manner.classes=calm,shout", *more]
    return resolve("manner", words)


def test_it_learns_alone_and_is_measured(clips: str, encoder: str, tmp_path: Path) -> None:
    run = tiny(clips, encoder, tmp_path / "run", f"dev_data={clips}", "views=2", "augment=light")
    assert isinstance(run, MannerRecipe) and run.manner.in_dim == 32 == run.encoder.width
    task = run.build()
    assert task.sound is not None and task.sound.level_chance == 1 and task.sound.pitch_chance == 0
    before = {name: x.clone() for name, x in task.encoder.state_dict().items()}
    metrics = train(run, task, progress=False)
    assert all(torch.equal(x, before[name]) for name, x in task.encoder.state_dict().items())
    assert metrics["right_set"] == metrics["calm_set"] == metrics["shout_set"] == 1
    assert len(task.kept) == 16 and not torch.equal(task.kept[0][0], task.kept[8][0])  # two views of the first clip
    mel, heard, head = load_manner(tmp_path / "run")
    assert isinstance(mel, LogMel) and not head.training and head.config.classes == TWO
    assert torch.equal(heard.state_dict()["conv1.weight"], task.encoder.state_dict()["conv1.weight"])
    report = suite.run(model=str(tmp_path / "run"), data=Path(clips), out=tmp_path / "figures", quiet=True)
    assert {entry["id"]: entry["value"] for entry in report["metrics"]} == {
        "right": 1, "recall_calm": 1, "recall_shout": 1, "false_alarms": 0,
    }  # fmt: skip
    assert report["figures"]["confusion"]["recording"] == {
        "calm": {"calm": 2, "shout": 0}, "shout": {"calm": 0, "shout": 2}
    }  # fmt: skip


def test_it_is_joined_to_a_model(clips: str, tmp_path: Path) -> None:
    train(run := tiny(clips, "nano", tmp_path / "run", "steps=1"), run.build(), progress=False)
    sources = dict.fromkeys(("encoder", "adaptor", "llm"), "nano")
    folder = assemble.run(tmp_path / "model", assemble.Config(**sources, manner=str(tmp_path / "run")))
    model = store.load(folder).model
    assert model.manners == TWO
    _, _, head = load_manner(folder)
    assert torch.equal(head.classify.weight, model.manner.classify.weight)  # type: ignore[union-attr]
    with pytest.raises(DuologueError, match="nano has no head for the manner of speaking: expected a run of"):
        load_manner("nano")


def test_what_is_wrong_with_labels_is_one_line(clips: str, encoder: str, tmp_path: Path) -> None:
    with pytest.raises(DuologueError, match=r"set: clip 1 has the manner 'shout'; expected one of calm, sung"):
        tiny(clips, encoder, tmp_path, "manner.classes=calm,sung").build()
    with pytest.raises(DuologueError, match=r"^data has no clip of the manner 'sung'"):
        tiny(clips, encoder, tmp_path, "manner.classes=calm,shout,sung").build()
    writer = ShardWriter(tmp_path / "bare", name="bare", sample_rate=RATE, seed=0, parameters={})
    writer.write(0, [Clip(np.ones(RATE, np.int16), {"id": "7", "text": "", "voice": "tone"})])
    writer.finish()
    with pytest.raises(DuologueError, match=r"bare: clip 7 has no field 'manner' \(duologue prepare manner\)"):
        tiny(str(tmp_path / "bare"), encoder, tmp_path / "run").build()
    with pytest.raises(DuologueError, match=r"views is 0; it must be at least 1"):
        tiny(clips, encoder, tmp_path, "views=0")
    with pytest.raises(DuologueError, match=r"bare: clip 7 has manner None"):
        train(run := tiny(clips, encoder, tmp_path / "run", "steps=1"), run.build(), progress=False)
        suite.run(model=str(tmp_path / "run"), data=tmp_path / "bare", out=tmp_path / "figures", quiet=True)
