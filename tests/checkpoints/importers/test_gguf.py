"""`duologue import gguf`: files as llama.cpp's own writer makes them, logits as transformers' own models have them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from foreign_files import nothing_written, tiny_llm
from safetensors.torch import load_file
from tokenizers import pre_tokenizers

from duologue.checkpoints import store
from duologue.checkpoints.parts import read_part
from duologue.checkpoints.weights import fill, made
from duologue.demo.importing import run
from duologue.model.errors import DuologueError
from duologue.model.language_model.causal_lm import LLM

TEMPLATE = "{% for message in messages %}<|user|>{{ message['content'] }}<|end|>{% endfor %}"
MARKS = ["<|pad|>", "<|begin|>", "<|end|>", "<|user|>"]
MERGES = ["a b", "ab a", "Ġ t"]
TOKENS = [*MARKS, *sorted(pre_tokenizers.ByteLevel.alphabet()), *(merge.replace(" ", "") for merge in MERGES)]
SIZES = {"vocab_size": len(TOKENS), "hidden_size": 64, "intermediate_size": 96, "head_dim": 16}
Type = gguf.GGMLQuantizationType

NAMES = {  # of transformers, in a layer: llama.cpp's
    "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down", "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm",
}  # fmt: skip
TOP = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}


def theirs(name: str) -> str:
    stem, _, kind = name.rpartition(".")
    if stem in TOP:
        return f"{TOP[stem]}.{kind}"
    _, _, layer, part = stem.split(".", 3)
    return f"blk.{layer}.{NAMES[part]}.{kind}"


def write(path: Path, family: str, kind: Any = Type.F32) -> Any:
    """A tiny model as a GGUF file, matrices of that type; returns the model with the numbers that are in the file."""
    model = tiny_llm(family, **SIZES, tie_word_embeddings=False)
    config = model.config
    writer = gguf.GGUFWriter(path, family)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_rope_dimension_count(SIZES["head_dim"])
    writer.add_vocab_size(len(TOKENS))
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(TOKENS)
    writer.add_token_types([gguf.TokenType.CONTROL] * 4 + [gguf.TokenType.NORMAL] * (len(TOKENS) - 4))
    writer.add_token_merges(MERGES)
    writer.add_pad_token_id(0)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_chat_template(TEMPLATE)
    for name, tensor in model.state_dict().items():
        values = tensor.numpy()
        if values.ndim == 2:
            packed = gguf.quants.quantize(values, kind)
            tensor.copy_(torch.from_numpy(gguf.quants.dequantize(packed, kind).copy()))
            heads = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}
            if family == "llama" and (count := heads.get(name.split(".")[-2])):  # its rotary embedding turns neighbours
                packed = packed.reshape(count, 2, -1, packed.shape[-1]).swapaxes(1, 2).reshape(packed.shape)
            writer.add_tensor(theirs(name), packed, raw_dtype=kind)
        else:
            writer.add_tensor(theirs(name), values.astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return model


@pytest.mark.parametrize("kind", [Type.F32, Type.F16, Type.Q8_0, Type.Q4_1], ids=lambda kind: kind.name)
@pytest.mark.parametrize("family", ["llama", "qwen2"])
def test_gguf(tmp_path: Path, family: str, kind: Any, capsys: pytest.CaptureFixture[str]) -> None:
    reference = write(tmp_path / "tiny.gguf", family, kind)
    (tmp_path / "tokenizer_config.json").write_text('{"chat_template": "not this one"}')
    folder = run("gguf", str(tmp_path / "tiny.gguf"), tmp_path / "llm", [])
    assert "reading tiny.gguf (0 MB)" in capsys.readouterr().err
    sizes = read_part(folder, "llm")
    assert sizes["model_type"] == family and "quantization_config" not in sizes
    ours = made(lambda: LLM(sizes))
    fill(ours, folder / "model.safetensors", prefix="llm.", dtype=torch.float32)
    ids = torch.arange(40)[None]
    with torch.no_grad():
        wanted = reference(ids).logits
        assert (ours(ours.embed(ids)).logits - wanted).norm() / wanted.norm() < 1e-3
    tokenizer = store.load_tokenizer(folder)
    assert tokenizer.get_vocab() == {token: number for number, token in enumerate(TOKENS)}
    text = tokenizer.apply_chat_template([{"role": "user", "content": "aba bab é"}], tokenize=False)
    assert text == "<|user|>aba bab é<|end|>"
    found = tokenizer(text, add_special_tokens=False).input_ids
    assert found[0] == 3 and found[-1] == 2 and TOKENS.index("aba") in found and tokenizer.decode(found) == text


def test_dtype(tmp_path: Path) -> None:
    """float16, unless bfloat16 is asked for, which numbers beyond 65504 need."""
    write(tmp_path / "tiny.gguf", "qwen2")
    for words, dtype in (([], torch.float16), (["dtype=bfloat16"], torch.bfloat16)):
        stored = load_file(run("gguf", str(tmp_path), tmp_path / "llm", words) / "model.safetensors")
        assert {tensor.dtype for tensor in stored.values()} == {dtype}


def test_numbers_beyond_float16(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gguf.quants, "quantize", lambda values, kind: values * 1e7)
    write(tmp_path / "tiny.gguf", "qwen2")
    with pytest.raises(DuologueError, match=r"is not finite in float16; try dtype=bfloat16$"):
        run("gguf", str(tmp_path / "tiny.gguf"), tmp_path / "llm", [])
    assert nothing_written(tmp_path, {"tiny.gguf"})


def test_a_damaged_file_is_one_line(tmp_path: Path) -> None:
    write(tmp_path / "tiny.gguf", "llama", Type.Q8_0)
    whole = (tmp_path / "tiny.gguf").read_bytes()
    for cut in (0, 3, 30, 3000, len(whole) // 2, len(whole) - 100):
        (tmp_path / "tiny.gguf").write_bytes(whole[:cut])
        with pytest.raises(DuologueError, match=r"tiny\.gguf") as caught:
            run("gguf", str(tmp_path / "tiny.gguf"), tmp_path / "llm", [])
        assert "\n" not in str(caught.value)
    assert nothing_written(tmp_path, {"tiny.gguf"})


def test_without_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "tiny.gguf", "llama")
    monkeypatch.setitem(__import__("sys").modules, "gguf", None)
    with pytest.raises(DuologueError, match=r"GGUF files need gguf: pip install 'duologue\[gguf\]'$"):
        run("gguf", str(tmp_path / "tiny.gguf"), tmp_path / "llm", [])
