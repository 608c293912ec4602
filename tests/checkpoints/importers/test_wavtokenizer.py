"""WavTokenizer against numbers from its own code (tests/golden/wavtokenizer, tiny random weights); its real sizes."""

import json
from pathlib import Path

import pytest
import torch
import yaml
from foreign_files import relative_error
from safetensors.torch import load_file

from duologue.checkpoints.importers.wavtokenizer import Config, convert, read, run
from duologue.checkpoints.parts import load_part
from duologue.checkpoints.weights import check_tensors, made, named_tensors
from duologue.model.codec.codec import Codec, CodecConfig, CodecEncoding, published
from duologue.model.errors import DuologueError

GOLDEN = Path(__file__).parents[2] / "golden" / "wavtokenizer"


def released(ratios, bins, backbone, head):
    """A config in the form of the released YAML files."""
    parts = {
        "feature_extractor": {"dowmsamples": ratios, "num_quantizers": 1, "vq_bins": bins},
        "backbone": backbone,
        "head": head,
    }
    return {"model": {"init_args": {"sample_rate": 24000} | {name: {"init_args": row} for name, row in parts.items()}}}


@pytest.fixture(scope="module")
def foreign():
    c = json.loads((GOLDEN / "config.json").read_text())
    return load_file(GOLDEN / "model.safetensors"), released(c["ratios"], c["vq_bins"], c["backbone"], c["head"])


@pytest.fixture(scope="module")
def expected():
    return load_file(GOLDEN / "expected.safetensors")


@pytest.fixture(scope="module")
def codec(foreign):
    config, weights = convert(*foreign)
    model = Codec(config).eval()
    model.load_state_dict(weights, strict=True)
    return model


@torch.inference_mode()
def test_every_step_of_the_way_is_equal(codec, expected):
    assert relative_error(codec.encoder(expected["waveform"][:, None]), expected["embedding"]) < 1e-5
    codes = codec.encode(expected["waveform"])
    assert torch.equal(codes.transpose(0, 1), expected["codes"])
    quantised = codec.quantiser.decode(codes)
    assert relative_error(quantised, expected["quantized"]) < 1e-5
    assert relative_error(codec.decoder.features(quantised), expected["backbone_features"]) < 1e-5
    assert relative_error(codec.decode(codes), expected["reconstruction"]) < 1e-5


@pytest.mark.parametrize("chunk", [1, 317, 5000])
@torch.inference_mode()
def test_streamed_the_codes_are_the_same(codec, expected, chunk):
    """Its encoder looks ahead but not around: only its decoder needs the whole."""
    stage, waveform = CodecEncoding(codec), expected["waveform"][:, : 1000 if chunk == 1 else None]
    state = stage.init_state(2)
    codes = [stage.step(piece, state) for piece in waveform.split(chunk, dim=1)]
    assert torch.equal(torch.cat([*codes, stage.flush(state)], dim=-1), codec.encode(waveform))


def layers(ratios, dim, filters):
    """(name, shape) of the SEANet encoder's convolutions below ``encoder.model.``, as in the released checkpoints."""
    width, at = filters, 1
    yield "0.conv.conv", (width, 1, 7)
    for ratio in reversed(ratios):
        yield f"{at}.block.1.conv.conv", (width // 2, width, 3)
        yield f"{at}.block.3.conv.conv", (width, width // 2, 1)
        yield f"{at}.shortcut.conv.conv", (width, width, 1)
        yield f"{at + 2}.conv.conv", (2 * width, width, 2 * ratio)
        width, at = 2 * width, at + 3
    yield f"{at + 2}.conv.conv", (dim, width, 7)


def tensors(ratios, *, dim, filters, bins, in_dim, width, ffn, count, rows, n_fft):
    """Name and shape of every tensor that WavTokenizer needs to run."""
    pre = "feature_extractor.encodec."
    lstm = filters * 2 ** len(ratios)
    found = {}
    for name, shape in layers(ratios, dim, filters):
        found[f"{pre}encoder.model.{name}.bias"] = shape[:1]
        found[f"{pre}encoder.model.{name}.weight_g"] = (shape[0], 1, 1)
        found[f"{pre}encoder.model.{name}.weight_v"] = shape
    for i in range(2):
        for kind in ("ih", "hh"):
            found[f"{pre}encoder.model.13.lstm.weight_{kind}_l{i}"] = (4 * lstm, lstm)
            found[f"{pre}encoder.model.13.lstm.bias_{kind}_l{i}"] = (4 * lstm,)
    book = f"{pre}quantizer.vq.layers.0._codebook."
    found |= {book + "cluster_size": (bins,), book + "inited": (1,)}
    found |= {book + name: (bins, dim) for name in ("embed", "embed_avg")}

    def pair(name, shape):
        return {f"{name}.weight": shape, f"{name}.bias": shape[:1]}

    found |= pair("backbone.embed", (width, in_dim, 7))
    for i in (0, 1, 3, 4):
        for j in (1, 2):
            found |= pair(f"backbone.pos_net.{i}.norm{j}", (width,))
            found |= pair(f"backbone.pos_net.{i}.conv{j}", (width, width, 3))
    found |= pair("backbone.pos_net.2.norm", (width,)) | pair("backbone.pos_net.5", (width,))
    for name in ("q", "k", "v", "proj_out"):
        found |= pair(f"backbone.pos_net.2.{name}", (width, width, 1))
    norms = ["backbone.norm", *(f"backbone.convnext.{i}.norm" for i in range(count))]
    found |= {f"{norm}.{name}.weight": (rows, width) for norm in norms for name in ("scale", "shift")}
    for i in range(count):
        block = f"backbone.convnext.{i}"
        found |= pair(f"{block}.dwconv", (width, 1, 7)) | {f"{block}.gamma": (width,)}
        found |= pair(f"{block}.pwconv1", (ffn, width)) | pair(f"{block}.pwconv2", (width, ffn))
    found |= pair("backbone.final_layer_norm", (width,)) | pair("head.out", (n_fft + 2, width))
    return found | {"head.istft.window": (n_fft,)}


def test_the_list_of_tensors_is_that_of_its_own_code(foreign):
    c = json.loads((GOLDEN / "config.json").read_text())
    listed = tensors(c["ratios"], dim=32, filters=8, bins=64, in_dim=32, width=64, ffn=96, count=3, rows=4, n_fft=1280)
    assert listed == {name: tuple(tensor.shape) for name, tensor in foreign[0].items()}


@pytest.mark.parametrize("rate,ratios,n_fft", [(75, [8, 5, 4, 2], 1280), (40, [6, 5, 5, 4], 2400)])
def test_both_published_codecs_are_covered(rate, ratios, n_fft):
    """On the meta device, at full size, with what a released checkpoint carries besides: nothing missing or left."""
    listed = tensors(
        ratios, dim=512, filters=32, bins=4096, in_dim=512, width=768, ffn=2304, count=12, rows=4, n_fft=n_fft
    )
    listed |= {
        "feature_extractor.encodec.decoder.model.0.conv.conv.weight_v": (512, 512, 7),
        "multiperioddisc.discriminators.0.convs.0.weight_v": (32, 1, 5, 1),
        "multiresddisc.discriminators.0.emb.weight": (4, 64),
        "dac.discriminators.0.convs.0.0.weight_v": (32, 1, 5, 1),
        "dacdiscriminator.discriminator.discriminators.0.convs.0.0.weight_v": (32, 1, 5, 1),
        "melspec_loss.mel_spec.spectrogram.window": (1024,),
    }
    weights = {name: torch.empty(shape, device="meta") for name, shape in listed.items()}
    backbone = {"input_channels": 512, "dim": 768, "intermediate_dim": 2304, "num_layers": 12}
    head = {"dim": 768, "n_fft": n_fft, "hop_length": n_fft // 4, "padding": "same"}
    config, ours = convert(weights, released(ratios, 4096, backbone, head))
    assert config == published(rate)
    found = {name: (tuple(tensor.shape), str(tensor.dtype)) for name, tensor in ours.items()}
    check_tensors(named_tensors(made(lambda: Codec(config))), found, "real sizes")
    assert config.frame_rate == rate and round(config.bit_rate()) == 12 * rate


@pytest.mark.parametrize(
    "change,message",
    [
        ({"backbone.extra.weight": (2, 2)}, r"unknown tensor 'backbone\.extra\.weight' \(2, 2\)"),
        ({"feature_extractor.encodec.encoder.model.0.conv.conv.weight_g": None}, "has no .*weight_g' beside it"),
        ({"feature_extractor.encodec.encoder.model.15.conv.conv.bias": None}, "lacks the tensor .*15.conv.conv.bias"),
        ({"feature_extractor.encodec.quantizer.vq.layers.0._codebook.embed": None}, r"codebooks \[\]; .* says 1"),
    ],
)
def test_wrong_tensors_are_named(foreign, change, message):
    weights, config = foreign
    weights = dict(weights)
    for key, shape in change.items():
        if shape is None:
            del weights[key]
        else:
            weights[key] = torch.zeros(shape)
    with pytest.raises(DuologueError, match=message):
        convert(weights, config)


def test_another_bandwidth_has_its_own_norms(foreign):
    weights, config = foreign
    _, second = convert(weights, config, bandwidth_id=1)
    assert torch.equal(second["decoder.norm.weight"], weights["backbone.norm.scale.weight"][1])
    with pytest.raises(DuologueError, match="bandwidth_id is 4"):
        convert(weights, config, bandwidth_id=4)


@pytest.fixture
def files(foreign, tmp_path):
    """A .ckpt as Lightning writes it, and its .yaml."""
    weights, config = foreign
    torch.save({"state_dict": weights, "epoch": 3, "hyper_parameters": {"sample_rate": 24000}}, tmp_path / "model.ckpt")
    (tmp_path / "model.yaml").write_text(yaml.safe_dump(config))
    return tmp_path


@torch.inference_mode()
def test_the_released_files_become_a_folder(files, codec, expected):
    run(files / "model.ckpt", files / "ours", Config())
    loaded = load_part(files / "ours", "codec", CodecConfig, Codec)
    assert loaded.config == codec.config
    assert relative_error(loaded(expected["waveform"]), expected["reconstruction"]) < 1e-5


@pytest.mark.parametrize(
    "change,message",
    [
        (lambda w: w.pop("head.out.bias"), r"tensor 'decoder\.head\.bias' \(1282,\) is missing"),
        (lambda w: w.update({"head.out.bias": torch.zeros(3)}), r"'decoder\.head\.bias' has shape \(3,\)"),
        (lambda w: w.update({"head.in.bias": torch.zeros(3)}), r"unknown tensor 'head\.in\.bias' \(3,\)"),
    ],
)
def test_what_does_not_fit_is_named_and_nothing_is_written(files, foreign, change, message):
    weights = dict(foreign[0])
    change(weights)
    torch.save({"state_dict": weights}, files / "model.ckpt")
    with pytest.raises(DuologueError, match=message):
        run(files, files / "ours", Config())
    assert not (files / "ours").exists()


class Malicious:
    def __reduce__(self):
        return exec, ("raise SystemExit('this code was run')",)


def test_a_checkpoint_that_would_run_code_is_refused(files):
    torch.save({"state_dict": {}, "callbacks": Malicious()}, files / "model.ckpt")
    with pytest.raises(DuologueError, match=r"model\.ckpt is refused: its pickle names"):
        read(files / "model.ckpt", files / "model.yaml")
    with pytest.raises(DuologueError, match=r"no file .*missing\.yaml"):
        read(files / "model.ckpt", files / "missing.yaml")
    torch.save({"model": {}}, files / "model.ckpt")
    with pytest.raises(DuologueError, match="no 'state_dict'"):
        read(files / "model.ckpt", files / "model.yaml")
    (files / "other.yaml").write_text("a: 1")
    with pytest.raises(DuologueError, match=r"has 2 files that end in \.yaml"):
        run(files / "model.ckpt", files / "ours", Config())
