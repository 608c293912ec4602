"""`duologue import`, kind by kind: sources as other projects write them, numbers as their own code computes them;
and what the command says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from foreign_files import (
    EXPERTS,
    TINY_WHISPER,
    TOKENIZER_SIZE,
    byte_tokenizer,
    check_whisper,
    nothing_written,
    openai_whisper,
    tiny_llm,
)
from safetensors.torch import load_file, save_file
from transformers import (
    WhisperForConditionalGeneration,
)

from duologue.checkpoints import store
from duologue.checkpoints.importers import whisper
from duologue.checkpoints.parts import read_part
from duologue.checkpoints.weights import fill, made
from duologue.demo.importing import IMPORTERS, run
from duologue.model.errors import DuologueError
from duologue.model.language_model.causal_lm import LLM

# Whisper.

@pytest.fixture(scope="module")
def transformers_whisper() -> WhisperForConditionalGeneration:
    torch.manual_seed(0)
    return WhisperForConditionalGeneration(TINY_WHISPER).eval()


@pytest.mark.parametrize("safe", [True, False])
def test_whisper_of_transformers(tmp_path: Path, transformers_whisper: Any, safe: bool) -> None:
    transformers_whisper.save_pretrained(tmp_path / "whisper")
    if not safe:
        torch.save(transformers_whisper.state_dict(), tmp_path / "whisper/pytorch_model.bin")
        (tmp_path / "whisper/model.safetensors").unlink()
    check_whisper(run("whisper", str(tmp_path / "whisper"), tmp_path / "encoder", []), transformers_whisper)


def test_whisper_of_openai(tmp_path: Path, transformers_whisper: Any) -> None:
    torch.save(openai_whisper(transformers_whisper), tmp_path / "tiny.pt")
    check_whisper(run("whisper", str(tmp_path / "tiny.pt"), tmp_path / "encoder", []), transformers_whisper)


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
        run("whisper", str(tmp_path / "tiny.pt"), tmp_path / "encoder", [])
    assert nothing_written(tmp_path, {"tiny.pt"})


# Language models.

FAMILIES = ("llama", "qwen2", "qwen3", "mistral", "phi", "phi3")
CHANGE_LOGITS = ("gemma2", "cohere", "granite")


@pytest.mark.parametrize("family", FAMILIES + EXPERTS + CHANGE_LOGITS)
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
        segments = torch.tensor([[0] * 8 + [1] * 12])
        packed = ours(ours.embed(ids), segments=segments).logits
        alone = [ours(ours.embed(row)).logits for row in (ids[:, :8], ids[:, 8:])]
        assert (packed - torch.cat(alone, dim=1)).norm() / wanted.norm() < 1e-5
    assert len(store.load_tokenizer(folder)) == TOKENIZER_SIZE


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_weights_stay_in_the_dtype_that_they_are_stored_in(tmp_path: Path, dtype: torch.dtype) -> None:
    reference = tiny_llm("mixtral").to(dtype)
    reference.save_pretrained(tmp_path / "source")
    byte_tokenizer(tmp_path / "source")
    stored = load_file(run("llm", str(tmp_path / "source"), tmp_path / "llm", []) / "model.safetensors")
    theirs = reference.state_dict()
    assert {tensor.dtype for tensor in stored.values()} == {dtype}
    assert all(torch.equal(tensor, theirs[name.removeprefix("llm.lm.")]) for name, tensor in stored.items())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.pop("model.norm.weight"), r"'model\.norm\.weight' is missing$"),
        (lambda t: t.update({"gate": torch.zeros(3)}), r"'gate' has no place in the model$"),
        (lambda t: t.update({"model.norm.weight": torch.zeros(3)}), r"'model\.norm\.weight' has another shape"),
    ],
)
def test_llm_that_does_not_fit(tmp_path: Path, change: Any, message: str) -> None:
    tiny_llm("llama").save_pretrained(tmp_path / "source")
    byte_tokenizer(tmp_path / "source")
    tensors = load_file(tmp_path / "source/model.safetensors")
    tensors["model.layers.0.self_attn.rotary_emb.inv_freq"] = torch.ones(4)  # old versions stored it: no error
    change(tensors)
    save_file(tensors, tmp_path / "source/model.safetensors")
    with pytest.raises(DuologueError, match=message):
        run("llm", str(tmp_path / "source"), tmp_path / "llm", [])
    assert nothing_written(tmp_path, {"source"})


@pytest.mark.parametrize("family", ["mamba", "jamba", "llama4_text"])
def test_families_that_cannot_be_fed_in_chunks_are_refused(tmp_path: Path, family: str) -> None:
    changes = {"num_hidden_layers": 8} if family == "jamba" else {}
    tiny_llm(family, **changes).save_pretrained(tmp_path / "source")
    byte_tokenizer(tmp_path / "source")
    with pytest.raises(DuologueError, match=f"llm family '{family}'"):
        run("llm", str(tmp_path / "source"), tmp_path / "llm", [])
    assert nothing_written(tmp_path, {"source"})


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


# The command.


def test_what_the_command_says(tmp_path: Path) -> None:
    for kind, options, message in (
        ("whispr", [], r"unknown importer 'whispr' \(did you mean whisper\?\); there are: base, code-hifigan, "),
        ("hubert-kmeans", [], r"needs kmeans=…, layer=…"),
        ("hubert-kmeans", ["kmeans=a", "layer=two"], r"layer=two: the value must be a whole number"),
        ("whisper", ["speed=3"], r"unknown key 'speed' for importer whisper; there are: heads"),
        ("llm", ["speed=3"], r"there are none"),
    ):
        with pytest.raises(DuologueError, match=message):
            run(kind, str(tmp_path), tmp_path / "out", options)
    with pytest.raises(DuologueError, match="not a folder, and not a hub id"):
        run("whisper", "./no-such-file.pt", tmp_path / "out", [])
    assert nothing_written(tmp_path, set())


@pytest.mark.parametrize("kind", IMPORTERS.first_lines())
def test_a_source_that_is_something_else_is_one_line(tmp_path: Path, kind: str) -> None:
    (tmp_path / "source").write_bytes(b"PK\x03\x04 no archive")
    (tmp_path / "config.json").write_text("{}")
    options = {"hubert-kmeans": ["kmeans=x", "layer=1"], "base": ["part=llm"]}.get(kind, [])
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
