"""``duologue import hubert-kmeans``: a HuBERT and its k-means from elsewhere, as features and quantiser in one folder.

duologue import hubert-kmeans mhubert_base.pt units kmeans=mhubert_L11_km1000.bin layer=11
duologue prepare units data=… features=hubert:units layer=11 quantiser=units clusters=1000
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from ...checkpoints.files import expanded
from ...checkpoints.folders import replaceable, replacing
from ...checkpoints.importers import imported_card
from ...checkpoints.importers.hubert_kmeans import read_centroids, read_hubert
from ...checkpoints.source import CARD
from ...model.errors import DuologueError
from .features import SAMPLE_RATE
from .hubert import HubertFeatures
from .kmeans import KMeansUnits


@dataclass(frozen=True, kw_only=True)
class Options:
    """
    kmeans: the centroids: scikit-learn's k-means kept by joblib or pickle, or a matrix as .npy
    layer: whose output they cluster, counted in blocks from 1
    heads: of the HuBERT, if they are not of 64 channels each
    """

    kmeans: str
    layer: int
    heads: int | None = None


def run(source: Path, dest: Path, options: Options) -> Path:
    """Write the HuBERT as a folder of transformers, and beside its files those of the quantiser.

    Raises:
        DuologueError: a tensor, the layer or the centroids do not fit; nothing is then written.
    """
    from transformers import Wav2Vec2FeatureExtractor

    dest = replaceable(dest)
    model, normalise = read_hubert(source, options.heads)
    centroids = read_centroids(expanded(options.kmeans))
    width = model.config.hidden_size
    if centroids.shape[1] != width:
        raise DuologueError(f"{options.kmeans} clusters {centroids.shape[1]} numbers a frame; {source} makes {width}")
    with replacing(dest) as beside:
        model.save_pretrained(beside)
        Wav2Vec2FeatureExtractor(sampling_rate=SAMPLE_RATE, do_normalize=normalise).save_pretrained(beside)
        features = HubertFeatures(str(beside), options.layer, centred=False)
        KMeansUnits(features, torch.zeros(width), torch.ones(width), centroids).save(beside)
        (beside / CARD).write_text(imported_card("HuBERT", source, model), encoding="utf-8")
    return dest
