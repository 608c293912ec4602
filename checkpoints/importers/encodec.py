"""EnCodec's causal 24 kHz codec, as its authors released it (a .th state dict) or as transformers keeps it.

One table covers both: transformers names a layer ``encoder.layers.0.conv``, EnCodec ``encoder.model.0.conv.conv``.
The stereo model of 48 kHz, whose norms look at all of time, is another network.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ...model.codec.codec import Codec, CodecConfig
from ...model.codec.quantiser import QuantiserConfig
from ...model.codec.seanet import SEANetConfig
from ...model.errors import DuologueError
from ..files import read_object
from ..parts import save_part
from ..weights import assign, made
from . import KeyTable, fold_weight_norm, imported_card, rename_keys
from .files import read_folder, read_tensors

SOURCE = "EnCodec"
LAYER = r"(?:model|layers)"  # EnCodec's list of layers, or transformers'
CONV = r"(?:conv\.conv|convtr\.convtr|conv)"
ENTRIES = re.compile(r"quantizer\.(?:vq\.)?layers\.(\d+)\.(?:_codebook|codebook)\.embed")
STATISTICS = re.compile(r"quantizer\.(?:vq\.)?layers\.\d+\.(?:_codebook|codebook)\.(?:inited|cluster_size|embed_avg)")
# transformers' config must say so, or the network is another one.
KNOWN = {
    "audio_channels": 1, "use_causal_conv": True, "pad_mode": "reflect", "norm_type": "weight_norm", "normalize": False,
    "num_residual_layers": 1, "chunk_length_s": None, "trim_right_ratio": 1.0, "kernel_size": 7, "last_kernel_size": 7,
}  # fmt: skip


def read(source: Path) -> tuple[dict[str, Tensor], dict[str, Any] | None]:
    """A ``.th`` file, or a transformers folder, for :func:`convert`. No code is run.

    Raises:
        DuologueError: nothing is there, or something else, or it would have to run code to be read.
    """
    if source.is_dir():
        return read_folder(source), read_object(source / "config.json")
    if not source.is_file():
        raise DuologueError(f"there is no file {source}")
    return read_tensors(source), None


def convert(
    state_dict: dict[str, Tensor], config: dict[str, Any] | None = None
) -> tuple[CodecConfig, dict[str, Tensor]]:
    """EnCodec's weights -> ours; load the result strictly.

    Args:
        config: transformers' config.json; ``None`` for EnCodec's own release, whose sizes are read from the shapes.

    Raises:
        DuologueError: an unknown or missing tensor, or a variant that the codec does not have.
    """
    for field, known in KNOWN.items():
        if config is not None and config.get(field, known) != known:
            raise DuologueError(f"{SOURCE} config has {field} = {config[field]!r}; only {known!r} is known")
    weight_norm = {"parametrizations.weight.original0": "weight_g", "parametrizations.weight.original1": "weight_v"}
    plain = {}
    for key, tensor in state_dict.items():
        for new, old in weight_norm.items():
            key = key.replace(new, old)
        if not STATISTICS.fullmatch(key):
            plain[key] = tensor
    plain = fold_weight_norm(plain)
    books = {int(found[1]): key for key in plain if (found := ENTRIES.fullmatch(key))}
    if not books or sorted(books) != list(range(len(books))):
        raise DuologueError(f"{SOURCE} checkpoint has the codebooks {sorted(books)}; they must be 0, 1, 2 …")
    entries = torch.stack([plain.pop(books[k]) for k in sorted(books)])  # (K, size, D)
    sample_rate = 24000 if config is None else config["sampling_rate"]
    encoder = _encoder_config(plain)
    ours = CodecConfig(
        sample_rate=sample_rate,
        encoder=encoder,
        quantiser=QuantiserConfig(dim=entries.shape[2], size=entries.shape[1], codebooks=len(books)),
        decoder=None,
    )
    table = {rf"encoder\.{LAYER}\.{key}": name for key, name in encoder_keys(encoder).items()}
    table |= {rf"decoder\.{LAYER}\.{key}": name for key, name in decoder_keys(encoder).items()}
    weights = rename_keys(plain, table, SOURCE)
    weights["quantiser.entries"] = entries
    return ours, weights


def _encoder_config(plain: dict[str, Tensor]) -> SEANetConfig:
    """Sizes, from the shapes of plain weights: a strided convolution's kernel is twice its stride."""
    kernels: dict[int, torch.Size] = {}
    for key, tensor in plain.items():
        if found := re.fullmatch(rf"encoder\.{LAYER}\.(\d+)\.{CONV}\.weight", key):
            kernels[int(found[1])] = tensor.shape  # (C_out, C_in, kernel)
    if len(kernels) < 3:
        raise DuologueError(f"{SOURCE} checkpoint lacks the tensors encoder.model.*.conv.conv.weight")
    first, *strided, last = (kernels[at] for at in sorted(kernels))
    if first[1] != 1:
        raise DuologueError(f"{SOURCE} checkpoint takes {first[1]} channels; only the mono model of 24 kHz is known")
    lstm = {found[1] for key in plain if (found := re.search(r"^encoder\..*\.lstm\.weight_hh_l(\d+)$", key))}
    unit = next((t.shape for k, t in plain.items() if re.search(rf"^encoder\..*\.block\.1\.{CONV}\.weight$", k)), None)
    if unit is None:
        raise DuologueError(f"{SOURCE} checkpoint lacks the tensors encoder.model.*.block.1.conv.conv.weight")
    return SEANetConfig(
        dim=last[0],
        filters=first[0],
        ratios=tuple(shape[2] // 2 for shape in strided),
        kernel=first[2],
        residual_kernel=unit[2],
        compress=unit[1] // unit[0],
        conv_shortcut=any(".shortcut." in key for key in plain),
        lstm_layers=len(lstm),
        causal=True,
    )


def encoder_keys(config: SEANetConfig) -> KeyTable:
    """EnCodec's names below its list of layers, activations counted -> ours."""
    table: KeyTable = {rf"0\.{CONV}\.(weight|bias)": r"encoder.conv_in.\1"}
    for i in range(len(config.ratios)):
        table |= _unit_keys(3 * i + 1, f"encoder.units.{i}")
        table[rf"{3 * i + 3}\.{CONV}\.(weight|bias)"] = rf"encoder.resamplers.{i}.\1"
    at = 3 * len(config.ratios) + 1
    if config.lstm_layers:
        table[rf"{at}\.lstm\.((?:weight|bias)_[ih]h_l\d+)"] = r"encoder.lstm.lstm.\1"
        at += 1
    table[rf"{at + 1}\.{CONV}\.(weight|bias)"] = r"encoder.conv_out.\1"
    return table


def decoder_keys(config: SEANetConfig) -> KeyTable:
    """The same for the decoder."""
    table: KeyTable = {rf"0\.{CONV}\.(weight|bias)": r"decoder.conv_in.\1"}
    at = 1
    if config.lstm_layers:
        table[r"1\.lstm\.((?:weight|bias)_[ih]h_l\d+)"] = r"decoder.lstm.lstm.\1"
        at = 2
    for i in range(len(config.ratios)):
        table[rf"{at + 3 * i + 1}\.{CONV}\.(weight|bias)"] = rf"decoder.resamplers.{i}.\1"
        table |= _unit_keys(at + 3 * i + 2, f"decoder.units.{i}")
    table[rf"{at + 3 * len(config.ratios) + 1}\.{CONV}\.(weight|bias)"] = r"decoder.conv_out.\1"
    return table


def _unit_keys(at: int, ours: str) -> KeyTable:
    return {
        rf"{at}\.block\.1\.{CONV}\.(weight|bias)": rf"{ours}.conv1.\1",
        rf"{at}\.block\.3\.{CONV}\.(weight|bias)": rf"{ours}.conv2.\1",
        rf"{at}\.shortcut\.{CONV}\.(weight|bias)": rf"{ours}.shortcut.\1",
    }


@dataclass(frozen=True, kw_only=True)
class Config:
    """Nothing is needed besides."""


def run(source: Path, dest: Path, config: Config) -> Path:
    """Import ``encodec_24khz-d7cc33bc.th`` or a folder of transformers to a folder for ``load_part``."""
    sizes, tensors = convert(*read(source))
    codec = made(lambda: Codec(sizes))
    assign(codec, tensors, str(source))
    return save_part(dest, "codec", codec, sizes, imported_card(SOURCE, source))
