"""Files as other projects write them, and how near our numbers come to theirs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    PreTrainedTokenizerFast,
    WhisperConfig,
    WhisperForConditionalGeneration,
)

from duologue.checkpoints.parts import EncoderPart, load_part, read_part
from duologue.model.audio_encoder.whisper import WhisperEncoder

GOLDEN = Path(__file__).parents[1] / "golden"
TOKENIZER_SIZE = 512
EXPERTS = ("mixtral", "qwen2_moe", "qwen3_moe", "granitemoe", "olmoe")
TINY_WHISPER = WhisperConfig(
    d_model=32, encoder_layers=2, encoder_attention_heads=4, encoder_ffn_dim=128, num_mel_bins=20,
    max_source_positions=50, decoder_layers=1, decoder_attention_heads=4, decoder_ffn_dim=64, vocab_size=60,
    pad_token_id=0, bos_token_id=1, eos_token_id=2, decoder_start_token_id=1, max_target_positions=10,
)  # fmt: skip


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


def check_whisper(folder: Path, reference: WhisperForConditionalGeneration) -> None:
    """Our encoder, loaded from its folder, against transformers' own code."""
    encoder = load_part(folder, "encoder", EncoderPart, lambda part: WhisperEncoder(part.encoder))
    assert read_part(folder, "encoder")["mel"]["n_mels"] == 20
    mel = torch.randn(1, 20, 100)
    with torch.no_grad():
        wanted = reference.model.encoder(mel).last_hidden_state
        assert (encoder(mel) - wanted).norm() / wanted.norm() < 1e-5


def openai_whisper(reference: WhisperForConditionalGeneration) -> dict[str, Any]:
    """The same network as openai-whisper's files hold it."""
    names = {
        "self_attn.q_proj": "attn.query", "self_attn.k_proj": "attn.key", "self_attn.v_proj": "attn.value",
        "self_attn.out_proj": "attn.out", "self_attn_layer_norm": "attn_ln", "fc1": "mlp.0", "fc2": "mlp.2",
        "final_layer_norm": "mlp_ln",
    }  # fmt: skip
    tensors = {}
    for name, tensor in reference.model.encoder.state_dict().items():
        for theirs, openai in names.items():
            name = name.replace(f".{theirs}.", f".{openai}.")
        name = name.replace("layers.", "blocks.").replace("embed_positions.weight", "positional_embedding")
        tensors["encoder." + (name.replace("layer_norm.", "ln_post.") if name.startswith("layer_norm") else name)] = (
            tensor
        )
    tensors["decoder.ln.weight"] = torch.ones(32)
    dims = {"n_mels": 20, "n_audio_ctx": 50, "n_audio_state": 32, "n_audio_head": 4, "n_audio_layer": 2, "n_vocab": 60}
    return {"dims": dims, "model_state_dict": tensors}


def tiny_llm(family: str, **changes: Any) -> Any:
    """A random model of a family in transformers' own class."""
    torch.manual_seed(0)
    sizes = {
        "vocab_size": TOKENIZER_SIZE, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 128, "bos_token_id": 1,
        "eos_token_id": 2, "pad_token_id": 0, "head_dim": 8,
    }
    if family.startswith("granite"):
        sizes |= {"logits_scaling": 3.0, "embedding_multiplier": 2.0}
    if family in EXPERTS:
        sizes |= {"num_local_experts": 4, "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 24,
                  "shared_expert_intermediate_size": 24}  # fmt: skip
    config = AutoConfig.for_model(family, **(sizes | changes))
    return AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
