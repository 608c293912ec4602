"""A layer of a HuBERT from transformers as frame-wise features, 50 Hz: what LLaMA-Omni's units are clustered from.

Source: Hsu et al., "HuBERT" (arXiv 2106.07447), section 3; layer 11 of mHuBERT in LLaMA-Omni (arXiv 2409.06666).
"""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ...checkpoints.files import read_object
from ...checkpoints.source import one_line
from ...model.errors import DuologueError
from .features import HOP, SAMPLE_RATE, fingerprint
from .kmeans import CONFIG_FILE

_WINDOW = 400  # samples that the convolutions of every released HuBERT see for a frame


class HubertFeatures:
    """(n,) -> (n // 320, D): the output of block `layer`.

    A frame sees 400 samples; 40 zeros on both sides put it in the middle of its own 320 and give the last one a frame.
    Units that came from elsewhere (`duologue import hubert-kmeans`) were fitted on frames that begin with their 320, as
    HuBERT's own code makes them: there the samples are left as they are, and the last frame is repeated if one lacks.

    Args:
        source: a folder saved by transformers, or a hub id; weights in safetensors.
        layer: how many blocks, from 1 on; 0 is what the first block is given.
        centred: whether a frame stands in the middle of its samples. None: yes, unless the folder holds imported units.

    Raises DuologueError for a source that is not there, is no HuBERT of 50 Hz, or lacks weights, and for a layer that
    it does not have.
    """

    def __init__(self, source: str, layer: int, centred: bool | None = None) -> None:
        if not Path(source).is_dir() and (
            source.startswith((".", "~")) or not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", source)
        ):
            raise DuologueError(f"features=hubert:{source} is neither a folder nor a hub id")
        from safetensors import SafetensorError
        from transformers import AutoConfig, HubertModel

        try:
            config = AutoConfig.from_pretrained(source)
        except (OSError, ValueError) as error:
            raise DuologueError(f"features=hubert:{source}: {one_line(error)}") from None
        if config.model_type != "hubert":
            raise DuologueError(f"features=hubert:{source} is a {config.model_type}, not a hubert")
        if math.prod(config.conv_stride) != HOP or _window(config.conv_kernel, config.conv_stride) != _WINDOW:
            raise DuologueError(
                f"features=hubert:{source}: its frames are {math.prod(config.conv_stride)} samples apart and see "
                f"{_window(config.conv_kernel, config.conv_stride)}; expected {HOP} and {_WINDOW}"
            )
        if not 0 <= layer <= config.num_hidden_layers:
            raise DuologueError(f"layer {layer}: the HuBERT {source} has 0 to {config.num_hidden_layers}")
        try:
            model, info = HubertModel.from_pretrained(source, use_safetensors=True, output_loading_info=True)
        except (OSError, ValueError, RuntimeError, SafetensorError) as error:
            raise DuologueError(f"features=hubert:{source}: {one_line(error)}") from None
        if info["missing_keys"]:
            raise DuologueError(f"features=hubert:{source} lacks weights, {min(info['missing_keys'])} for one")
        self.layer = layer
        self.centred = not _imported(Path(source)) if centred is None else centred
        self.normalise = _wants_normalised(source, config.feat_extract_norm == "layer")
        # blocks above are not needed; one is kept, for what follows the last block is no longer its output
        model.encoder.layers = model.encoder.layers[: layer + 1]
        self.model = model.eval()
        self.fingerprint = fingerprint(model)

    @property
    def description(self) -> dict[str, Any]:
        facts = {"kind": "hubert", "weights": self.fingerprint, "layer": self.layer, "normalise": self.normalise}
        return facts if self.centred else facts | {"centred": False}

    @torch.no_grad()
    def __call__(self, waveform: Tensor) -> Tensor:
        frames = len(waveform) // HOP
        if frames == 0:
            return waveform.new_zeros(0, self.model.config.hidden_size)
        samples = waveform[: frames * HOP] if self.centred else waveform
        if self.normalise:
            samples = (samples - samples.mean()) / (samples.var(unbiased=False) + 1e-7).sqrt()
        if self.centred:
            samples = F.pad(samples, ((_WINDOW - HOP) // 2, (_WINDOW - HOP) // 2))
        else:
            samples = F.pad(samples, (0, max(0, _WINDOW - len(samples))))
        hidden = self.model(samples[None], output_hidden_states=True).hidden_states[self.layer]  # (1, T, D)
        return torch.cat([hidden[0], hidden[0, -1:].expand(frames - hidden.shape[1], -1)])


def _imported(folder: Path) -> bool:
    """Whether units lie in the folder that were fitted on frames which begin with their samples."""
    try:
        return read_object(folder / CONFIG_FILE)["features"].get("centred") is False
    except (OSError, ValueError, KeyError, AttributeError, TypeError):
        return False


def _wants_normalised(source: str, otherwise: bool) -> bool:
    """Whether clips are to have mean 0 and variance 1, as the model's own feature extractor says, if it has one."""
    from transformers import AutoFeatureExtractor

    try:
        extractor = AutoFeatureExtractor.from_pretrained(source)
    except (OSError, ValueError):
        return otherwise
    if extractor.sampling_rate != SAMPLE_RATE:
        raise DuologueError(f"features=hubert:{source} hears {extractor.sampling_rate} Hz, not {SAMPLE_RATE}")
    return bool(extractor.do_normalize)


def _window(kernels: list[int], strides: list[int]) -> int:
    """Samples that one frame sees."""
    size = 1
    for kernel, stride in zip(reversed(kernels), reversed(strides), strict=True):
        size = (size - 1) * stride + kernel
    return size
