"""Files as other projects write them, and how near our numbers come to theirs."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import (
    PreTrainedTokenizerFast,
)

GOLDEN = Path(__file__).parents[1] / "golden"
TOKENIZER_SIZE = 512


def shapes_of(tensors: dict[str, torch.Tensor]) -> dict[str, tuple[tuple[int, ...], str]]:
    return {name: (tuple(tensor.shape), str(tensor.dtype)) for name, tensor in tensors.items()}


def byte_tokenizer(folder: Path) -> PreTrainedTokenizerFast:
    """Bytes and Llama 3's markers, which puts a BOS before every text, as the released one does."""
    marks = ("<|pad|>", "<|begin_of_text|>", "<|eot_id|>", "<|start_header_id|>", "<|end_header_id|>")
    names = [*marks, *sorted(pre_tokenizers.ByteLevel.alphabet())]
    names += [f"<|reserved_{i}|>" for i in range(TOKENIZER_SIZE - len(names))]
    tokenizer = Tokenizer(models.BPE(vocab={name: i for i, name in enumerate(names)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<|begin_of_text|> $A", special_tokens=[("<|begin_of_text|>", 1)]
    )
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token=marks[1], eos_token=marks[2], additional_special_tokens=list(marks[3:])
    )
    fast.save_pretrained(folder)
    return fast


def put_in_shards(folder: Path, tensors: dict[str, torch.Tensor], count: int, pickled: bool = False) -> None:
    """As transformers writes a model that is too large for one file."""
    stem, ending = ("pytorch_model", "bin") if pickled else ("model", "safetensors")
    places = {name: f"{stem}-{i % count + 1:05d}-of-{count:05d}.{ending}" for i, name in enumerate(sorted(tensors))}
    for shard in set(places.values()):
        part = {name: tensors[name].clone() for name in places if places[name] == shard}
        if pickled:
            torch.save(part, folder / shard)
        else:
            save_file(part, folder / shard)
    index = {"metadata": {}, "weight_map": places}
    (folder / f"{stem}.{ending}.index.json").write_text(json.dumps(index))


def nothing_written(folder: Path, before: set[str]) -> bool:
    return {path.name for path in folder.iterdir()} == before


def relative_error(output: torch.Tensor, reference: torch.Tensor) -> float:
    """How far a result is from what their own code computed, as a share of it."""
    assert output.shape == reference.shape
    return float((output - reference).norm() / reference.norm())
