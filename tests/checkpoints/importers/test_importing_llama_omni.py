"""`duologue import llama-omni`: a whole model, its prompt, and real sizes on the meta device."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from foreign_files import GOLDEN, byte_tokenizer, nothing_written, put_in_shards, shapes_of
from safetensors.torch import load_file
from transformers import (
    PreTrainedTokenizerFast,
)

from duologue.checkpoints import store
from duologue.checkpoints.importers import llama_omni
from duologue.checkpoints.weights import check_tensors, made, named_tensors
from duologue.demo.importing import run
from duologue.model.audio_encoder.whisper import sinusoids
from duologue.model.errors import DuologueError
from duologue.model.speech_lm import PromptConfig, Sampling, SpeechLM, TokenKind


def omni_folder(folder: Path, pickled: bool = False) -> PreTrainedTokenizerFast:
    """The golden weights as the hub has the released ones: shards without the encoder, beside config and tokenizer."""
    folder.mkdir()
    tensors = load_file(GOLDEN / "llama_omni/model.safetensors")
    encoder = {name: tensors.pop(name) for name in list(tensors) if name.startswith(llama_omni.ENCODER)}
    put_in_shards(folder, tensors, 3, pickled)
    shutil.copy(GOLDEN / "llama_omni/config.json", folder / "config.json")
    encoder = {"encoder." + name.removeprefix(llama_omni.ENCODER): tensor for name, tensor in encoder.items()}
    encoder["encoder.positional_embedding"] = sinusoids(torch.arange(1500), 64)
    dims = {"n_mels": 80, "n_audio_ctx": 1500, "n_audio_state": 64, "n_audio_head": 4, "n_audio_layer": 2}
    torch.save({"dims": dims, "model_state_dict": encoder}, folder.parent / "encoder.pt")
    torch.save({"generator": load_file(GOLDEN / "code_hifigan/generator.safetensors")}, folder.parent / "g_00500000")
    shutil.copy(GOLDEN / "code_hifigan/config.json", folder.parent / "config.json")
    return byte_tokenizer(folder)


@pytest.mark.parametrize("pickled", [False, True])
def test_llama_omni(tmp_path: Path, pickled: bool) -> None:
    """With encoder and vocoder from files of their own, it writes the golden tokens and units and speaks them."""
    tokenizer = omni_folder(tmp_path / "source", pickled)
    options = [f"whisper={tmp_path / 'encoder.pt'}", f"vocoder={tmp_path / 'g_00500000'}"]
    folder = run("llama-omni", str(tmp_path / "source"), tmp_path / "omni", options)
    model = store.load(folder).model
    check_prompt(model.config.prompt, tokenizer)

    expected = load_file(GOLDEN / "llama_omni/expected.safetensors")
    ids = expected["input_ids"][0].tolist()
    at = ids.index(-200)
    golden = PromptConfig(prefix_ids=tuple(ids[:at]), suffix_ids=tuple(ids[at + 1 :]), next_prefix_ids=(2,))
    model.prompt.config = golden  # type: ignore[attr-defined]
    state, tokens, units, pcm = model.init_state(), [], [], []
    model.begin_turn(state)
    model.listen(expected["waveform"][None], state)
    model.end_turn(state)
    while (step := model.reply_step(state, Sampling(max_tokens=24))).kind is not TokenKind.END:
        tokens.append(step.token)
        units += step.units[0].tolist()
        pcm.append(step.pcm)
    assert tokens == expected["text_tokens"].tolist()
    assert units == json.loads((GOLDEN / "llama_omni/units_after_each_token.json").read_text())[-1]
    assert model.vocoder is not None
    whole = model.vocoder(torch.tensor([units]))
    spoken = torch.cat([*pcm, model.reply_flush(state)], dim=1)
    assert (spoken - whole).abs().max() < 1e-4


def check_prompt(prompt: PromptConfig, tokenizer: PreTrainedTokenizerFast) -> None:
    """Two BOS in front, then the template as it reads, with the speech in its place."""
    assert prompt.prefix_ids[:2] == (1, 1) and prompt.prefix_ids.count(1) == 2
    left, right = tokenizer.decode(prompt.prefix_ids[2:]), tokenizer.decode(prompt.suffix_ids)
    assert left.startswith("<|start_header_id|>system<|end_header_id|>\n\nYou are a helpful language and speech")
    assert left.endswith("<|eot_id|><|start_header_id|>user<|end_header_id|>\n\n")
    assert right.startswith("\nPlease directly answer") and right.endswith("assistant<|end_header_id|>\n\n")
    assert 1 not in prompt.suffix_ids
    assert tokenizer.decode(prompt.next_prefix_ids) == "<|eot_id|><|start_header_id|>user<|end_header_id|>\n\n"


def test_llama_omni_without_an_encoder(tmp_path: Path) -> None:
    omni_folder(tmp_path / "source")
    with pytest.raises(DuologueError, match=r"holds no speech encoder: name its file, whisper=large-v3\.pt"):
        run("llama-omni", str(tmp_path / "source"), tmp_path / "omni", [])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda t: t.pop("speech_generator.output_proj.bias"),
            r"'unit_decoder\.output_proj\.bias' \(101,\) is missing",
        ),
        (lambda t: t.update({"speech_generator.gate": torch.zeros(3)}), r"'speech_generator\.gate' \(3,\)"),
        (lambda t: t.update({"lm_head.weight": torch.zeros(511, 64)}), r"has shape \(511, 64\); .* \(512, 64\)"),
    ],
)
def test_llama_omni_that_does_not_fit(tmp_path: Path, change: Any, message: str) -> None:
    omni_folder(tmp_path / "source")
    shutil.rmtree(tmp_path / "source")
    os.mkdir(tmp_path / "source")
    tensors = {
        name: tensor
        for name, tensor in load_file(GOLDEN / "llama_omni/model.safetensors").items()
        if not name.startswith(llama_omni.ENCODER)
    }
    change(tensors)
    put_in_shards(tmp_path / "source", tensors, 2)
    shutil.copy(GOLDEN / "llama_omni/config.json", tmp_path / "source/config.json")
    byte_tokenizer(tmp_path / "source")
    before = {path.name for path in tmp_path.iterdir()}
    with pytest.raises(DuologueError, match=message):
        run("llama-omni", str(tmp_path / "source"), tmp_path / "omni", [f"whisper={tmp_path / 'encoder.pt'}"])
    assert nothing_written(tmp_path, before)


def real_llama_omni() -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Llama-3.1-8B-Omni's names and shapes: Llama 3.1 8B, Whisper-large-v3, two unit decoder layers of 4096."""

    def empty(*shape: int) -> torch.Tensor:
        return torch.empty(shape, dtype=torch.float16, device="meta")

    def linear(name: str, out: int, inner: int, bias: bool = True) -> dict[str, torch.Tensor]:
        return {f"{name}.weight": empty(out, inner)} | ({f"{name}.bias": empty(out)} if bias else {})

    def llama_layer(name: str, width: int, kv: int, ffn: int) -> dict[str, torch.Tensor]:
        tensors: dict[str, torch.Tensor] = {}
        for part, out, inner in (
            ("self_attn.q_proj", width, width), ("self_attn.k_proj", kv, width), ("self_attn.v_proj", kv, width),
            ("self_attn.o_proj", width, width), ("mlp.gate_proj", ffn, width), ("mlp.up_proj", ffn, width),
            ("mlp.down_proj", width, ffn),
        ):  # fmt: skip
            tensors |= linear(f"{name}.{part}", out, inner, bias=False)
        return tensors | {f"{name}.{norm}_layernorm.weight": empty(width) for norm in ("input", "post_attention")}

    tensors = {"model.embed_tokens.weight": empty(128256, 4096), "model.norm.weight": empty(4096)}
    for i in range(32):
        tensors |= llama_layer(f"model.layers.{i}", 4096, 1024, 14336)
    tensors |= linear("lm_head", 128256, 4096, bias=False)
    tensors |= linear("model.speech_projector.linear1", 2048, 6400) | linear(
        "model.speech_projector.linear2", 4096, 2048
    )
    tensors |= linear("speech_generator.input_proj", 4096, 4096) | linear("speech_generator.output_proj", 1001, 4096)
    for i in range(2):
        tensors |= llama_layer(f"speech_generator.layers.{i}", 4096, 4096, 11008)
    encoder = llama_omni.ENCODER
    tensors |= {f"{encoder}positional_embedding": empty(1500, 1280)}
    tensors |= {f"{encoder}conv1.weight": empty(1280, 128, 3), f"{encoder}conv2.weight": empty(1280, 1280, 3)}
    tensors |= {f"{encoder}conv1.bias": empty(1280), f"{encoder}conv2.bias": empty(1280)}
    for i in range(32):
        block = f"{encoder}blocks.{i}."
        for part in ("query", "key", "value", "out"):
            tensors |= linear(f"{block}attn.{part}", 1280, 1280, bias=part != "key")
        tensors |= linear(f"{block}mlp.0", 5120, 1280) | linear(f"{block}mlp.2", 1280, 5120)
        tensors |= {
            f"{block}{norm}.{kind}": empty(1280) for norm in ("attn_ln", "mlp_ln") for kind in ("weight", "bias")
        }
    tensors |= {f"{encoder}ln_post.{kind}": empty(1280) for kind in ("weight", "bias")}
    config = json.loads((GOLDEN / "llama_omni/config.json").read_text()) | {
        "vocab_size": 128256, "max_position_embeddings": 131072, "hidden_size": 4096, "intermediate_size": 14336,
        "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8, "bos_token_id": 128000,
        "eos_token_id": [128001, 128008, 128009], "pad_token_id": None, "speech_encoder_hidden_size": 1280,
        "ctc_decoder_config": "(2,4096,32,11008)", "unit_vocab_size": 1000,
    }  # fmt: skip
    return tensors, config


def test_a_real_sized_llama_omni_is_covered_completely() -> None:
    tensors, config = real_llama_omni()
    prompt = PromptConfig(prefix_ids=(128000, 128000), suffix_ids=(271,), next_prefix_ids=(128009,))
    ours, renamed = llama_omni.convert(tensors, config, prompt)
    model = made(lambda: SpeechLM(ours))
    check_tensors(named_tensors(model), shapes_of(renamed), "real sizes")
    assert 8.9e9 < sum(tensor.numel() for tensor in model.parameters()) < 9.2e9  # 8.03 + 0.64 + 0.43 billion
    assert 0.42e9 < sum(tensor.numel() for tensor in model.unit_decoder.parameters()) < 0.43e9
    assert (ours.layout.eos, ours.layout.text, ours.encoder.n_audio_head) == (128009, (0, 128000), 20)
