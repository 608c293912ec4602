"""Parts from their runs become one checkpoint, and nothing less than what a model needs does."""

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
from duologue.model.speech_lm_config import SpeechLMConfig, parts_of
from duologue.training.assemble import Config, run
from duologue.training.data.marked_turns import marked_config
from duologue.training.loop.parts import save_parts
from duologue.training.presets import preset
from duologue.training.presets.nano import CODEC_UNIT_DECODER
from duologue.training.recipe import save_recipe


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> tuple[SpeechLM, dict[str, str]]:
    """A random nano, and one run folder for each of its parts."""
    torch.manual_seed(1)
    model = SpeechLM(marked_config("nano", **preset("nano", "assemble")))
    folder = tmp_path_factory.mktemp("runs")
    parts = [part for part in parts_of(SpeechLMConfig) if part != "mel" and getattr(model, part) is not None]
    for part in parts:
        (folder / part).mkdir()
        tensors = {f"{part}.{k}": v.clone() for k, v in model.get_submodule(part).state_dict().items()}
        save_file(tensors, folder / part / "model.safetensors")
    return model, {part: str(folder / part) for part in parts}


def assembled(folder: Path, **sources: str) -> SpeechLM:
    return store.load(run(folder, Config(**sources))).model


def test_the_checkpoint_is_the_parts_in_half_precision(runs, tmp_path: Path) -> None:
    model, sources = runs
    loaded = assembled(tmp_path / "nano", **sources)
    assert loaded.config == model.config
    for name, tensor in model.state_dict().items():
        if torch.is_floating_point(tensor) and name in dict(model.named_parameters()):
            assert torch.equal(loaded.state_dict()[name], tensor.half().float()), name
    assert sum(path.stat().st_size for path in (tmp_path / "nano").iterdir()) < 24 * 2**20


def test_it_can_do_without_what_is_optional(runs, tmp_path: Path) -> None:
    model, sources = runs
    loaded = assembled(tmp_path / "nano", **{name: source for name, source in sources.items() if name[:4] != "word"})
    assert loaded.config == replace(model.config, word_monitor=None) and loaded.word_monitor is None
    silent = assembled(tmp_path / "silent", **{name: sources[name] for name in ("encoder", "adaptor", "llm")})
    assert not silent.speaks and silent.config.layout.units == 0 and silent.monitor is None


def test_every_part_may_be_a_mean(runs, tmp_path: Path) -> None:
    model, sources = runs
    loaded = assembled(tmp_path / "nano", **{name: f"{source}+{source}" for name, source in sources.items()})
    assert loaded.config == model.config
    assert torch.equal(loaded.adaptor.linear1.weight, model.adaptor.linear1.weight.half().float())


def test_a_language_model_of_another_size_keeps_it(runs, tmp_path: Path) -> None:
    """From a run that says its sizes, and from a checkpoint."""
    config = marked_config("nano", **preset("nano", "assemble"))
    shallow = replace(config, llm=config.llm | {"num_hidden_layers": 2})
    model = SpeechLM(shallow)
    (tmp_path / "run").mkdir()
    save_parts({"llm": model.llm}, tmp_path / "run" / "model.safetensors")
    (tmp_path / "run" / "recipe.json").write_text(json.dumps({"llm": shallow.llm}))
    first = assembled(tmp_path / "first", **runs[1] | {"llm": str(tmp_path / "run")})
    second = assembled(tmp_path / "second", **runs[1] | {"llm": str(tmp_path / "first")})
    for loaded in (first, second):
        assert loaded.config == shallow
        for name, tensor in model.llm.named_parameters():
            assert torch.equal(loaded.llm.get_parameter(name), tensor.half().float()), name


def test_a_codec_is_the_voice(runs, tmp_path: Path) -> None:
    """A codec's run in the place of the vocoder's; the unit decoder's sizes come from its own run."""
    from duologue.training.recipes import codec as codec_recipe
    from duologue.training.recipes import unit_decoder as unit_recipe

    recipe = codec_recipe.recipe("tiny")
    codec = Codec(recipe.codec)
    sizes = replace(unit_recipe.recipe("codec"), unit_decoder=replace(CODEC_UNIT_DECODER, units=64, upsample=40))
    decoder = UnitDecoder(sizes.unit_decoder)
    for name, made_by, module in (("codec", recipe, codec), ("unit_decoder", sizes, decoder)):
        (tmp_path / name).mkdir()
        save_recipe(made_by, tmp_path / name)
        save_parts({name: module}, tmp_path / name / "model.safetensors")
    kept = {name: source for name, source in runs[1].items() if name != "vocoder"}
    sources = kept | {name: str(tmp_path / name) for name in ("codec", "unit_decoder")}
    model = assembled(tmp_path / "nano", **sources)
    assert isinstance(model.vocoder, CodecVoice) and model.config.layout.units == 64
    assert model.config.unit_decoder.upsample == 40
    units = torch.randint(64, (1, 30))
    with torch.inference_mode():
        wanted = codec.eval().half().float().decode(units[:, None])  # it is stored as float16
        assert (model.vocoder(units) - wanted).norm() < 1e-3 * wanted.norm()
    run(tmp_path / "alone", Config(codec=str(tmp_path / "codec")))
    again = assembled(tmp_path / "again", **sources | {"codec": str(tmp_path / "alone")})
    assert torch.equal(again.vocoder.quantiser.entries, model.vocoder.quantiser.entries)
    with pytest.raises(DuologueError, match="two voices"):
        run(tmp_path / "both", Config(**sources, vocoder="somewhere"))
    with pytest.raises(DuologueError, match=r"vocoder\.units is 64; it must be 200"):
        run(tmp_path / "odd", Config(**sources | {"unit_decoder": kept["unit_decoder"]}))
    assert not (tmp_path / "odd").exists()


def test_a_part_without_a_run_is_named(runs, tmp_path: Path) -> None:
    with pytest.raises(DuologueError, match="no run given for adaptor; each of encoder, adaptor, llm needs"):
        run(tmp_path / "nano", Config(encoder=runs[1]["encoder"], llm=runs[1]["llm"]))
    assert not (tmp_path / "nano").exists()


def test_a_preset_that_is_not_there_says_what_is() -> None:
    with pytest.raises(DuologueError, match=r"preset is 'huge'; it must be .*'nano'"):
        preset("huge", "duplex")
    with pytest.raises(DuologueError, match=r"no preset has the stage 'sing': .*training/presets/nano\.py"):
        preset("nano", "sing")
