"""fairseq's unit vocoder against numbers from its own code (tests/golden/code_hifigan, tiny random weights)."""

import json
from pathlib import Path

import pytest
import torch
from foreign_files import relative_error
from safetensors.torch import load_file

from duologue.checkpoints.importers import rename_keys
from duologue.checkpoints.importers.code_hifigan import convert
from duologue.model.errors import DuologueError
from duologue.model.speech_decoder.unit_vocoder import UnitVocoder

GOLDEN = Path(__file__).parents[2] / "golden" / "code_hifigan"


@pytest.fixture(scope="module")
def foreign():
    return load_file(GOLDEN / "generator.safetensors"), json.loads((GOLDEN / "config.json").read_text())


@pytest.fixture(scope="module")
def expected():
    return load_file(GOLDEN / "expected.safetensors")


@pytest.fixture(scope="module")
def vocoder(foreign):
    config, weights = convert(*foreign)
    model = UnitVocoder(config).eval()
    model.load_state_dict(weights, strict=True)
    return model


@torch.inference_mode()
def test_durations_are_equal(vocoder, expected):
    assert vocoder.predict_durations(expected["code"]).tolist() == expected["durations"].tolist()


@torch.inference_mode()
def test_waveforms_are_equal(vocoder, expected):
    one_frame_each = vocoder(expected["code"], torch.ones_like(expected["code"]))
    assert relative_error(one_frame_each, expected["waveform_frames"][:, 0]) < 1e-5
    assert relative_error(vocoder(expected["code"]), expected["waveform_with_durations"][:, 0]) < 1e-5


@torch.inference_mode()
def test_streamed_unit_by_unit_it_is_the_same_waveform(vocoder, expected):
    state = vocoder.init_state()
    pieces = [vocoder.step(unit[:, None], state) for unit in expected["code"].unbind(1)]
    waveform = torch.cat([*pieces, vocoder.flush(state)], dim=-1)
    assert relative_error(waveform, expected["waveform_with_durations"][:, 0]) < 1e-5


def test_an_unknown_tensor_is_named(foreign):
    weights, config = foreign
    with pytest.raises(DuologueError, match=r"unknown tensor 'spkr\.weight'"):
        convert({**weights, "spkr.weight": torch.zeros(2, 2)}, config)
    with pytest.raises(DuologueError, match=r"unknown tensor 'resblocks\.15\.convs1\.0\.bias'"):
        convert({**weights, "resblocks.15.convs1.0.bias": torch.zeros(2)}, config)


def test_half_a_weight_norm_is_refused(foreign):
    weights, config = foreign
    with pytest.raises(DuologueError, match=r"'ups\.0\.weight_v' has no 'ups\.0\.weight_g'"):
        convert({key: value for key, value in weights.items() if key != "ups.0.weight_g"}, config)


@pytest.mark.parametrize(
    "change,message",
    [
        ({"f0": True}, "f0"),
        ({"multispkr": "from_input_file"}, "multispkr"),
        ({"resblock": "2"}, "resblock must be '1'"),
        ({"model_in_dim": 32}, "model_in_dim"),
        ({"code_hop_size": 160}, "code_hop_size must be the product of upsample_rates, 320, got 160"),
        ({"resblock_dilation_sizes": [[1, 3, 5], [1, 3, 5], [1, 2, 3]]}, "same for every kernel"),
        ({"dur_predictor_params": {"var_pred_hidden_dim": 16, "var_pred_kernel_size": 5}}, "var_pred_kernel_size"),
    ],
)
def test_other_variants_are_refused(foreign, change, message):
    weights, config = foreign
    with pytest.raises(DuologueError, match=message):
        convert(weights, {**config, **change})


def test_a_missing_config_field_is_named(foreign):
    weights, config = foreign
    with pytest.raises(DuologueError, match="lacks 'num_embeddings'"):
        convert(weights, {key: value for key, value in config.items() if key != "num_embeddings"})


def test_key_tables_drop_only_what_they_name_and_never_merge():
    tensors = {"a.weight": torch.ones(1), "version": torch.ones(1)}
    assert list(rename_keys(tensors, {r"(.)\.weight": r"x.\1", "version": None}, "toy")) == ["x.a"]
    with pytest.raises(DuologueError, match="two tensors"):
        rename_keys(tensors, {".*": "same"}, "toy")
