"""The folder of a unit quantiser: k-means centroids, and what makes the frames that they cluster.

``units.json`` says how many units there are and describes the features; ``units.safetensors`` holds the mean and scale
(D,) by which a frame is standardised, and the centroids (K, D) of standardised frames.
"""

from __future__ import annotations

import hashlib
import math
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from ..model.errors import DuologueError
from .files import expanded, read_object, write_atomically, write_json

WEIGHTS_FILE, CONFIG_FILE = "units.safetensors", "units.json"
SAMPLE_RATE = 16_000  # Hz
HOP = 320  # samples a frame: 50 Hz
WINDOW = 400  # samples that the convolutions of every released HuBERT see for a frame
TENSORS = ("mean", "scale", "centroids")


def save_quantiser(
    folder: str | Path, features: dict[str, Any], mean: Tensor, scale: Tensor, centroids: Tensor
) -> None:
    """Write a quantiser into ``folder``; ``features`` decides with which features it may be used."""
    from safetensors.torch import save

    folder = expanded(folder)
    folder.mkdir(parents=True, exist_ok=True)
    tensors = dict(zip(TENSORS, (mean.contiguous(), scale.contiguous(), centroids.contiguous()), strict=True))
    write_atomically(folder / WEIGHTS_FILE, save(tensors))
    write_json(folder / CONFIG_FILE, {"clusters": len(centroids), "features": features})


def read_quantiser(folder: str | Path) -> tuple[dict[str, Any], tuple[Tensor, Tensor, Tensor]]:
    """What the features are, and mean, scale and centroids. Raises DuologueError when no quantiser is there."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    folder = expanded(folder)
    if not all((folder / name).is_file() for name in (CONFIG_FILE, WEIGHTS_FILE)):
        raise DuologueError(f"{folder} holds no units: expected {CONFIG_FILE} and {WEIGHTS_FILE}")
    try:
        features, tensors = read_object(folder / CONFIG_FILE)["features"], load_file(folder / WEIGHTS_FILE)
        mean, scale, centroids = (tensors[name] for name in TENSORS)
    except (KeyError, TypeError, SafetensorError) as error:
        raise DuologueError(f"{folder}: its units cannot be read ({error!r}); fit them again") from None
    return features, (mean, scale, centroids)


def fingerprint(module: nn.Module) -> str:
    """Sixteen hex digits that change with any weight."""
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().float().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


def check_hubert(config: Any, layer: int, source: str | Path) -> None:
    """Raises DuologueError unless transformers' ``config`` is a HuBERT of 50 frames a second that has the layer."""
    if config.model_type != "hubert":
        raise DuologueError(f"features=hubert:{source} is a {config.model_type}, not a hubert")
    hop, window = math.prod(config.conv_stride), 1
    for kernel, stride in zip(reversed(config.conv_kernel), reversed(config.conv_stride), strict=True):
        window = (window - 1) * stride + kernel
    if (hop, window) != (HOP, WINDOW):
        raise DuologueError(
            f"features=hubert:{source}: its frames are {hop} samples apart and see {window}; "
            f"expected {HOP} and {WINDOW}"
        )
    if not 0 <= layer <= config.num_hidden_layers:
        raise DuologueError(f"layer {layer}: the HuBERT {source} has 0 to {config.num_hidden_layers}")


def describe_hubert(model: Any, layer: int, normalise: bool, centred: bool) -> dict[str, Any]:
    """The features that block ``layer`` makes. Blocks above the next one are cut off ``model``: no frame needs them.

    One more is kept, for what follows the last block is no longer its output.
    """
    model.encoder.layers = model.encoder.layers[: layer + 1]
    facts = {"kind": "hubert", "weights": fingerprint(model), "layer": layer, "normalise": normalise}
    return facts if centred else facts | {"centred": False}
