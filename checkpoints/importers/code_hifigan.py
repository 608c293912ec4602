"""fairseq's CodeGenerator, a unit HiFi-GAN with durations: the vocoder of LLaMA-Omni and of unit S2ST models.

The state dict is what its checkpoints keep under ``"generator"``; the config is the ``config.json`` beside them.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from ...model.errors import DuologueError
from ...model.speech_decoder.unit_vocoder import UnitVocoder, UnitVocoderConfig
from ..files import expanded, read_object
from ..parts import save_part
from ..weights import assign, made
from . import KeyTable, fold_weight_norm, imported_card, rename_keys
from .files import as_state_dict, read_tensors
from .pickles import load_tensors

SOURCE = "CodeGenerator"
UNSUPPORTED = ("multispkr", "multilingual", "f0", "use_pitch", "f0_quant_use_log")  # conditions we have no input for


def convert_config(config: dict[str, Any]) -> UnitVocoderConfig:
    """fairseq's vocoder config in our form.

    Raises:
        DuologueError: a missing field, or a variant that the unit vocoder does not have.
    """
    for name in UNSUPPORTED:
        if config.get(name):
            raise DuologueError(f"{SOURCE} config has {name} = {config[name]!r}; only plain unit vocoders are known")
    try:
        predictor = config["dur_predictor_params"]
        fields = {
            "units": config["num_embeddings"],
            "embedding_dim": config["embedding_dim"],
            "channels": config["upsample_initial_channel"],
            "upsample_rates": tuple(config["upsample_rates"]),
            "upsample_kernels": tuple(config["upsample_kernel_sizes"]),
            "resblock_kernels": tuple(config["resblock_kernel_sizes"]),
            "duration_hidden": predictor["var_pred_hidden_dim"],
            "duration_kernel": predictor["var_pred_kernel_size"],
            "sample_rate": config["sampling_rate"],
        }
        dilations = {tuple(row) for row in config["resblock_dilation_sizes"]}
        resblock, in_dim, hop = config["resblock"], config["model_in_dim"], config["code_hop_size"]
    except KeyError as error:
        raise DuologueError(f"{SOURCE} config lacks {error}") from None
    if len(dilations) != 1:
        raise DuologueError(f"{SOURCE} resblock_dilation_sizes must be the same for every kernel, got {dilations}")
    if str(resblock) != "1":
        raise DuologueError(f"{SOURCE} resblock must be '1', got {resblock!r}")
    if in_dim != fields["embedding_dim"]:
        raise DuologueError(f"{SOURCE} model_in_dim must be embedding_dim {fields['embedding_dim']}, got {in_dim}")
    if fields["duration_kernel"] != 3:
        # fairseq pads the second convolution by 1 whatever the kernel, so that others shorten the sequence.
        raise DuologueError(f"{SOURCE} var_pred_kernel_size must be 3, got {fields['duration_kernel']}")
    ours = UnitVocoderConfig(**fields, resblock_dilations=dilations.pop())
    if ours.hop != hop:
        raise DuologueError(f"{SOURCE} code_hop_size must be the product of upsample_rates, {ours.hop}, got {hop}")
    return ours


def key_table(config: UnitVocoderConfig) -> KeyTable:
    """fairseq's names -> ours, after weight norm has been folded."""
    table: KeyTable = {
        r"dict\.weight": r"embedding.weight",
        r"dur_predictor\.conv([12])\.0\.(weight|bias)": r"duration.conv\1.\2",
        r"dur_predictor\.ln([12])\.(weight|bias)": r"duration.norm\1.\2",
        r"dur_predictor\.proj\.(weight|bias)": r"duration.proj.\1",
        r"conv_pre\.(weight|bias)": r"generator.conv_in.\1",
        r"ups\.(\d+)\.(weight|bias)": r"generator.ups.\1.\2",
        r"conv_post\.(weight|bias)": r"generator.conv_out.\1",
    }
    kernels = len(config.resblock_kernels)
    for i in range(len(config.upsample_rates) * kernels):  # one list there; by layer and kernel here
        ours = rf"generator.fusions.{i // kernels}.blocks.{i % kernels}.convs\1.\2.\3"
        table[rf"resblocks\.{i}\.convs([12])\.(\d+)\.(weight|bias)"] = ours
    return table


def convert(state_dict: dict[str, Tensor], config: dict[str, Any]) -> tuple[UnitVocoderConfig, dict[str, Tensor]]:
    """A ``CodeGenerator``'s weights and config -> ours; load the result strictly.

    Raises:
        DuologueError: an unknown tensor, half a weight-norm pair, or a config that is not a plain unit vocoder's.
    """
    ours = convert_config(config)
    return ours, rename_keys(fold_weight_norm(state_dict), key_table(ours), SOURCE)


@dataclass(frozen=True, kw_only=True)
class Config:
    """
    config: the vocoder's JSON, if it is not the config.json beside the weights
    """

    config: str | None = None


def read(source: Path, config: str | None = None) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The generator's tensors and the config, from a ``g_00500000`` with its JSON or from a folder that holds both."""
    if source.is_dir():
        files = sorted(path for path in source.iterdir() if path.name.startswith("g_"))
        if not files:
            raise DuologueError(f"{source} holds no file g_*: the weights of a {SOURCE}")
        source = files[-1]  # the latest
    settings = read_object(source.parent / "config.json" if config is None else expanded(config))
    if source.suffix == ".safetensors":
        return read_tensors(source), settings
    found = load_tensors(source)
    generator = found.get("generator") if isinstance(found, dict) else None
    if generator is None:
        raise DuologueError(f"{source} has no 'generator': it is no {SOURCE} checkpoint")
    return as_state_dict(generator, str(source)), settings


def build(source: Path, config: str | None = None) -> UnitVocoder:
    """The vocoder of a source, its tensors as they are on disk.

    Raises:
        DuologueError: naming a tensor that is unknown, missing or misshapen, or a field of the config.
    """
    ours, tensors = convert(*read(source, config))
    model = made(lambda: UnitVocoder(ours))
    assign(model, tensors, str(source))
    return model


def run(source: Path, dest: Path, config: Config) -> Path:
    """Import a unit vocoder to a folder that a recipe takes by ``start=vocoder=DEST``."""
    model = build(source, config.config)
    return save_part(dest, "vocoder", model, model.config, imported_card("unit vocoder", source))
