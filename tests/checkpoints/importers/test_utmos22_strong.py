"""UTMOS against numbers from SpeechMOS's code (tests/golden/utmos22_strong, tiny random weights) and the real sizes."""

import json
from pathlib import Path

import pytest
import torch
from foreign_files import relative_error
from safetensors.torch import load_file, save_file

from duologue.checkpoints.importers.utmos22_strong import Config, convert, run
from duologue.checkpoints.parts import load_part
from duologue.checkpoints.weights import check_tensors, made, named_tensors
from duologue.model.errors import DuologueError
from duologue.model.quality.utmos import UTMOS, UTMOSConfig

GOLDEN = Path(__file__).parents[2] / "golden" / "utmos22_strong"
FACTS = json.loads((GOLDEN / "config.json").read_text())
HEADS = Config(heads=4)


@pytest.fixture(scope="module")
def expected():
    return load_file(GOLDEN / "expected.safetensors")


@pytest.fixture(scope="module")
def utmos(tmp_path_factory):
    """The golden network by way of the disk, as a user gets it."""
    return load_part(
        run(GOLDEN / "model.safetensors", tmp_path_factory.mktemp("utmos"), HEADS), "utmos", UTMOSConfig, UTMOS
    )


@torch.inference_mode()
def test_features_and_scores_are_equal(utmos, expected):
    assert relative_error(utmos.features(expected["waveform"]), expected["ssl_features"]) < 1e-5
    # 3 is added to the network's output: subtracted here, or it would hide an error.
    assert relative_error(utmos(expected["waveform"]) - 3, expected["score"] - 3) < 1e-5


@torch.inference_mode()
def test_clips_are_judged_one_by_one_as_together(utmos, expected):
    alone = torch.cat([utmos(clip[None, :16_000]) for clip in expected["waveform"]])
    assert torch.allclose(alone, utmos(expected["waveform"][:, :16_000]), atol=1e-5)
    assert utmos(expected["waveform"][:1, :400]).isfinite().all()
    with pytest.raises(DuologueError, match="399 samples; UTMOS judges at least 400"):
        utmos(expected["waveform"][:, :399])


def test_the_real_one_is_covered_completely():
    real = {name: torch.empty(shape, device="meta") for name, shape in FACTS["real_keys"].items()}
    config, tensors = convert(real)
    assert config == UTMOSConfig(**FACTS["real_dims"]) == UTMOSConfig()
    found = {name: (tuple(tensor.shape), str(tensor.dtype)) for name, tensor in tensors.items()}
    check_tensors(named_tensors(made(lambda: UTMOS(config))), found, "real sizes")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.pop("projection.2.bias"), r"'projection\.2\.bias' \(1,\) is missing$"),
        (lambda t: t.update({"blstm.weight_ih_l1": torch.zeros(3)}), r"unknown tensor 'blstm\.weight_ih_l1' \(3,\)"),
        (lambda t: t.update({"projection.2.bias": torch.zeros(2)}), r"'projection\.2\.bias' has shape \(2,\).*\(1,\)$"),
        (lambda t: t.pop("wav2vec2.post_extract_proj.weight"), r"lacks the tensor wav2vec2\.post_extract_proj\.weight"),
    ],
)
def test_what_does_not_fit_is_named_and_nothing_is_written(tmp_path, change, message):
    tensors = load_file(GOLDEN / "model.safetensors")
    change(tensors)
    save_file(tensors, tmp_path / "utmos.safetensors")
    with pytest.raises(DuologueError, match=message):
        run(tmp_path / "utmos.safetensors", tmp_path / "out", HEADS)
    assert [path.name for path in tmp_path.iterdir()] == ["utmos.safetensors"]


def test_a_released_file_is_a_pickle_of_tensors(tmp_path, expected):
    torch.save(load_file(GOLDEN / "model.safetensors"), tmp_path / "utmos22_strong_step7459_v1.pt")
    model = load_part(
        run(tmp_path / "utmos22_strong_step7459_v1.pt", tmp_path / "out", HEADS), "utmos", UTMOSConfig, UTMOS
    )
    with torch.inference_mode():
        assert relative_error(model(expected["waveform"]), expected["score"]) < 1e-5
