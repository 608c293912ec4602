"""A trained part in other sizes, which at first does what it did, or nearly: where a run of more layers, of another
voice or of a narrower vocoder begins.

    duologue grow runs/grown llm=checkpoints/nano
    duologue grow runs/grown unit_decoder=checkpoints/nano codec=nano-codec
    duologue grow runs/narrow vocoder=nano

The first gives the language model of a checkpoint the layers that nano has now (presets/nano.py): new ones are copies
whose outputs are zero, so that nothing changes until they learn; a narrower MLP keeps the columns that do most. The
second makes a decoder of units one of a codec's tokens: its layers and inputs stay, its places within a word are spread
over more frames, and its classes begin where the codebook's entries lie, so that tokens that sound alike are alike. The
third gives a vocoder of ConvNeXt blocks mini's width (presets/mini.py): each block keeps the channels that do most. The
result is a folder for ``start=PART=FOLDER``.

Source: layers that begin as the identity: Chen, Goodfellow and Shlens 2016, "Net2Net" (arXiv 1511.05641), section 2.3.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..checkpoints import store
from ..checkpoints.files import expanded
from ..checkpoints.outputs import keep_apart
from ..checkpoints.parts import load_part
from ..checkpoints.source import WEIGHTS
from ..model.codec.codec import Codec, CodecConfig
from ..model.errors import DuologueError
from ..model.language_model.causal_lm import LLM
from ..model.speech_decoder.unit_decoder import UnitDecoder, UnitDecoderConfig
from ..model.speech_decoder.unit_vocoder import UnitVocoder, UnitVocoderConfig
from ..model.speech_lm import SpeechLM
from .loop.parts import save_parts
from .presets import preset

LAYERS = "lm.model.layers."
SILENT = ("self_attn.o_proj.weight", "mlp.down_proj.weight")  # what a layer adds to the stream


def grown_llm(old: LLM, was: Mapping[str, Any], becomes: dict[str, Any]) -> LLM:
    """A Llama of more layers, and of an MLP at most as wide; sizes are transformers' fields.

    Raises:
        DuologueError: fewer layers, a wider MLP, or another size that differs.
    """
    for name in ("model_type", "vocab_size", "hidden_size", "num_attention_heads", "num_key_value_heads"):
        if was[name] != becomes[name]:
            raise DuologueError(
                f"llm {name} is {was[name]} and cannot become {becomes[name]}: only layers can be added"
            )
    layers, wanted, width = was["num_hidden_layers"], becomes["num_hidden_layers"], becomes["intermediate_size"]
    if wanted < layers or width > was["intermediate_size"]:
        raise DuologueError(
            f"llm of {layers} layers, MLP {was['intermediate_size']}, cannot become one of {wanted} layers, MLP {width}"
        )
    new, tensors = LLM(becomes), old.state_dict()
    grown = {name: tensor for name, tensor in tensors.items() if not name.startswith(LAYERS)}
    for at, (source, silent) in enumerate(_places(layers, wanted)):
        prefix = f"{LAYERS}{source}."
        layer = {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
        keep = _busiest(layer, width)
        for name, tensor in layer.items():
            if name.endswith(("gate_proj.weight", "up_proj.weight")):
                tensor = tensor[keep]
            elif name.endswith("down_proj.weight"):
                tensor = tensor[:, keep]
            grown[f"{LAYERS}{at}.{name}"] = torch.zeros_like(tensor) if silent and name in SILENT else tensor.clone()
    new.load_state_dict(grown)
    return new


def _places(layers: int, wanted: int) -> list[tuple[int, bool]]:
    """For each new layer: the old one that it is or copies, and whether it is a copy, spread evenly."""
    more = wanted - layers
    behind = [max(0, round((k + 1) * layers / (more + 1)) - 1) for k in range(more)]
    return [(i, copy) for i in range(layers) for copy in (False, *[True] * behind.count(i))]


def narrowed_vocoder(old: UnitVocoder, becomes: UnitVocoderConfig) -> UnitVocoder:
    """A source-filter vocoder whose blocks are at most as wide inside.

    Raises:
        DuologueError: wider blocks, or another size that differs.
    """
    was, wanted = old.config.source_filter, becomes.source_filter
    same = was and wanted and replace(old.config, source_filter=replace(was, ffn_dim=wanted.ffn_dim)) == becomes
    if not (same and was and wanted and wanted.ffn_dim <= was.ffn_dim):
        raise DuologueError(f"a vocoder of the sizes {old.config} cannot become one of {becomes}")
    new, tensors = UnitVocoder(becomes), old.state_dict()
    for at in range(wanted.layers):
        inner, inner_bias, outer = (
            f"generator.blocks.{at}.{name}" for name in ("pwconv1.weight", "pwconv1.bias", "pwconv2.weight")
        )
        weights = tensors[inner].norm(dim=1) * tensors[outer].norm(dim=0)
        keep = weights.argsort(descending=True)[: wanted.ffn_dim].sort().values
        tensors |= {inner: tensors[inner][keep], inner_bias: tensors[inner_bias][keep], outer: tensors[outer][:, keep]}
    new.load_state_dict(tensors)
    return new


def _busiest(layer: Mapping[str, Tensor], width: int) -> Tensor:
    """The columns of an MLP whose weights are largest, in their order."""
    gate, up, down = (layer[f"mlp.{name}_proj.weight"] for name in ("gate", "up", "down"))
    return (gate.norm(dim=1) * up.norm(dim=1) * down.norm(dim=0)).argsort(descending=True)[:width].sort().values


def grown_unit_decoder(old: UnitDecoder, becomes: UnitDecoderConfig, entries: Tensor) -> UnitDecoder:
    """A decoder of a codec's tokens, whose ``entries`` are (units, D), from one of other units.

    Raises:
        DuologueError: its layers are of other sizes, or there are not as many entries as classes.
    """
    if len(entries) != becomes.units or entries.shape[1] > becomes.dim:
        raise DuologueError(f"entries are {tuple(entries.shape)}; {becomes.units} of at most {becomes.dim} are wanted")
    torch.manual_seed(0)
    new, tensors = UnitDecoder(becomes), old.state_dict()
    for name in [name for name in tensors if name.startswith("output_proj.")]:
        del tensors[name]
    if becomes.sub_position and old.config.sub_position:
        spread = F.interpolate(tensors["sub_position"].T[None], becomes.upsample, mode="linear", align_corners=True)
        tensors["sub_position"] = spread[0].T
    fits = {name: tensor.shape for name, tensor in new.state_dict().items() if not name.startswith("output_proj.")}
    if {name: tensor.shape for name, tensor in tensors.items()} != fits:
        raise DuologueError(f"a unit decoder of the sizes {old.config} cannot become one of {becomes}")
    new.load_state_dict(tensors, strict=False)
    with torch.no_grad():
        directions = torch.linalg.qr(torch.randn(becomes.dim, entries.shape[1])).Q.T  # (D, dim), orthogonal
        spread_out = (entries - entries.mean(0)) / entries.std()
        weight = new.output_proj.weight
        new.output_proj.bias[: becomes.units] = 0
        weight[: becomes.units] = spread_out @ directions * (weight.std() * (becomes.dim / entries.shape[1]) ** 0.5)
    return new


@dataclass(frozen=True, kw_only=True)
class Config:
    """What is to grow: ``llm``, the model whose language model does; or ``unit_decoder``, the model whose unit decoder
    becomes one of ``codec``'s tokens; or ``vocoder``, the model whose vocoder becomes mini's."""

    llm: str = ""
    unit_decoder: str = ""
    codec: str = ""
    vocoder: str = ""

    def __post_init__(self) -> None:
        given = {name for name, source in vars(self).items() if source}
        if given not in ({"llm"}, {"unit_decoder", "codec"}, {"vocoder"}):
            raise DuologueError("give llm=MODEL, unit_decoder=MODEL codec=CODEC, or vocoder=MODEL: what is to grow")


def run(out: str | Path, config: Config) -> Path:
    """Write the part, in nano's or mini's sizes, into a folder.

    Raises:
        DuologueError: no such model, or sizes that cannot be reached.
    """
    keep_apart({"the folder": out}, vars(config))
    model: SpeechLM = store.load(config.llm or config.unit_decoder or config.vocoder).model
    part: dict[str, nn.Module]
    if config.llm:
        part = {"llm": grown_llm(model.llm, model.config.llm, preset("nano", "text_sft")["llm"])}
    elif config.vocoder:
        if not isinstance(model.vocoder, UnitVocoder):
            raise DuologueError(f"{config.vocoder} has no unit vocoder")
        sizes = replace(preset("mini", "unit_vocoder")["vocoder"], voices=model.vocoder.config.voices)
        part = {"vocoder": narrowed_vocoder(model.vocoder, sizes)}
    elif not isinstance(model.unit_decoder, UnitDecoder):
        raise DuologueError(f"{config.unit_decoder} has no unit decoder that reads states or embeddings")
    else:
        entries = load_part(config.codec, "codec", CodecConfig, Codec).quantiser.entries[0]
        becomes = preset("codec", "unit_decoder")["unit_decoder"]
        part = {"unit_decoder": grown_unit_decoder(model.unit_decoder, becomes, entries)}
    folder = expanded(out)
    folder.mkdir(parents=True, exist_ok=True)
    save_parts(part, folder / WEIGHTS)
    return folder


if __name__ == "__main__":
    sys.exit("it is a command now: duologue grow OUT PART=FOLDER …")
