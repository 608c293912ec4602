"""EnCodec against transformers' own network with tiny random weights, made on the spot."""

import re

import pytest
import torch
from transformers import EncodecConfig, EncodecModel

from duologue.checkpoints.importers.encodec import Config, convert, read, run
from duologue.checkpoints.parts import load_part
from duologue.checkpoints.weights import check_tensors, made, named_tensors
from duologue.model.codec.codec import Codec, CodecConfig
from duologue.model.errors import DuologueError


@pytest.fixture(scope="module")
def theirs():
    torch.manual_seed(0)
    config = EncodecConfig(
        num_filters=4, hidden_size=16, codebook_size=32, codebook_dim=16, target_bandwidths=[1.5, 3.0]
    )
    model = EncodecModel(config).eval()
    for name, buffer in model.named_buffers():
        if name.endswith(".embed"):
            buffer.normal_()  # all zeros as made
    return model


@pytest.fixture(scope="module")
def codec(theirs):
    config, weights = convert(theirs.state_dict(), theirs.config.to_dict())
    model = Codec(config).eval()
    model.load_state_dict(weights, strict=True)
    return model


@pytest.mark.parametrize("samples", [1, 5, 320, 4321])
@torch.inference_mode()
def test_codes_and_waveform_are_equal(theirs, codec, samples):
    x = 0.3 * torch.randn(2, 1, samples, generator=torch.Generator().manual_seed(1))
    codes = theirs.encode(x, bandwidth=3.0).audio_codes[0]  # (B, K, T)
    assert torch.equal(codes, codec.encode(x[:, 0]))
    wanted = theirs.decode(codes[None], [None])[0][:, 0]
    assert (codec.decode(codes) - wanted).norm() < 1e-5 * wanted.norm()


@torch.inference_mode()
def test_a_lower_bandwidth_is_the_first_codebooks(theirs, codec):
    x = 0.3 * torch.randn(1, 1, 3200)
    few = theirs.encode(x, bandwidth=1.5).audio_codes[0]
    assert few.shape[1] == codec.config.codebooks_for(1.5) == 4
    assert torch.equal(few, codec.encode(x[:, 0], codebooks=4))
    wanted = theirs.decode(few[None], [None])[0][:, 0]
    assert (codec.decode(few) - wanted).norm() < 1e-5 * wanted.norm()


@torch.inference_mode()
def test_it_streams_exactly(codec):
    x = 0.3 * torch.randn(1, 5000)
    state = codec.init_state()
    pieces = [codec.step(piece, state) for piece in x.split(333, dim=1)]
    whole = codec(x)
    assert (torch.cat([*pieces, codec.flush(state)], dim=1) - whole).norm() < 1e-5 * whole.norm()


def original_names(state_dict):
    """transformers' names -> those of EnCodec's own release."""
    renamed = {}
    for key, tensor in state_dict.items():
        key = key.replace("parametrizations.weight.original0", "weight_g")
        key = key.replace("parametrizations.weight.original1", "weight_v")
        key = re.sub(r"^quantizer\.layers\.(\d+)\.codebook", r"quantizer.vq.layers.\1._codebook", key)
        key = re.sub(r"^(encoder|decoder)\.layers", r"\1.model", key)
        transposed = key.startswith("decoder") and re.search(r"^decoder\.model\.(3|6|9|12)\.conv", key)
        key = re.sub(r"\.conv\.(?=weight|bias)", ".convtr.convtr." if transposed else ".conv.conv.", key)
        renamed[key] = tensor
    return renamed


def test_its_own_release_is_read(theirs, codec, tmp_path):
    names = original_names(theirs.state_dict())
    assert {"encoder.model.0.conv.conv.weight_g", "decoder.model.3.convtr.convtr.weight_v"} <= set(names)
    torch.save(names, tmp_path / "encodec_24khz.th")
    config, weights = convert(*read(tmp_path / "encodec_24khz.th"))
    assert config == codec.config
    assert all(torch.equal(tensor, weights[name]) for name, tensor in codec.state_dict().items())


def test_a_transformers_folder_becomes_one_of_ours(theirs, codec, tmp_path):
    theirs.save_pretrained(tmp_path / "theirs")
    run(tmp_path / "theirs", tmp_path / "ours", Config())
    loaded = load_part(tmp_path / "ours", "codec", CodecConfig, Codec)
    assert loaded.config == codec.config
    assert all(torch.equal(tensor, loaded.state_dict()[name]) for name, tensor in codec.state_dict().items())


def test_real_sizes_are_covered():
    with torch.device("meta"):
        theirs = EncodecModel(EncodecConfig())
    config, ours = convert(theirs.state_dict(), theirs.config.to_dict())
    found = {name: (tuple(tensor.shape), str(tensor.dtype)) for name, tensor in ours.items()}
    check_tensors(named_tensors(made(lambda: Codec(config))), found, "real sizes")
    assert config.frame_rate == 75 and config.codebooks_for(6.0) == 8 and config.quantiser.codebooks == 32


@pytest.mark.parametrize(
    "field,value", [("use_causal_conv", False), ("audio_channels", 2), ("norm_type", "time_group_norm")]
)
def test_the_stereo_model_is_refused(theirs, field, value):
    with pytest.raises(DuologueError, match=field):
        convert(theirs.state_dict(), {**theirs.config.to_dict(), field: value})


def test_wrong_tensors_are_named(theirs):
    weights = theirs.state_dict()
    with pytest.raises(DuologueError, match=r"unknown tensor 'encoder\.layers\.99\.conv\.bias'"):
        convert({**weights, "encoder.layers.99.conv.bias": torch.zeros(1)})
    with pytest.raises(DuologueError, match=r"the codebooks \[0, 1, 2, 4"):
        convert({key: value for key, value in weights.items() if key != "quantizer.layers.3.codebook.embed"})


def test_a_file_that_is_something_else_is_refused(tmp_path):
    (tmp_path / "notes.th").write_text("no weights")
    with pytest.raises(DuologueError, match="not a PyTorch checkpoint"):
        read(tmp_path / "notes.th")
    with pytest.raises(DuologueError, match="there is no file"):
        read(tmp_path / "missing.th")
