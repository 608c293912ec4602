"""`duologue import`, kind by kind: sources as other projects write them, numbers as their own code computes them, and
real sizes on the meta device."""

from __future__ import annotations

import argparse
import json
import os
import pickle
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    HubertConfig,
    HubertModel,
    PreTrainedTokenizerFast,
    WhisperConfig,
    WhisperForConditionalGeneration,
)

from duologue.checkpoints import store
from duologue.checkpoints.importers import code_hifigan, llama_omni, whisper
from duologue.checkpoints.importers.pickles import load_arrays, load_fairseq, load_tensors
from duologue.checkpoints.parts import EncoderPart, load_part, read_part
from duologue.checkpoints.weights import check_tensors, fill, made, named_tensors
from duologue.data_prep.features_hubert import HubertFeatures
from duologue.data_prep.units import KMeansUnits
from duologue.demo.importing import KINDS, run
from duologue.model.encoder import WhisperEncoder, sinusoids
from duologue.model.errors import DuologueError
from duologue.model.llm import LLM
from duologue.model.speech_lm import PromptConfig, Sampling, SpeechLM, TokenKind
from duologue.model.vocoder import UnitVocoder, UnitVocoderConfig

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


# Whisper.

TINY_WHISPER = WhisperConfig(
    d_model=32, encoder_layers=2, encoder_attention_heads=4, encoder_ffn_dim=128, num_mel_bins=20,
    max_source_positions=50, decoder_layers=1, decoder_attention_heads=4, decoder_ffn_dim=64, vocab_size=60,
    pad_token_id=0, bos_token_id=1, eos_token_id=2, decoder_start_token_id=1, max_target_positions=10,
)  # fmt: skip


@pytest.fixture(scope="module")
def transformers_whisper() -> WhisperForConditionalGeneration:
    torch.manual_seed(0)
    return WhisperForConditionalGeneration(TINY_WHISPER).eval()


def check_whisper(folder: Path, reference: WhisperForConditionalGeneration) -> None:
    """Our encoder, loaded from its folder, against transformers' own code."""
    encoder = load_part(folder, "encoder", EncoderPart, lambda part: WhisperEncoder(part.encoder))
    assert read_part(folder, "encoder")["mel"]["n_mels"] == 20
    mel = torch.randn(1, 20, 100)
    with torch.no_grad():
        wanted = reference.model.encoder(mel).last_hidden_state
        assert (encoder(mel) - wanted).norm() / wanted.norm() < 1e-5


@pytest.mark.parametrize("safe", [True, False])
def test_whisper_of_transformers(tmp_path: Path, transformers_whisper: Any, safe: bool) -> None:
    transformers_whisper.save_pretrained(tmp_path / "whisper")
    if not safe:
        torch.save(transformers_whisper.state_dict(), tmp_path / "whisper/pytorch_model.bin")
        (tmp_path / "whisper/model.safetensors").unlink()
    check_whisper(run("whisper", str(tmp_path / "whisper"), tmp_path / "ear", []), transformers_whisper)


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


def test_whisper_of_openai(tmp_path: Path, transformers_whisper: Any) -> None:
    torch.save(openai_whisper(transformers_whisper), tmp_path / "tiny.pt")
    check_whisper(run("whisper", str(tmp_path / "tiny.pt"), tmp_path / "ear", []), transformers_whisper)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.pop("encoder.blocks.1.mlp.2.bias"), r"'blocks\.1\.mlp\.2\.bias' \(32,\) is missing"),
        (lambda t: t.update({"encoder.blocks.1.gate": torch.zeros(3)}), r"unknown tensor 'blocks\.1\.gate' \(3,\)"),
        (lambda t: t.update({"encoder.conv2.bias": torch.zeros(31)}), r"'conv2\.bias' has shape \(31,\); .* \(32,\)"),
        (lambda t: t.update({"head.weight": torch.zeros(3)}), r"unknown tensor 'head\.weight' \(3,\)"),
        (lambda t: t.update({"encoder.positional_embedding": torch.randn(50, 32)}), r"learnt positions"),
    ],
)
def test_whisper_that_does_not_fit(tmp_path: Path, transformers_whisper: Any, change: Any, message: str) -> None:
    found = openai_whisper(transformers_whisper)
    change(found["model_state_dict"])
    torch.save(found, tmp_path / "tiny.pt")
    with pytest.raises(DuologueError, match=message):
        run("whisper", str(tmp_path / "tiny.pt"), tmp_path / "ear", [])
    assert nothing_written(tmp_path, {"tiny.pt"})


# Language models.

FAMILIES = ("llama", "qwen2", "qwen3", "mistral", "phi", "phi3")


def tiny_llm(family: str, **changes: Any) -> Any:
    """A random model of a family in transformers' own class."""
    torch.manual_seed(0)
    sizes = {
        "vocab_size": TOKENIZER_SIZE, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 128, "bos_token_id": 1,
        "eos_token_id": 2, "pad_token_id": 0, "head_dim": 8,
    }  # fmt: skip
    config = AutoConfig.for_model(family, **(sizes | changes))
    return AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()


@pytest.mark.parametrize("family", FAMILIES)
def test_llm(tmp_path: Path, family: str) -> None:
    reference = tiny_llm(family, tie_word_embeddings=family in ("qwen2", "qwen3"))
    reference.save_pretrained(tmp_path / "source", max_shard_size="20KB")
    assert len(list((tmp_path / "source").glob("*.safetensors"))) > 1
    byte_tokenizer(tmp_path / "source")
    folder = run("llm", str(tmp_path / "source"), tmp_path / "llm", [])
    ours = made(lambda: LLM(read_part(folder, "llm")))
    fill(ours, folder / "model.safetensors", prefix="llm.")
    ids = torch.arange(20)[None]
    with torch.no_grad():
        wanted = reference(ids).logits
        assert (ours(ours.embed(ids)).logits - wanted).norm() / wanted.norm() < 1e-5
        state = ours.init_state()
        pieces = [ours.step(ours.embed(piece), state).logits for piece in ids.split(7, dim=1)]
        assert (torch.cat(pieces, dim=1) - wanted).norm() / wanted.norm() < 1e-5
    assert len(store.load_tokenizer(folder)) == TOKENIZER_SIZE


def test_tied_weights_may_be_stored_twice_if_they_are_equal(tmp_path: Path) -> None:
    reference = tiny_llm("llama", tie_word_embeddings=True)
    reference.save_pretrained(tmp_path / "source")
    byte_tokenizer(tmp_path / "source")
    tensors = load_file(tmp_path / "source/model.safetensors")
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].clone()
    save_file(tensors, tmp_path / "source/model.safetensors")
    run("llm", str(tmp_path / "source"), tmp_path / "llm", [])
    tensors["lm_head.weight"][0, 0] += 1
    save_file(tensors, tmp_path / "source/model.safetensors")
    with pytest.raises(DuologueError, match=r"ties 'lm\.lm_head\.weight' and 'lm\.model\.embed_tokens\.weight', but"):
        run("llm", str(tmp_path / "source"), tmp_path / "other", [])
    assert nothing_written(tmp_path, {"source", "llm"})


def test_a_missing_shard_is_named(tmp_path: Path) -> None:
    tiny_llm("llama").save_pretrained(tmp_path / "source", max_shard_size="20KB")
    byte_tokenizer(tmp_path / "source")
    shard = sorted((tmp_path / "source").glob("*.safetensors"))[1]
    shard.unlink()
    with pytest.raises(DuologueError, match=f"names '{shard.name}', which is not in"):
        run("llm", str(tmp_path / "source"), tmp_path / "llm", [])


# LLaMA-Omni.


def omni_folder(folder: Path, pickled: bool = False) -> PreTrainedTokenizerFast:
    """The golden weights as the hub has the released ones: shards without the ear, beside config and tokenizer."""
    folder.mkdir()
    tensors = load_file(GOLDEN / "llama_omni/model.safetensors")
    ear = {name: tensors.pop(name) for name in list(tensors) if name.startswith(llama_omni.ENCODER)}
    put_in_shards(folder, tensors, 3, pickled)
    shutil.copy(GOLDEN / "llama_omni/config.json", folder / "config.json")
    ear = {"encoder." + name.removeprefix(llama_omni.ENCODER): tensor for name, tensor in ear.items()}
    ear["encoder.positional_embedding"] = sinusoids(torch.arange(1500), 64)
    dims = {"n_mels": 80, "n_audio_ctx": 1500, "n_audio_state": 64, "n_audio_head": 4, "n_audio_layer": 2}
    torch.save({"dims": dims, "model_state_dict": ear}, folder.parent / "ear.pt")
    torch.save({"generator": load_file(GOLDEN / "code_hifigan/generator.safetensors")}, folder.parent / "g_00500000")
    shutil.copy(GOLDEN / "code_hifigan/config.json", folder.parent / "config.json")
    return byte_tokenizer(folder)


@pytest.mark.parametrize("pickled", [False, True])
def test_llama_omni(tmp_path: Path, pickled: bool) -> None:
    """Imported with ear and vocoder from files of their own, it writes the golden tokens and units and speaks them."""
    tokenizer = omni_folder(tmp_path / "source", pickled)
    options = [f"whisper={tmp_path / 'ear.pt'}", f"vocoder={tmp_path / 'g_00500000'}"]
    folder = run("llama-omni", str(tmp_path / "source"), tmp_path / "omni", options)
    model = store.load(folder).model
    check_prompt(model.config.prompt, tokenizer)

    expected = load_file(GOLDEN / "llama_omni/expected.safetensors")
    ids = expected["input_ids"][0].tolist()
    at = ids.index(-200)
    golden = PromptConfig(prefix_ids=tuple(ids[:at]), suffix_ids=tuple(ids[at + 1 :]), next_prefix_ids=(2,))
    object.__setattr__(model.config, "prompt", golden)
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


def test_llama_omni_without_an_ear(tmp_path: Path) -> None:
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
        run("llama-omni", str(tmp_path / "source"), tmp_path / "omni", [f"whisper={tmp_path / 'ear.pt'}"])
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
    ear = llama_omni.ENCODER
    tensors |= {f"{ear}positional_embedding": empty(1500, 1280)}
    tensors |= {f"{ear}conv1.weight": empty(1280, 128, 3), f"{ear}conv2.weight": empty(1280, 1280, 3)}
    tensors |= {f"{ear}conv1.bias": empty(1280), f"{ear}conv2.bias": empty(1280)}
    for i in range(32):
        block = f"{ear}blocks.{i}."
        for part in ("query", "key", "value", "out"):
            tensors |= linear(f"{block}attn.{part}", 1280, 1280, bias=part != "key")
        tensors |= linear(f"{block}mlp.0", 5120, 1280) | linear(f"{block}mlp.2", 1280, 5120)
        tensors |= {
            f"{block}{norm}.{kind}": empty(1280) for norm in ("attn_ln", "mlp_ln") for kind in ("weight", "bias")
        }
    tensors |= {f"{ear}ln_post.{kind}": empty(1280) for kind in ("weight", "bias")}
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


# The unit vocoder.


def test_code_hifigan(tmp_path: Path) -> None:
    torch.save({"generator": load_file(GOLDEN / "code_hifigan/generator.safetensors")}, tmp_path / "g_00500000")
    shutil.copy(GOLDEN / "code_hifigan/config.json", tmp_path / "config.json")
    expected = load_file(GOLDEN / "code_hifigan/expected.safetensors")
    for name, source in (("a", tmp_path), ("b", tmp_path / "g_00500000")):
        folder = run("code-hifigan", str(source), tmp_path / name, [])
        vocoder = load_part(folder, "vocoder", UnitVocoderConfig, UnitVocoder)
        with torch.no_grad():
            wanted = expected["waveform_with_durations"][:, 0]
            assert (vocoder(expected["code"]) - wanted).norm() / wanted.norm() < 1e-5


@torch.no_grad()
def test_chunks_join_at_every_size() -> None:
    tensors, config = (load_file(GOLDEN / "code_hifigan/generator.safetensors"), json.loads(
        (GOLDEN / "code_hifigan/config.json").read_text()))  # fmt: skip
    ours, weights = code_hifigan.convert(tensors, config)
    vocoder = UnitVocoder(ours).eval()
    vocoder.load_state_dict(weights)
    code = load_file(GOLDEN / "code_hifigan/expected.safetensors")["code"]
    whole = vocoder(code)
    for size in range(1, code.shape[1] + 1):
        state = vocoder.init_state()
        pieces = [vocoder.step(piece, state) for piece in code.split(size, dim=1)]
        assert (torch.cat([*pieces, vocoder.flush(state)], dim=1) - whole).abs().max() < 1e-4, size


def test_a_real_sized_unit_vocoder_is_covered_completely() -> None:
    """mHuBERT-1000's: every name and shape of fairseq's CodeGenerator, weight norm unfolded."""
    config = json.loads((GOLDEN / "code_hifigan/config.json").read_text()) | {
        "num_embeddings": 1000, "embedding_dim": 128, "model_in_dim": 128, "upsample_initial_channel": 512,
        "dur_predictor_params": {"encoder_embed_dim": 128, "var_pred_hidden_dim": 128, "var_pred_kernel_size": 3},
    }  # fmt: skip
    tensors = {"dict.weight": torch.empty(1000, 128)}

    def conv(name: str, out: int, inner: int, kernel: int, transposed: bool = False) -> None:
        shape = (inner, out, kernel) if transposed else (out, inner, kernel)
        tensors[f"{name}.weight_g"] = torch.empty(shape[0], 1, 1, device="meta")
        tensors[f"{name}.weight_v"] = torch.empty(shape, device="meta")
        tensors[f"{name}.bias"] = torch.empty(out, device="meta")

    for i in (1, 2):
        tensors[f"dur_predictor.conv{i}.0.weight"] = torch.empty(128, 128, 3)
        tensors |= {f"dur_predictor.{part}.bias": torch.empty(128) for part in (f"conv{i}.0", f"ln{i}")}
        tensors[f"dur_predictor.ln{i}.weight"] = torch.empty(128)
    tensors |= {"dur_predictor.proj.weight": torch.empty(1, 128), "dur_predictor.proj.bias": torch.empty(1)}
    conv("conv_pre", 512, 128, 7)
    for i, kernel in enumerate((11, 8, 8, 4, 4)):
        conv(f"ups.{i}", 512 >> (i + 1), 512 >> i, kernel, transposed=True)
        for j, size in enumerate((3, 7, 11)):
            for k in range(3):
                conv(f"resblocks.{3 * i + j}.convs1.{k}", 512 >> (i + 1), 512 >> (i + 1), size)
                conv(f"resblocks.{3 * i + j}.convs2.{k}", 512 >> (i + 1), 512 >> (i + 1), size)
    conv("conv_post", 1, 16, 7)
    ours, renamed = code_hifigan.convert(tensors, config)
    check_tensors(named_tensors(made(lambda: UnitVocoder(ours))), shapes_of(renamed), "real sizes")
    assert ours.hop == 320


def test_code_hifigan_that_does_not_fit(tmp_path: Path) -> None:
    tensors = load_file(GOLDEN / "code_hifigan/generator.safetensors")
    shutil.copy(GOLDEN / "code_hifigan/config.json", tmp_path / "config.json")
    for change, message in (
        ({"conv_post.bias": torch.zeros(2)}, r"'generator\.conv_out\.bias' has shape \(2,\); the config says \(1,\)"),
        ({"conv_post.bias": None}, r"'generator\.conv_out\.bias' \(1,\) is missing"),
        ({"spkr.weight": torch.zeros(2, 2)}, r"unknown tensor 'spkr\.weight' \(2, 2\)"),
    ):
        found = {name: tensor for name, tensor in (tensors | change).items() if tensor is not None}
        torch.save({"generator": found}, tmp_path / "g_1")
        with pytest.raises(DuologueError, match=message):
            run("code-hifigan", str(tmp_path / "g_1"), tmp_path / "out", [])
    assert nothing_written(tmp_path, {"config.json", "g_1"})


# HuBERT and k-means.

SMALL_HUBERT: dict[str, Any] = {
    "hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 32, "conv_dim": (8,) * 7,
    "num_conv_pos_embeddings": 4, "num_conv_pos_embedding_groups": 2, "mask_time_prob": 0.0,
}  # fmt: skip


def fairseq_hubert(model: HubertModel) -> dict[str, Any]:
    """The same network as a fairseq checkpoint holds it, beside things that are no tensors."""
    names = {
        "feature_projection.layer_norm": "layer_norm", "feature_projection.projection": "post_extract_proj",
        "encoder.pos_conv_embed.conv.parametrizations.weight.original0": "encoder.pos_conv.0.weight_g",
        "encoder.pos_conv_embed.conv.parametrizations.weight.original1": "encoder.pos_conv.0.weight_v",
        "encoder.pos_conv_embed.conv": "encoder.pos_conv.0", "feed_forward.intermediate_dense": "fc1",
        "feed_forward.output_dense": "fc2", ".attention.": ".self_attn.",
    }  # fmt: skip
    large = model.config.feat_extract_norm == "layer"
    tensors = {}
    for name, tensor in model.state_dict().items():
        for ours, theirs in names.items():
            name = name.replace(ours, theirs)
        if name.startswith("encoder.layers") and ".layer_norm." in name:
            name = name.replace(".layer_norm.", ".self_attn_layer_norm.")
        if name.startswith("feature_extractor"):
            name = name.replace(".conv.", ".0.").replace(".layer_norm.", ".2.1." if large else ".2.")
        tensors[name] = tensor
    tensors |= {
        "mask_emb": torch.ones(16),
        "final_proj.weight": torch.ones(4, 16),
        "label_embs_concat": torch.ones(5, 4),
    }
    return {"args": argparse.Namespace(arch="hubert"), "model": tensors, "optimizer_history": [{"num_updates": 3}]}


def k_means(path: Path, clusters: int = 7, width: int = 16) -> np.ndarray:
    import joblib
    from sklearn.cluster import MiniBatchKMeans

    fitted = MiniBatchKMeans(clusters, n_init=1, random_state=0)
    fitted.fit(np.random.default_rng(0).standard_normal((60, width)).astype(np.float32))
    if path.suffix == ".npy":
        np.save(path, fitted.cluster_centers_)
    elif path.suffix == ".pkl":
        path.write_bytes(pickle.dumps(fitted))
    else:
        joblib.dump(fitted, path)
    return fitted.cluster_centers_


@pytest.mark.parametrize(
    ("form", "clusters"), [("fairseq", "km.bin"), ("fairseq large", "km.pkl"), ("transformers", "km.npy")]
)
def test_hubert_and_its_units(tmp_path: Path, form: str, clusters: str) -> None:
    torch.manual_seed(0)
    large = {"feat_extract_norm": "layer", "do_stable_layer_norm": True, "conv_bias": True} if "large" in form else {}
    model = HubertModel(HubertConfig(**(SMALL_HUBERT | large))).eval()
    if form == "transformers":
        model.save_pretrained(tmp_path / "hubert")
    else:
        torch.save(fairseq_hubert(model), tmp_path / "hubert")
    centroids = k_means(tmp_path / clusters)
    options = [f"kmeans={tmp_path / clusters}", "layer=2", "heads=2"]
    folder = run("hubert-kmeans", str(tmp_path / "hubert"), tmp_path / "units", options)

    units = KMeansUnits.load(folder, HubertFeatures(str(folder), 2))
    waveform = 0.1 * torch.randn(9700)
    heard = (waveform - waveform.mean()) / waveform.std(unbiased=False) if large else waveform
    with torch.no_grad():
        frames = model(heard[None], output_hidden_states=True).hidden_states[2][0].numpy()
    nearest = ((frames[:, None] - centroids) ** 2).sum(-1).argmin(1)
    found = units.encode(waveform)
    assert len(found) == 9700 // 320
    assert found[: len(nearest)].tolist() == nearest.tolist()
    assert len(set(nearest.tolist())) > 1


def test_hubert_that_does_not_fit(tmp_path: Path) -> None:
    torch.manual_seed(0)
    found = fairseq_hubert(HubertModel(HubertConfig(**SMALL_HUBERT)))
    k_means(tmp_path / "km.npy")
    k_means(tmp_path / "wide.npy", width=17)
    good = dict(found["model"])
    before = {"hubert.pt", "km.npy", "wide.npy"}
    for change, kmeans, message in (
        ({"encoder.layers.1.fc2.bias": None}, "km", r"'encoder\.layers\.1\.feed_forward.*\.bias' \(16,\) is missing"),
        ({"encoder.layers.1.fc3.bias": torch.ones(2)}, "km", r"unknown tensor 'encoder\.layers\.1\.fc3\.bias' \(2,\)"),
        ({}, "wide", r"clusters 17 numbers a frame; .* makes 16"),
    ):
        found["model"] = {name: tensor for name, tensor in (good | change).items() if tensor is not None}
        torch.save(found, tmp_path / "hubert.pt")
        options = [f"kmeans={tmp_path / kmeans}.npy", "layer=2", "heads=2"]
        with pytest.raises(DuologueError, match=message):
            run("hubert-kmeans", str(tmp_path / "hubert.pt"), tmp_path / "units", options)
        assert nothing_written(tmp_path, before)
    with pytest.raises(DuologueError, match=r"layer 4: the HuBERT .* has 0 to 3"):
        found["model"] = good
        torch.save(found, tmp_path / "hubert.pt")
        run("hubert-kmeans", str(tmp_path / "hubert.pt"), tmp_path / "u", [f"kmeans={tmp_path}/km.npy", "layer=4"])
    assert nothing_written(tmp_path, before)


# Pickles.


class Harm:
    """What runs a command when it is unpickled by somebody who trusts it."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return os.system, (f"touch {self.mark}",)


@pytest.mark.parametrize(
    ("read", "form"),
    [(load_tensors, "zip"), (load_tensors, "legacy"), (load_fairseq, "zip"), (load_fairseq, "legacy"),
     (load_arrays, "pickle"), (load_arrays, "joblib"), (load_arrays, "object array")],
)  # fmt: skip
def test_a_pickle_that_would_run_code_is_refused(tmp_path: Path, read: Any, form: str) -> None:
    import joblib

    harm = {"model": Harm(tmp_path / "mark")}
    path = tmp_path / "bad"
    if form in ("zip", "legacy"):
        torch.save(harm, path, _use_new_zipfile_serialization=form == "zip")
    elif form == "pickle":
        path.write_bytes(pickle.dumps(harm))
    else:
        joblib.dump(harm if form == "joblib" else np.array([harm], dtype=object), path)
    with pytest.raises(DuologueError) as caught:
        read(path)
    assert not (tmp_path / "mark").exists()
    assert "\n" not in str(caught.value) and str(path) in str(caught.value)


@pytest.mark.parametrize(("read", "form"), [(load_tensors, "zip"), (load_fairseq, "zip"), (load_arrays, "pickle")])
def test_the_refusal_says_what_would_have_run(tmp_path: Path, read: Any, form: str) -> None:
    harm = {"model": Harm(tmp_path / "mark")}
    torch.save(harm, tmp_path / "bad") if form == "zip" else (tmp_path / "bad").write_bytes(pickle.dumps(harm))
    with pytest.raises(DuologueError, match=r"bad is refused: its pickle names posix\.system, and would run code"):
        read(tmp_path / "bad")


def test_a_name_that_loads_a_pickle_inside_is_refused(tmp_path: Path) -> None:
    class Inner:
        def __reduce__(self) -> Any:
            return torch.storage._load_from_bytes, (pickle.dumps(Harm(tmp_path / "mark")),)

    torch.save({"model": Inner()}, tmp_path / "bad")
    with pytest.raises(DuologueError, match=r"names torch\.storage\._load_from_bytes"):
        load_fairseq(tmp_path / "bad")
    assert not (tmp_path / "mark").exists()


def test_objects_of_fairseq_keep_their_fields_and_do_nothing(tmp_path: Path) -> None:
    torch.save({"args": argparse.Namespace(arch="hubert", lr=[0.1])}, tmp_path / "good")
    args = load_fairseq(tmp_path / "good")["args"]
    assert (args.arch, args.lr) == ("hubert", [0.1])
    with pytest.raises(DuologueError, match=r"names argparse\.Namespace"):
        load_tensors(tmp_path / "good")


# The command.


def test_what_the_command_says(tmp_path: Path) -> None:
    for kind, options, message in (
        ("whispr", [], r"no importer 'whispr'; there are whisper, llm, "),
        ("hubert-kmeans", [], r"needs kmeans=…, layer=…"),
        ("hubert-kmeans", ["kmeans=a", "layer=two"], r"layer=two: the value must be a whole number"),
        ("whisper", ["speed=3"], r"option 'speed=3' of importer whisper: it takes heads=…"),
        ("llm", ["speed=3"], r"it takes none"),
    ):
        with pytest.raises(DuologueError, match=message):
            run(kind, str(tmp_path), tmp_path / "out", options)
    with pytest.raises(DuologueError, match="not a folder, and not a hub id"):
        run("whisper", "./no-such-file.pt", tmp_path / "out", [])
    assert nothing_written(tmp_path, set())


@pytest.mark.parametrize("kind", KINDS)
def test_a_source_that_is_something_else_is_one_line(tmp_path: Path, kind: str) -> None:
    (tmp_path / "source").write_bytes(b"PK\x03\x04 no archive")
    (tmp_path / "config.json").write_text("{}")
    options = {"hubert-kmeans": ["kmeans=x", "layer=1"]}.get(kind, [])
    for source in (tmp_path / "source", tmp_path):
        with pytest.raises(DuologueError) as caught:
            run(kind, str(source), tmp_path / "out", options)
        assert "\n" not in str(caught.value)
    assert nothing_written(tmp_path, {"source", "config.json"})


def test_something_else_is_never_overwritten(tmp_path: Path, transformers_whisper: Any) -> None:
    torch.save(openai_whisper(transformers_whisper), tmp_path / "tiny.pt")
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis/chapter.txt").write_text("years")
    with pytest.raises(DuologueError, match="exists and is not a model folder"):
        run("whisper", str(tmp_path / "tiny.pt"), tmp_path / "thesis", [])
    assert whisper.SOURCE and (tmp_path / "thesis/chapter.txt").read_text() == "years"
