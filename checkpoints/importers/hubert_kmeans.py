"""A HuBERT and its k-means, of fairseq or transformers: the speech units of LLaMA-Omni (duologue prepare units).

Both come to lie in one folder:

    duologue import hubert-kmeans mhubert_base.pt units kmeans=mhubert_L11_km1000.bin layer=11
    duologue prepare units data=… features=hubert:units layer=11 quantiser=units clusters=1000

fairseq is not needed: the sizes are read from the tensors. Source: Hsu et al., "HuBERT" (arXiv 2106.07447).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...model.errors import DuologueError
from ..cards.render import write_card
from ..files import expanded, read_object
from ..folders import replaceable, replacing
from ..units import SAMPLE_RATE, check_hubert, describe_hubert, save_quantiser
from ..weights import assign, made
from . import KeyTable, imported_card, rename_keys
from .fairseq_wav2vec2 import key_table
from .files import as_state_dict, read_folder
from .pickles import load_arrays, load_fairseq

SOURCE = "HuBERT"
STRIDES = (5, 2, 2, 2, 2, 2, 2)  # of every released HuBERT; a weight does not show its stride

FAIRSEQ: KeyTable = {
    r"final_proj\.(?:weight|bias)": None,  # what it was trained to predict
    r"label_embs_concat": None,
    **key_table("", ""),
}
_POS = r"(?:hubert\.)?encoder\.pos_conv_embed\.conv\."
TRANSFORMERS: KeyTable = {
    r"(?:hubert\.)?masked_spec_embed": None,
    r"lm_head\..*|projector\..*|classifier\..*": None,
    rf"{_POS}weight_g": r"encoder.pos_conv_embed.conv.parametrizations.weight.original0",
    rf"{_POS}weight_v": r"encoder.pos_conv_embed.conv.parametrizations.weight.original1",
    r"(?:hubert\.)?((?:encoder|feature_extractor|feature_projection)\..*)": r"\1",
}


def convert(state_dict: dict[str, Tensor], heads: int | None = None) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """A fairseq HuBERT's tensors -> transformers' config fields and tensors. Sizes are read from the shapes.

    Args:
        heads: by default as released: 64 channels each, or 80 where the width is 1280.
    Raises:
        DuologueError: an unknown tensor, or one that the sizes are read from is missing.
    """

    def shape(name: str) -> torch.Size:
        if name not in state_dict:
            raise DuologueError(f"{SOURCE} checkpoint lacks the tensor {name}")
        return state_dict[name].shape

    convs = [shape(f"feature_extractor.conv_layers.{i}.0.weight") for i in range(len(STRIDES))]
    hidden = shape("post_extract_proj.weight")[0]
    large = "feature_extractor.conv_layers.0.2.1.weight" in state_dict  # a norm in every convolution, none after blocks
    positions = shape("encoder.pos_conv.0.weight_v")
    config = {
        "conv_dim": [conv[0] for conv in convs],
        "conv_kernel": [conv[2] for conv in convs],
        "conv_stride": list(STRIDES),
        "conv_bias": "feature_extractor.conv_layers.0.0.bias" in state_dict,
        "feat_extract_norm": "layer" if large else "group",
        "do_stable_layer_norm": large,
        "hidden_size": hidden,
        "intermediate_size": shape("encoder.layers.0.fc1.weight")[0],
        "num_attention_heads": heads or max(1, hidden // (80 if hidden == 1280 else 64)),
        "num_hidden_layers": len({name.split(".")[2] for name in state_dict if name.startswith("encoder.layers.")}),
        "num_conv_pos_embeddings": positions[2],
        "num_conv_pos_embedding_groups": hidden // positions[1],
        "mask_time_prob": 0.0,
        "mask_feature_prob": 0.0,
    }
    return config, rename_keys(state_dict, FAIRSEQ, SOURCE)


def read_hubert(source: Path, heads: int | None = None) -> tuple[Any, bool]:
    """A transformers HubertModel with the source's tensors, and whether it wants clips of mean 0 and variance 1.

    Raises:
        DuologueError: naming the tensor that is unknown, missing or misshapen.
    """
    from transformers import HubertConfig, HubertModel

    if source.is_dir():
        settings = read_object(source / "config.json")
        if settings.get("model_type") != "hubert":
            raise DuologueError(f"{source} is a {settings.get('model_type')}, not a hubert")
        fields = settings | {"mask_time_prob": 0.0, "mask_feature_prob": 0.0}
        tensors = rename_keys(read_folder(source), TRANSFORMERS, SOURCE)
        preprocessor = source / "preprocessor_config.json"
        normalise = settings.get("feat_extract_norm") == "layer"
        if preprocessor.is_file():
            normalise = bool(read_object(preprocessor).get("do_normalize", normalise))
    else:
        found = load_fairseq(source)
        if not isinstance(found, dict) or "model" not in found:
            raise DuologueError(f"{source} has no 'model': it is no fairseq checkpoint")
        fields, tensors = convert(as_state_dict(found["model"], str(source)), heads)
        normalise = fields["feat_extract_norm"] == "layer"
    model = made(lambda: HubertModel(HubertConfig.from_dict(fields)))
    assign(model, tensors, str(source))
    return model, normalise


def read_centroids(path: Path) -> Tensor:
    """Centroids (K, D) float32 from a ``.npy``, or from a k-means of scikit-learn kept by joblib or pickle.

    Raises:
        DuologueError: the file holds nothing of the kind.
    """
    try:
        found: Any = np.load(path, allow_pickle=False) if path.suffix == ".npy" else load_arrays(path)
    except (OSError, ValueError) as error:
        raise DuologueError(f"{path} cannot be read: {error}") from None
    centroids = getattr(found, "cluster_centers_", found)
    if not isinstance(centroids, np.ndarray) or centroids.ndim != 2:
        raise DuologueError(f"{path} holds no k-means: neither cluster_centers_ nor a matrix")
    return torch.from_numpy(np.array(centroids, np.float32))  # a copy: what was read cannot be written to


@dataclass(frozen=True, kw_only=True)
class Config:
    """
    kmeans: the centroids: scikit-learn's k-means kept by joblib or pickle, or a matrix as .npy
    layer: whose output they cluster, counted in blocks from 1
    heads: of the HuBERT, if they are not of 64 channels each
    """

    kmeans: str
    layer: int
    heads: int | None = None


def run(source: Path, dest: Path, config: Config) -> Path:
    """Write the HuBERT as a folder of transformers, and beside its files those of the quantiser.

    Raises:
        DuologueError: a tensor, the layer or the centroids do not fit; nothing is then written.
    """
    from transformers import Wav2Vec2FeatureExtractor

    dest = replaceable(dest)
    model, normalise = read_hubert(source, config.heads)
    check_hubert(model.config, config.layer, source)
    centroids = read_centroids(expanded(config.kmeans))
    width = model.config.hidden_size
    if centroids.shape[1] != width:
        raise DuologueError(f"{config.kmeans} clusters {centroids.shape[1]} numbers a frame; {source} makes {width}")
    with replacing(dest) as beside:
        model.save_pretrained(beside)
        Wav2Vec2FeatureExtractor(sampling_rate=SAMPLE_RATE, do_normalize=normalise).save_pretrained(beside)
        # its frames begin with their samples, as HuBERT's own code makes them
        features = describe_hubert(model, config.layer, normalise, centred=False)
        save_quantiser(beside, features, torch.zeros(width), torch.ones(width), centroids)
        write_card(beside, replace(imported_card(SOURCE, source), name=dest.name))
    return dest
