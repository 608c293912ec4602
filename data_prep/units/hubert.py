"""A layer of a HuBERT from transformers as frame-wise features, 50 Hz: what LLaMA-Omni's units are clustered from.

Source: Hsu et al., "HuBERT" (arXiv 2106.07447), section 3; layer 11 of mHuBERT in LLaMA-Omni (arXiv 2409.06666).
"""

from __future__ import annotations

import re
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from ...checkpoints.files import read_object
from ...checkpoints.source import one_line
from ...checkpoints.units import CONFIG_FILE, HOP, SAMPLE_RATE, WINDOW, check_hubert, describe_hubert
from ...model.errors import DuologueError


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
        check_hubert(config, layer, source)
        try:
            model, info = HubertModel.from_pretrained(source, use_safetensors=True, output_loading_info=True)
        except (OSError, ValueError, RuntimeError, SafetensorError) as error:
            raise DuologueError(f"features=hubert:{source}: {one_line(error)}") from None
        if info["missing_keys"]:
            raise DuologueError(f"features=hubert:{source} lacks weights, {min(info['missing_keys'])} for one")
        self.layer = layer
        self.centred = not _imported(Path(source)) if centred is None else centred
        self.normalise = _wants_normalised(source, config.feat_extract_norm == "layer")
        self.description = describe_hubert(model, layer, self.normalise, self.centred)
        self.model = model.eval()

    @torch.no_grad()
    def __call__(self, waveform: Tensor) -> Tensor:
        frames = len(waveform) // HOP
        if frames == 0:
            return waveform.new_zeros(0, self.model.config.hidden_size)
        samples = waveform[: frames * HOP] if self.centred else waveform
        if self.normalise:
            samples = (samples - samples.mean()) / (samples.var(unbiased=False) + 1e-7).sqrt()
        if self.centred:
            samples = F.pad(samples, ((WINDOW - HOP) // 2, (WINDOW - HOP) // 2))
        else:
            samples = F.pad(samples, (0, max(0, WINDOW - len(samples))))
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
