"""`duologue import code-hifigan` and `hubert-kmeans`: speech units and what makes them sound."""

from __future__ import annotations

import argparse
import json
import pickle
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from foreign_files import GOLDEN, nothing_written, shapes_of
from safetensors.torch import load_file
from transformers import (
    HubertConfig,
    HubertModel,
)

from duologue.checkpoints.importers import code_hifigan
from duologue.checkpoints.parts import load_part
from duologue.checkpoints.weights import check_tensors, made, named_tensors
from duologue.data_prep.units.hubert import HubertFeatures
from duologue.data_prep.units.kmeans import KMeansUnits
from duologue.demo.importing import run
from duologue.model.errors import DuologueError
from duologue.model.speech_decoder.unit_vocoder import UnitVocoder, UnitVocoderConfig


def test_code_hifigan(tmp_path: Path) -> None:
    torch.save({"generator": load_file(GOLDEN / "code_hifigan/generator.safetensors")}, tmp_path / "g_00500000")
    shutil.copy(GOLDEN / "code_hifigan/config.json", tmp_path / "config.json")
    expected = load_file(GOLDEN / "code_hifigan/expected.safetensors")
    for name, source in (("a", tmp_path), ("b", tmp_path / "g_00500000")):
        folder = run("code-hifigan", str(source), tmp_path / name, [])
        vocoder = load_part(folder, "vocoder", UnitVocoderConfig, UnitVocoder)
        with torch.no_grad():
            wanted = expected["waveform_with_durations"][:, 0]
            assert (vocoder(expected["code"]) - wanted).norm() / wanted.norm() < 1e-5


@torch.no_grad()
def test_chunks_of_any_size_join() -> None:
    tensors, config = (load_file(GOLDEN / "code_hifigan/generator.safetensors"), json.loads(
        (GOLDEN / "code_hifigan/config.json").read_text()))  # fmt: skip
    ours, weights = code_hifigan.convert(tensors, config)
    vocoder = UnitVocoder(ours).eval()
    vocoder.load_state_dict(weights)
    code = load_file(GOLDEN / "code_hifigan/expected.safetensors")["code"][:, :24]
    whole = vocoder(code)
    for size in (1, 3, 7, 16, code.shape[1]):
        state = vocoder.init_state()
        pieces = [vocoder.step(piece, state) for piece in code.split(size, dim=1)]
        assert (torch.cat([*pieces, vocoder.flush(state)], dim=1) - whole).abs().max() < 1e-4, size


def test_a_real_sized_unit_vocoder_is_covered_completely() -> None:
    """mHuBERT-1000's: every name and shape of fairseq's CodeGenerator, weight norm unfolded."""
    config = json.loads((GOLDEN / "code_hifigan/config.json").read_text()) | {
        "num_embeddings": 1000, "embedding_dim": 128, "model_in_dim": 128, "upsample_initial_channel": 512,
        "dur_predictor_params": {"encoder_embed_dim": 128, "var_pred_hidden_dim": 128, "var_pred_kernel_size": 3},
    }  # fmt: skip
    tensors = {"dict.weight": torch.empty(1000, 128)}

    def conv(name: str, out: int, inner: int, kernel: int, transposed: bool = False) -> None:
        shape = (inner, out, kernel) if transposed else (out, inner, kernel)
        tensors[f"{name}.weight_g"] = torch.empty(shape[0], 1, 1, device="meta")
        tensors[f"{name}.weight_v"] = torch.empty(shape, device="meta")
        tensors[f"{name}.bias"] = torch.empty(out, device="meta")

    for i in (1, 2):
        tensors[f"dur_predictor.conv{i}.0.weight"] = torch.empty(128, 128, 3)
        tensors |= {f"dur_predictor.{part}.bias": torch.empty(128) for part in (f"conv{i}.0", f"ln{i}")}
        tensors[f"dur_predictor.ln{i}.weight"] = torch.empty(128)
    tensors |= {"dur_predictor.proj.weight": torch.empty(1, 128), "dur_predictor.proj.bias": torch.empty(1)}
    conv("conv_pre", 512, 128, 7)
    for i, kernel in enumerate((11, 8, 8, 4, 4)):
        conv(f"ups.{i}", 512 >> (i + 1), 512 >> i, kernel, transposed=True)
        for j, size in enumerate((3, 7, 11)):
            for k in range(3):
                conv(f"resblocks.{3 * i + j}.convs1.{k}", 512 >> (i + 1), 512 >> (i + 1), size)
                conv(f"resblocks.{3 * i + j}.convs2.{k}", 512 >> (i + 1), 512 >> (i + 1), size)
    conv("conv_post", 1, 16, 7)
    ours, renamed = code_hifigan.convert(tensors, config)
    check_tensors(named_tensors(made(lambda: UnitVocoder(ours))), shapes_of(renamed), "real sizes")
    assert ours.hop == 320


def test_code_hifigan_that_does_not_fit(tmp_path: Path) -> None:
    tensors = load_file(GOLDEN / "code_hifigan/generator.safetensors")
    shutil.copy(GOLDEN / "code_hifigan/config.json", tmp_path / "config.json")
    for change, message in (
        ({"conv_post.bias": torch.zeros(2)}, r"'generator\.conv_out\.bias' has shape \(2,\); the config says \(1,\)"),
        ({"conv_post.bias": None}, r"'generator\.conv_out\.bias' \(1,\) is missing"),
        ({"spkr.weight": torch.zeros(2, 2)}, r"unknown tensor 'spkr\.weight' \(2, 2\)"),
    ):
        found = {name: tensor for name, tensor in (tensors | change).items() if tensor is not None}
        torch.save({"generator": found}, tmp_path / "g_1")
        with pytest.raises(DuologueError, match=message):
            run("code-hifigan", str(tmp_path / "g_1"), tmp_path / "out", [])
    assert nothing_written(tmp_path, {"config.json", "g_1"})


# HuBERT and k-means.

SMALL_HUBERT: dict[str, Any] = {
    "hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 32, "conv_dim": (8,) * 7,
    "num_conv_pos_embeddings": 4, "num_conv_pos_embedding_groups": 2, "mask_time_prob": 0.0,
}  # fmt: skip


def fairseq_hubert(model: HubertModel) -> dict[str, Any]:
    """The same network as a fairseq checkpoint holds it, beside things that are no tensors."""
    names = {
        "feature_projection.layer_norm": "layer_norm", "feature_projection.projection": "post_extract_proj",
        "encoder.pos_conv_embed.conv.parametrizations.weight.original0": "encoder.pos_conv.0.weight_g",
        "encoder.pos_conv_embed.conv.parametrizations.weight.original1": "encoder.pos_conv.0.weight_v",
        "encoder.pos_conv_embed.conv": "encoder.pos_conv.0", "feed_forward.intermediate_dense": "fc1",
        "feed_forward.output_dense": "fc2", ".attention.": ".self_attn.",
    }  # fmt: skip
    large = model.config.feat_extract_norm == "layer"
    tensors = {}
    for name, tensor in model.state_dict().items():
        for ours, theirs in names.items():
            name = name.replace(ours, theirs)
        if name.startswith("encoder.layers") and ".layer_norm." in name:
            name = name.replace(".layer_norm.", ".self_attn_layer_norm.")
        if name.startswith("feature_extractor"):
            name = name.replace(".conv.", ".0.").replace(".layer_norm.", ".2.1." if large else ".2.")
        tensors[name] = tensor
    tensors |= {
        "mask_emb": torch.ones(16),
        "final_proj.weight": torch.ones(4, 16),
        "label_embs_concat": torch.ones(5, 4),
    }
    return {"args": argparse.Namespace(arch="hubert"), "model": tensors, "optimizer_history": [{"num_updates": 3}]}


def k_means(path: Path, clusters: int = 7, width: int = 16) -> np.ndarray:
    import joblib
    from sklearn.cluster import MiniBatchKMeans

    fitted = MiniBatchKMeans(clusters, n_init=1, random_state=0)
    fitted.fit(np.random.default_rng(0).standard_normal((60, width)).astype(np.float32))
    if path.suffix == ".npy":
        np.save(path, fitted.cluster_centers_)
    elif path.suffix == ".pkl":
        path.write_bytes(pickle.dumps(fitted))
    else:
        joblib.dump(fitted, path)
    return fitted.cluster_centers_


@pytest.mark.parametrize(
    ("form", "clusters"), [("fairseq", "km.bin"), ("fairseq large", "km.pkl"), ("transformers", "km.npy")]
)
def test_hubert_and_its_units(tmp_path: Path, form: str, clusters: str) -> None:
    torch.manual_seed(0)
    large = {"feat_extract_norm": "layer", "do_stable_layer_norm": True, "conv_bias": True} if "large" in form else {}
    model = HubertModel(HubertConfig(**(SMALL_HUBERT | large))).eval()
    if form == "transformers":
        model.save_pretrained(tmp_path / "hubert")
    else:
        torch.save(fairseq_hubert(model), tmp_path / "hubert")
    centroids = k_means(tmp_path / clusters)
    options = [f"kmeans={tmp_path / clusters}", "layer=2", "heads=2"]
    folder = run("hubert-kmeans", str(tmp_path / "hubert"), tmp_path / "units", options)

    units = KMeansUnits.load(folder, HubertFeatures(str(folder), 2))
    waveform = 0.1 * torch.randn(9700)
    heard = (waveform - waveform.mean()) / waveform.std(unbiased=False) if large else waveform
    with torch.no_grad():
        frames = model(heard[None], output_hidden_states=True).hidden_states[2][0].numpy()
    nearest = ((frames[:, None] - centroids) ** 2).sum(-1).argmin(1)
    found = units.encode(waveform)
    assert len(found) == 9700 // 320
    assert found[: len(nearest)].tolist() == nearest.tolist()
    assert len(set(nearest.tolist())) > 1


def test_hubert_that_does_not_fit(tmp_path: Path) -> None:
    torch.manual_seed(0)
    found = fairseq_hubert(HubertModel(HubertConfig(**SMALL_HUBERT)))
    k_means(tmp_path / "km.npy")
    k_means(tmp_path / "wide.npy", width=17)
    good = dict(found["model"])
    before = {"hubert.pt", "km.npy", "wide.npy"}
    for change, kmeans, message in (
        ({"encoder.layers.1.fc2.bias": None}, "km", r"'encoder\.layers\.1\.feed_forward.*\.bias' \(16,\) is missing"),
        ({"encoder.layers.1.fc3.bias": torch.ones(2)}, "km", r"unknown tensor 'encoder\.layers\.1\.fc3\.bias' \(2,\)"),
        ({}, "wide", r"clusters 17 numbers a frame; .* makes 16"),
    ):
        found["model"] = {name: tensor for name, tensor in (good | change).items() if tensor is not None}
        torch.save(found, tmp_path / "hubert.pt")
        options = [f"kmeans={tmp_path / kmeans}.npy", "layer=2", "heads=2"]
        with pytest.raises(DuologueError, match=message):
            run("hubert-kmeans", str(tmp_path / "hubert.pt"), tmp_path / "units", options)
        assert nothing_written(tmp_path, before)
    with pytest.raises(DuologueError, match=r"layer 4: the HuBERT .* has 0 to 3"):
        found["model"] = good
        torch.save(found, tmp_path / "hubert.pt")
        run("hubert-kmeans", str(tmp_path / "hubert.pt"), tmp_path / "u", [f"kmeans={tmp_path}/km.npy", "layer=4"])
    assert nothing_written(tmp_path, before)
