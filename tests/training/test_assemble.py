"""Parts from their runs become one checkpoint, and nothing less than all of them does."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from duologue.checkpoints import store
from duologue.model.codec.codec import Codec
from duologue.model.codec.codec_vocoder import CodecVoice
from duologue.model.errors import DuologueError
from duologue.model.speech_decoder.unit_decoder import UnitDecoder
from duologue.model.speech_lm import SpeechLM
from duologue.training.assemble import PARTS, assemble, assemble_codec
from duologue.training.loop.run_folder import save_parts
from duologue.training.presets.nano import NANO_CODEC_UNIT_DECODER, nano_config
from duologue.training.recipe import save_recipe


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> tuple[SpeechLM, tuple[str, ...]]:
    """A random nano, and one run folder for each of its parts."""
    torch.manual_seed(1)
    model = SpeechLM(nano_config())
    folder = tmp_path_factory.mktemp("runs")
    for part in (*PARTS, "word_monitor"):
        (folder / part).mkdir()
        tensors = {f"{part}.{k}": v.clone() for k, v in model.get_submodule(part).state_dict().items()}
        save_file(tensors, folder / part / "model.safetensors")
    return model, tuple(f"{part}={folder / part}" for part in (*PARTS, "word_monitor"))


def test_the_checkpoint_is_the_parts_in_half_precision(runs, tmp_path: Path) -> None:
    model, sources = runs
    loaded = store.load(assemble(tmp_path / "nano", sources))
    assert loaded.model.config == model.config
    for name, tensor in model.state_dict().items():
        if torch.is_floating_point(tensor) and name in dict(model.named_parameters()):
            assert torch.equal(loaded.model.state_dict()[name], tensor.half().float()), name
    assert sum(path.stat().st_size for path in (tmp_path / "nano").iterdir()) < 24 * 2**20


def test_it_can_do_without_a_word_monitor(runs, tmp_path: Path) -> None:
    model, sources = runs
    loaded = store.load(assemble(tmp_path / "nano", sources[:-1])).model
    assert loaded.config == replace(model.config, word_monitor=None) and loaded.word_monitor is None


def test_every_part_may_be_a_mean(runs, tmp_path: Path) -> None:
    model, sources = runs
    twice = tuple(f"{entry}+{entry.partition('=')[2]}" for entry in sources)
    loaded = store.load(assemble(tmp_path / "nano", twice))
    assert loaded.model.config == model.config
    assert torch.equal(loaded.model.adaptor.linear1.weight, model.adaptor.linear1.weight.half().float())


def test_a_language_model_of_another_size_keeps_it(runs, tmp_path: Path) -> None:
    """From a run that says its sizes, and from a checkpoint."""
    config = nano_config()
    shallow = replace(config, llm=config.llm | {"num_hidden_layers": 2})
    model = SpeechLM(shallow)
    (tmp_path / "run").mkdir()
    save_parts({"llm": model.llm}, tmp_path / "run" / "model.safetensors")
    (tmp_path / "run" / "recipe.json").write_text(json.dumps({"llm": shallow.llm}))
    sources = tuple(f"llm={tmp_path / 'run'}" if entry.startswith("llm=") else entry for entry in runs[1])
    first = assemble(tmp_path / "first", sources)
    second = assemble(tmp_path / "second", (*(entry for entry in sources if entry[:4] != "llm="), f"llm={first}"))
    for folder in (first, second):
        loaded = store.load(folder).model
        assert loaded.config == shallow
        for name, tensor in model.llm.named_parameters():
            assert torch.equal(loaded.llm.get_parameter(name), tensor.half().float()), name


def test_a_codec_is_the_voice(runs, tmp_path: Path) -> None:
    """A codec's run in the place of the vocoder's; the unit decoder's sizes come from its own run."""
    from duologue.training.recipes import codec as codec_recipe
    from duologue.training.recipes import unit_decoder as unit_recipe

    run = codec_recipe.recipe("tiny")
    codec = Codec(run.codec)
    sizes = replace(unit_recipe.recipe("codec"), unit_decoder=replace(NANO_CODEC_UNIT_DECODER, units=64, upsample=40))
    decoder = UnitDecoder(sizes.unit_decoder)
    for name, recipe, module in (("codec", run, codec), ("unit_decoder", sizes, decoder)):
        (tmp_path / name).mkdir()
        save_recipe(recipe, tmp_path / name)
        save_parts({name: module}, tmp_path / name / "model.safetensors")
    kept = tuple(entry for entry in runs[1] if not entry.startswith(("vocoder=", "unit_decoder=")))
    sources = (*kept, f"codec={tmp_path / 'codec'}", f"unit_decoder={tmp_path / 'unit_decoder'}")
    model = store.load(assemble(tmp_path / "nano", sources)).model
    assert isinstance(model.vocoder, CodecVoice) and model.config.layout.units == 64
    assert model.config.unit_decoder.upsample == 40
    units = torch.randint(64, (1, 30))
    with torch.inference_mode():
        wanted = codec.eval().half().float().decode(units[:, None])  # it is stored as float16
        assert (model.vocoder(units) - wanted).norm() < 1e-3 * wanted.norm()
    assemble_codec(tmp_path / "alone", tmp_path / "codec")
    again = store.load(assemble(tmp_path / "again", (*sources[:-2], f"codec={tmp_path / 'alone'}", sources[-1]))).model
    assert torch.equal(again.vocoder.quantiser.entries, model.vocoder.quantiser.entries)
    with pytest.raises(DuologueError, match="two voices"):
        assemble(tmp_path / "both", (*sources, "vocoder=somewhere"))
    with pytest.raises(DuologueError, match="units"):  # 200 of them for a codebook of 64
        assemble(tmp_path / "odd", (*kept, sources[-2], next(e for e in runs[1] if e.startswith("unit_decoder="))))
    assert not (tmp_path / "odd").exists()


def test_a_part_without_a_run_is_named(runs, tmp_path: Path) -> None:
    with pytest.raises(DuologueError, match="no run given for monitor"):
        assemble(tmp_path / "nano", runs[1][:-2])
    assert not (tmp_path / "nano").exists()
