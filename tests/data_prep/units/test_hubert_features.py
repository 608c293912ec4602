"""Units of a HuBERT from transformers. The models here have random weights and are saved to a folder first."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import HubertConfig, HubertModel, Wav2Vec2Config, Wav2Vec2FeatureExtractor, Wav2Vec2Model

from duologue.data_prep.datasets.shards import Clip, ShardWriter
from duologue.data_prep.prepare import main
from duologue.data_prep.recipes.units import Config, make_features
from duologue.data_prep.units.features import HOP, MfccFeatures
from duologue.data_prep.units.hubert import HubertFeatures
from duologue.data_prep.units.kmeans import KMeansUnits
from duologue.model.errors import DuologueError

SMALL: dict[str, Any] = {
    "hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 32,
    "conv_dim": (8,) * 7, "num_conv_pos_embeddings": 4, "num_conv_pos_embedding_groups": 2,
}  # fmt: skip


def save_hubert(folder: Path, seed: int = 0, **changes: Any) -> str:
    torch.manual_seed(seed)
    HubertModel(HubertConfig(**(SMALL | changes))).save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def hubert(tmp_path_factory: pytest.TempPathFactory) -> str:
    return save_hubert(tmp_path_factory.mktemp("hubert"))


def noise(n: int, seed: int = 0) -> torch.Tensor:
    return 0.1 * torch.randn(n, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("n", [0, 1, 319, 320, 321, 719, 720, 5000, 6400])
def test_a_frame_is_320_samples(hubert: str, n: int) -> None:
    frames = HubertFeatures(hubert, 2)(noise(n))
    assert frames.shape == (n // HOP, 16) and frames.isfinite().all() and not frames.requires_grad


@pytest.mark.parametrize("stable", [False, True])
@pytest.mark.parametrize("layer", [0, 1, 2, 3])
def test_it_is_the_layer_of_the_model(tmp_path: Path, layer: int, stable: bool) -> None:
    """The frames of transformers' own model, heard 40 samples earlier; a large one's last is not yet normalised."""
    source = save_hubert(tmp_path, do_stable_layer_norm=stable)
    whole, waveform = HubertModel.from_pretrained(source).eval(), noise(9600)
    kept = []
    if layer:
        whole.encoder.layers[layer - 1].register_forward_hook(lambda module, args, output: kept.append(output))
    else:
        whole.encoder.dropout.register_forward_hook(lambda module, args, output: kept.append(output))
    with torch.no_grad():
        whole(torch.nn.functional.pad(waveform, (40, 40))[None])
    wanted = kept[0][0] if isinstance(kept[0], tuple) else kept[0]
    wanted = wanted[0] if wanted.ndim == 3 else wanted
    torch.testing.assert_close(HubertFeatures(source, layer)(waveform), wanted)


def test_a_frame_describes_its_own_samples(hubert: str) -> None:
    """The convolutions see a click in the middle of frame 7 there, and at its edges the neighbour as well."""
    features = HubertFeatures(hubert, 0)
    features.model.encoder.pos_conv_embed = torch.nn.Module()
    features.model.encoder.pos_conv_embed.forward = torch.zeros_like
    features.model.config.feat_extract_norm = "layer"
    features.model.feature_extractor.conv_layers[0].layer_norm = torch.nn.Identity()  # it looks at the whole clip
    quiet, click = torch.zeros(20 * HOP), torch.zeros(20 * HOP)
    click[7 * HOP + HOP // 2] = 1.0
    changed = (features(quiet) - features(click)).abs().sum(1)  # (T,)
    assert changed.nonzero().flatten().tolist() == [7]


def test_loudness_is_evened_out_where_the_model_wants_it(tmp_path: Path) -> None:
    plain = save_hubert(tmp_path / "plain")
    large = save_hubert(tmp_path / "large", feat_extract_norm="layer", conv_bias=True)
    told = save_hubert(tmp_path / "told")
    Wav2Vec2FeatureExtractor(do_normalize=True).save_pretrained(told)
    quiet, loud = noise(6400), 5 * noise(6400) + 0.2
    for source, normalise in ((plain, False), (large, True), (told, True)):
        features = HubertFeatures(source, 2)
        assert features.description["normalise"] is normalise
        assert torch.allclose(features(quiet), features(loud), atol=1e-2) is normalise


def test_what_is_no_hubert(tmp_path: Path, hubert: str) -> None:
    Wav2Vec2Model(Wav2Vec2Config(**SMALL)).save_pretrained(tmp_path / "wav2vec2")
    save_hubert(tmp_path / "slow", conv_stride=(5, 2, 2, 2, 2, 2, 4))
    lacking = Path(save_hubert(tmp_path / "lacking"))
    config = json.loads((lacking / "config.json").read_text())
    (lacking / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 4}))
    broken = Path(save_hubert(tmp_path / "broken"))
    (broken / "model.safetensors").write_bytes(b"rubbish")
    bare = Path(save_hubert(tmp_path / "bare"))
    (bare / "model.safetensors").unlink()
    Wav2Vec2FeatureExtractor(sampling_rate=8000).save_pretrained(save_hubert(tmp_path / "telephone"))
    for name, layer, complaint in (
        ("wav2vec2", 1, "is a wav2vec2, not a hubert"),
        ("slow", 1, "640 samples apart"),
        ("lacking", 1, r"lacks weights, encoder\.layers\.3"),
        ("broken", 1, "broken: "),
        ("bare", 1, "bare: .*safetensors"),
        ("telephone", 1, "hears 8000 Hz"),
        ("nowhere", 1, "nowhere is neither a folder nor a hub id"),
    ):
        with pytest.raises(DuologueError, match=complaint) as caught:
            HubertFeatures(str(tmp_path / name), layer)
        assert "\n" not in str(caught.value)
    with pytest.raises(DuologueError, match=r"features=hubert:no/such: "):  # a hub id; tests have no network
        HubertFeatures("no/such", 1)
    for layer in (-1, 4):
        with pytest.raises(DuologueError, match="has 0 to 3"):
            HubertFeatures(hubert, layer)


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"features": "hubert"}, "features=hubert: expected hubert:FOLDER"),
        ({"features": "wavlm:x"}, "expected hubert:FOLDER"),
        ({"features": "hubert:x", "checkpoint": "y"}, "give one of them"),
    ],
)
def test_wrong_settings(changes: dict[str, str], complaint: str) -> None:
    with pytest.raises(DuologueError, match=complaint):
        Config(data="d", quantiser="q", **changes)


def test_the_recipe_takes_it(tmp_path: Path, hubert: str) -> None:
    data, kept = tmp_path / "data", tmp_path / "kept"
    writer = ShardWriter(data, name="own", sample_rate=16000, seed=0, parameters={})
    clips = [
        Clip((noise(16000, seed).numpy() * 20000).astype(np.int16), {"id": str(seed), "text": "x", "voice": "noise"})
        for seed in range(3)
    ]
    writer.write(0, clips)
    writer.finish()
    settings = [f"data={data}", f"quantiser={kept}", "clusters=8", "judge=0", "layer=2"]
    counts = main("units", [*settings, f"features=hubert:{hubert}"])
    assert counts["clips"] == 3
    rows = [json.loads(line) for line in (data / "units.jsonl").read_text().splitlines()]
    quantiser = KMeansUnits.load(kept, HubertFeatures(hubert, 2))
    waveform = torch.from_numpy(clips[1].pcm.astype(np.float32) / 32768)
    assert np.repeat(rows[1]["units"], rows[1]["durations"]).tolist() == quantiser.encode(waveform).tolist()
    other = save_hubert(tmp_path / "other", seed=1)
    for wrong in (HubertFeatures(other, 2), HubertFeatures(hubert, 1), MfccFeatures()):
        with pytest.raises(DuologueError, match="was fitted on features"):
            KMeansUnits.load(kept, wrong)
    with pytest.raises(DuologueError, match="fitted on a HuBERT"):
        KMeansUnits.load(kept)
    assert isinstance(make_features(Config(data="d", quantiser="q")), MfccFeatures)
