"""Probes: layers are the encoder's, only the heads learn, and the curve tells a deaf layer from a hearing one."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from duologue.checkpoints.cards.facts import Card
from duologue.checkpoints.parts import EncoderPart, load_encoder, save_part
from duologue.inference.evaluation.suites import probe as probe_suite
from duologue.model.audio_encoder.encoder import layer_outputs
from duologue.model.errors import DuologueError
from duologue.training.data.characters import CHARACTERS, greedy, labels_of
from duologue.training.loop.trainer import train
from duologue.training.recipe import save_recipe
from duologue.training.recipes import ssl
from duologue.training.recipes.probe import recipe


def tiny(questions: Path, **changes: object):
    return replace(recipe("tiny"), data=(str(questions),), dev_data=(str(questions),), **changes)


@pytest.fixture(scope="module")
def deaf(questions: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of ssl's tiny sizes whose second block lets nothing through."""
    run = replace(ssl.recipe("tiny"), data=(str(questions),), out=str(tmp_path_factory.mktemp("deaf")))
    task = run.build()
    with torch.no_grad():
        block = task.encoder.blocks[1]
        block.mlp[2].weight.zero_()
        block.mlp[2].bias.fill_(1e9)  # so large that float32 loses what came from below
    save_recipe(run, Path(run.out))
    tensors = {f"encoder.{name}": tensor.clone() for name, tensor in task.encoder.state_dict().items()}
    save_file(tensors, Path(run.out) / "model.safetensors")
    return Path(run.out)


def test_layers_are_those_of_the_encoder(questions: Path) -> None:
    task = tiny(questions).build()
    mel = task.mel(task.batch(0)["samples"])
    with torch.no_grad():
        kept = layer_outputs(task.encoder.eval(), mel)
        assert len(kept) == 3
        for layer, frames in enumerate(kept):
            torch.testing.assert_close(frames, task.encoder(mel, layer=layer))
        assert len(layer_outputs(task.encoder, mel)) == 3, "no hook stays behind"


def test_an_encoder_is_found_in_a_run_a_part_and_a_model(questions: Path, deaf: Path, tmp_path: Path) -> None:
    mel, encoder = load_encoder(str(deaf))
    part = EncoderPart(mel=mel.config, encoder=encoder.config)
    save_part(tmp_path / "encoder", "encoder", encoder, part, Card())
    for name in (str(tmp_path / "encoder"), "nano"):
        again, other = load_encoder(name)
        assert again.config.n_mels == other.config.n_mels == 80 and next(other.parameters()).dtype is torch.float32
    assert torch.equal(load_encoder(str(tmp_path / "encoder"))[1].conv1.weight, encoder.conv1.weight)
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "recipe.json").write_text("{}")
    with pytest.raises(DuologueError, match="not a run that has trained an encoder"):
        load_encoder(str(tmp_path / "run"))


def test_the_curve_tells_which_layer_hears(questions: Path, deaf: Path, tmp_path: Path) -> None:
    """Beeps that spell are read off log-mel and the first layers; of the layer that is drowned nothing is."""
    run = tiny(questions, source=str(deaf), out=str(tmp_path / "probe"))
    task = run.build()
    before = {name: x.clone() for name, x in task.state_dict().items() if not name.startswith("heads.")}
    metrics = train(run, task, progress=False)
    after = task.state_dict()
    assert all(torch.equal(x, after[name]) for name, x in before.items()), "only the heads learn"
    name = questions.name
    assert metrics[f"best_layer_{name}"] < 2
    report = probe_suite.run(data=tmp_path / "probe", out=tmp_path / "figures", quiet=True)
    value = {entry["id"]: entry["value"] for entry in report["metrics"]}
    assert value[f"cer_trained_{int(metrics[f'best_layer_{name}'])}"] < 0.3
    assert value["cer_mel"] < 0.3 and value["cer_random_1"] < 0.3 and value["cer_trained_2"] > 0.6
    assert value["wer_mel"] == pytest.approx(metrics[f"wer_mel_{name}"])
    summary = report["figures"][name]
    assert summary["clips"] == 8 and summary["best_layer"] == metrics[f"best_layer_{name}"]
    lead = summary["wer against log-mel"]
    assert lead["theirs"] == pytest.approx(value["wer_mel"])
    page = (tmp_path / "figures" / "report.html").read_text()
    assert page.count("<svg") == 2 and "random weights" in page
    assert json.loads((tmp_path / "figures" / "report.json").read_text())["settings"]["source"] == str(deaf)


def test_a_folder_without_probes_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DuologueError, match="duologue train probe"):
        probe_suite.run(data=tmp_path, out=tmp_path / "figures", quiet=True)
    (tmp_path / "probe.json").write_text('{"sets": {}}')
    with pytest.raises(DuologueError, match="cannot be read"):
        probe_suite.run(data=tmp_path, out=tmp_path / "figures", quiet=True)


def test_greedy_reads_what_labels_spell() -> None:
    labels, lengths = labels_of(["all ok", "x!"])
    assert lengths.tolist() == [6, 1]
    frames = [0, *[int(i) for one in labels[:6] for i in (one, one, 0)]]
    logits = torch.nn.functional.one_hot(torch.tensor([frames, [labels[6]] * len(frames)]), len(CHARACTERS) + 1).float()
    assert greedy(logits, torch.tensor([len(frames), 2])) == ["all ok", "x"]
