"""WavTokenizer's released codecs: a Lightning .ckpt and the YAML that it was trained with.

The state dict is what the ``.ckpt`` keeps under ``"state_dict"``; the config is the YAML file as a dictionary. Sizes
that the YAML leaves to the code are read from the shapes. Discriminators, losses and EnCodec's own decoder, which
WavTokenizer carries along unused, are dropped. The norms that were trained for four bandwidths, all of them alike,
become plain ones of the bandwidth asked for.
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
from ...model.codec.vocos import VocosConfig
from ...model.errors import DuologueError
from ..files import expanded, read_text
from ..parts import save_part
from ..source import one_line
from ..weights import assign, made
from . import KeyTable, fold_weight_norm, imported_card, rename_keys
from .encodec import encoder_keys
from .files import as_state_dict, only
from .pickles import load_tensors

SOURCE = "WavTokenizer"
FEATURES = "feature_extractor.encodec."
ENCODER = FEATURES + "encoder.model."
ENTRIES = re.compile(re.escape(FEATURES) + r"quantizer\.vq\.layers\.(\d+)\._codebook\.embed")
# What a codec does not need: discriminators and losses, EnCodec's decoder, statistics of training, a window.
DROPPED = (
    r"(multiperioddisc|multiresddisc|dac|disc_loss|gen_loss|feat_matching_loss|melspec_loss|dacdiscriminator)\..*",
    r"utmos_model\..*",
    re.escape(FEATURES) + r"decoder\..*",
    re.escape(FEATURES) + r"quantizer\.vq\.layers\.\d+\._codebook\.(inited|cluster_size|embed_avg)",
    r"head\.istft\.window",
)
# What Lightning may have put beside the weights: a dictionary by another name.
ATTRIBUTE_DICTS = (
    "pytorch_lightning.utilities.parsing.AttributeDict",
    "lightning.pytorch.utilities.parsing.AttributeDict",
    "lightning_fabric.utilities.data.AttributeDict",
    "lightning.fabric.utilities.data.AttributeDict",
)


class _Fields(dict[str, Any]):
    """Stands in for Lightning's AttributeDict."""


def read(checkpoint: Path, config: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The ``.ckpt``'s state dict and the YAML's dictionary, for :func:`convert`. No code of either file is run.

    Raises:
        DuologueError: a file that is not there, or is something else, or would have to run code to be read.
    """
    import yaml

    if not config.is_file():
        raise DuologueError(f"there is no file {config}; {SOURCE} needs the .yaml that it was trained with")
    if not checkpoint.is_file():
        raise DuologueError(f"there is no file {checkpoint}; {SOURCE} needs its .ckpt")
    with torch.serialization.safe_globals([(_Fields, name) for name in ATTRIBUTE_DICTS]):
        content = load_tensors(checkpoint)
    if not isinstance(content, dict) or "state_dict" not in content:
        raise DuologueError(f"{checkpoint} is not a {SOURCE} checkpoint: it has no 'state_dict'")
    try:
        fields = yaml.safe_load(read_text(config))
    except yaml.YAMLError as error:
        raise DuologueError(f"{config} is not YAML: {one_line(error)}") from None
    return as_state_dict(content["state_dict"], str(checkpoint)), fields


def convert(
    state_dict: dict[str, Tensor], config: dict[str, Any], bandwidth_id: int = 0
) -> tuple[CodecConfig, dict[str, Tensor]]:
    """WavTokenizer's weights and YAML -> ours; load the result strictly.

    Args:
        bandwidth_id: which row of the adaptive norms to take; the released examples use 0.

    Raises:
        DuologueError: an unknown or missing tensor, a missing field, or a variant that the codec does not have.
    """
    ours = convert_config(state_dict, config)
    plain = fold_weight_norm({key: tensor for key, tensor in state_dict.items() if not _dropped(key)})
    books = {int(found[1]): key for key in plain if (found := ENTRIES.fullmatch(key))}
    if sorted(books) != list(range(ours.quantiser.codebooks)):
        raise DuologueError(
            f"{SOURCE} checkpoint has the codebooks {sorted(books)}; the config says {ours.quantiser.codebooks}"
        )
    entries = torch.stack([plain.pop(books[k]) for k in sorted(books)])  # (K, size, D)
    for key in [key for key in plain if re.fullmatch(r"backbone\.(.*\.)?norm\.(scale|shift)\.weight", key)]:
        rows = plain[key]
        if not 0 <= bandwidth_id < len(rows):
            raise DuologueError(f"bandwidth_id is {bandwidth_id}; {key} has the rows 0 to {len(rows) - 1}")
        plain[key] = rows[bandwidth_id]
    for key in [key for key in plain if re.fullmatch(r"backbone\.pos_net\.\d+\.(q|k|v|proj_out)\.weight", key)]:
        plain[key] = plain[key].squeeze(-1)  # a convolution of one frame is a linear layer
    weights = rename_keys(plain, key_table(ours), SOURCE)
    weights["quantiser.entries"] = entries
    return ours, weights


def _dropped(key: str) -> bool:
    return re.fullmatch("|".join(DROPPED), key) is not None


def key_table(config: CodecConfig) -> KeyTable:
    """WavTokenizer's names -> ours, after weight norm has been folded."""
    assert isinstance(config.encoder, SEANetConfig)
    table: KeyTable = {re.escape(ENCODER) + key: name for key, name in encoder_keys(config.encoder).items()}
    half = 2  # residual blocks before the attention, and as many behind it
    table |= {
        r"backbone\.embed\.(weight|bias)": r"decoder.embed.\1",
        r"backbone\.norm\.scale\.weight": r"decoder.norm.weight",
        r"backbone\.norm\.shift\.weight": r"decoder.norm.bias",
        r"backbone\.norm\.(weight|bias)": r"decoder.norm.\1",
        r"backbone\.convnext\.(\d+)\.(dwconv|pwconv1|pwconv2)\.(weight|bias)": r"decoder.layers.\1.\2.\3",
        r"backbone\.convnext\.(\d+)\.norm\.scale\.weight": r"decoder.layers.\1.norm.weight",
        r"backbone\.convnext\.(\d+)\.norm\.shift\.weight": r"decoder.layers.\1.norm.bias",
        r"backbone\.convnext\.(\d+)\.norm\.(weight|bias)": r"decoder.layers.\1.norm.\2",
        r"backbone\.convnext\.(\d+)\.gamma": r"decoder.layers.\1.gamma",
        r"backbone\.final_layer_norm\.(weight|bias)": r"decoder.norm_out.\1",
        rf"backbone\.pos_net\.{half}\.norm\.(weight|bias)": r"decoder.attention.norm.\1",
        rf"backbone\.pos_net\.{2 * half + 1}\.(weight|bias)": r"decoder.norm_in.\1",
        r"head\.out\.(weight|bias)": r"decoder.head.\1",
    }
    for theirs, name in {"q": "query", "k": "key", "v": "value", "proj_out": "out"}.items():
        table[rf"backbone\.pos_net\.{half}\.{theirs}\.(weight|bias)"] = rf"decoder.attention.{name}.\1"
    for i in range(2 * half):
        there = i if i < half else i + 1  # the attention stands between
        table[rf"backbone\.pos_net\.{there}\.(norm1|conv1|norm2|conv2)\.(weight|bias)"] = rf"decoder.blocks.{i}.\1.\2"
    return table


def convert_config(state_dict: dict[str, Tensor], config: dict[str, Any]) -> CodecConfig:
    """The YAML, and from the shapes what it does not say.

    Raises:
        DuologueError: a missing field or tensor, or a variant that the codec does not have.
    """
    try:
        fields = config["model"]["init_args"] if "model" in config else config
        features, backbone, head = (fields[part]["init_args"] for part in ("feature_extractor", "backbone", "head"))
        ratios = tuple(reversed(features["dowmsamples"]))  # as it is spelt there
        codebooks, size = features["num_quantizers"], features["vq_bins"]
        sizes = (backbone["input_channels"], backbone["dim"], backbone["intermediate_dim"], backbone["num_layers"])
        n_fft, hop, padding = head["n_fft"], head["hop_length"], head.get("padding", "same")
        sample_rate = fields.get("sample_rate", 24000)
    except (KeyError, TypeError) as error:
        raise DuologueError(f"{SOURCE} config lacks {error}") from None
    if padding != "same":
        raise DuologueError(f"{SOURCE} head has padding {padding!r}; only 'same' is known")
    last = 3 * len(ratios) + 3
    layers = {found[1] for key in state_dict if (found := re.search(r"\.lstm\.weight_hh_l(\d+)$", key))}
    encoder = SEANetConfig(
        dim=_shape(state_dict, f"{ENCODER}{last}.conv.conv.bias")[0],
        filters=_shape(state_dict, f"{ENCODER}0.conv.conv.bias")[0],
        ratios=ratios,
        lstm_layers=len(layers),
    )
    in_dim, dim, ffn_dim, count = sizes
    return CodecConfig(
        sample_rate=sample_rate,
        encoder=encoder,
        quantiser=QuantiserConfig(dim=encoder.dim, size=size, codebooks=codebooks),
        decoder=VocosConfig(in_dim=in_dim, dim=dim, ffn_dim=ffn_dim, layers=count, n_fft=n_fft, hop=hop),
    )


def _shape(state_dict: dict[str, Tensor], key: str) -> torch.Size:
    if key not in state_dict:
        raise DuologueError(f"{SOURCE} checkpoint lacks the tensor {key}")
    return state_dict[key].shape


@dataclass(frozen=True, kw_only=True)
class Config:
    """
    config: the .yaml that the checkpoint was trained with; by default the only one beside it
    bandwidth_id: which row of the adaptive norms to take
    """

    config: str | None = None
    bandwidth_id: int = 0


def run(source: Path, dest: Path, config: Config) -> Path:
    """Import a ``.ckpt``, or the folder that holds one with its ``.yaml``, to a folder for ``load_part``."""
    checkpoint = only(source, ".ckpt") if source.is_dir() else source
    settings = expanded(config.config) if config.config else only(checkpoint.parent, ".yaml")
    sizes, tensors = convert(*read(checkpoint, settings), config.bandwidth_id)
    codec = made(lambda: Codec(sizes))
    assign(codec, tensors, str(checkpoint))
    return save_part(dest, "codec", codec, sizes, imported_card(SOURCE, checkpoint))
